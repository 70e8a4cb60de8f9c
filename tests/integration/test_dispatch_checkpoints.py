"""Checkpoints on the road: what is behind one is done, whatever comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest

from circuit_script.config import Address
from circuit_script.effects.settle import Settlement, Settler
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded, Work
from tests.receiver import receiving, response
from tests.road import SCORE, Road, contact, happens, open_road, places, score

EXECUTIONS = "SELECT status, reason, records FROM circuit.executions ORDER BY id"
SCORED = "SELECT id FROM circuit.records WHERE data ? 'score' ORDER BY id"


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def checkpoint(
    broker: ExecutionBroker, upto: int, errors: Mapping[int, str] = {}, decided: Mapping[int, float | None] = {}
) -> None:
    asked = {"upto": upto, "errors": [list(each) for each in errors.items()]}
    await broker.request("checkpoint", {**asked, "decided": [list(each) for each in decided.items()]})


async def test_what_is_behind_a_checkpoint_is_committed_while_the_handler_goes_on(road: Road) -> None:
    seen: list[Any] = []

    async def half(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        await checkpoint(broker, 1)
        seen.append(await road.rows(SCORED))
        seen.append(await road.rows("SELECT record FROM circuit.queue ORDER BY id"))
        seen.append(await road.rows(EXECUTIONS))
        seen.append((await broker.request("get", {"object": "Contact", "ids": ["c0"]}))[0])
        return Succeeded(broker.usage)

    await road.start(half)
    await road.take_in(*(contact(f"c{n}") for n in range(4)))
    await road.done()

    assert seen == [["c0", "c1"], ["c2", "c3"], [("partial", None, 4)], {"id": "c0", "score": 1}]
    assert await road.rows(EXECUTIONS) == [("succeeded", None, 4)]
    assert await road.rows("SELECT usage ? 'dml_rows', ended_at > started_at FROM circuit.executions") == [(True, True)]
    assert await road.rows(SCORED) == ["c0", "c1", "c2", "c3"]
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(4, 4)]
    assert await road.rows("SELECT count(*) FROM circuit.effects WHERE connector = 'local'") == [2]


@pytest.mark.parametrize("how", ["failed", "breached"])
async def test_what_ends_an_execution_concerns_only_the_records_after_its_checkpoint(road: Road, how: str) -> None:
    async def break_later(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        bad = places(work, ["c3"])
        if not bad:
            return Succeeded(broker.usage)
        if len(work.records) > 1:
            await checkpoint(broker, 1)
        if how == "failed":
            return Failed("boom", broker.usage, suspect=bad[0])
        return Breached("callouts", 51, 50, broker.usage, suspect=bad[0])

    worker = await road.start(break_later, attempts=1)
    await road.take_in(*(contact(f"c{n}") for n in range(5)))
    await road.done()

    assert worker.children.batches == [["c0", "c1", "c2", "c3", "c4"], ["c3"], ["c2", "c4"]]
    assert await road.rows(SCORED) == ["c0", "c1", "c2", "c4"]
    assert await road.rows("SELECT record FROM circuit.dead_letters") == ["c3"]
    (first, *_) = await road.rows("SELECT status FROM circuit.executions ORDER BY id")
    assert first == how


async def test_errors_and_decisions_before_a_checkpoint_are_settled_with_it(road: Road) -> None:
    async def partly(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        if work.events[0]["attempt"] > 1:
            return Succeeded(broker.usage)
        errors = {0: "no phone", 1: "closed", 2: "busy"}
        decided = {1: None, 2: 3600.0}
        await checkpoint(broker, 3, errors, decided)
        return Succeeded(broker.usage, errors | {4: "late"}, decided)

    worker = await road.start(partly)
    await road.take_in(*(contact(f"c{n}") for n in range(6)))
    await road.until("SELECT record FROM circuit.queue", ["c2"])

    assert worker.children.batches[0] == [f"c{n}" for n in range(6)]
    assert sorted(itertools.chain(*worker.children.batches[1:])) == ["c0", "c4"], "each again, alone or together"
    assert await road.rows("SELECT status, count(*) FROM circuit.outcomes GROUP BY 1 ORDER BY 1") == [
        ("cancelled", 1), ("retry", 3), ("succeeded", 4)
    ]  # fmt: skip
    assert (await road.rows(EXECUTIONS))[0] == ("partial", "no phone", 6)
    assert await road.rows(SCORED) == ["c0", "c3", "c4", "c5"]


async def test_a_checkpoint_of_the_same_place_changes_nothing_and_one_of_the_last_leaves_nothing(road: Road) -> None:
    async def again(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        for upto in (1, 1, 0, 2, 2):
            await checkpoint(broker, upto)
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": [{"n": len(work.records)}]})
        raise RuntimeError("too late")

    worker = await road.start(again, attempts=1)
    await road.take_in(*(contact(f"c{n}") for n in range(3)))
    await road.done()
    await road.until("SELECT status, reason FROM circuit.executions", [("failed", "too late")])

    assert len(worker.children.works) == 1
    assert await road.rows("SELECT status, count(*) FROM circuit.outcomes GROUP BY 1") == [("succeeded", 3)]
    assert await road.rows(SCORED) == ["c0", "c1", "c2"]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Total'") == [0]


async def test_what_belongs_to_no_record_leaves_at_the_end_and_sends_keep_their_record(road: Road) -> None:
    async with receiving(lambda got: response(200)) as receiver:

        async def tell(work: Work, broker: ExecutionBroker) -> Outcome:
            await broker.request("dml", {"op": "insert", "object": "Total", "rows": [{"n": 3}]})
            for place in range(3):
                send = {"connector": "webhook", "operation": "post", "to": "x", "payload": {"n": place}}
                await broker.request("send", {**send, "record": place})
                if place < 2:
                    await checkpoint(broker, place)
                    assert await road.rows("SELECT count(*) FROM circuit.effects") == [place + 1]
            await checkpoint(broker, 2)
            assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Total'") == [0]
            return Succeeded(broker.usage)

        await road.start(tell, addresses={"x": Address(url=receiver.url)})
        await road.take_in(*(contact(f"c{n}") for n in range(3)))
        await road.done()
        await road.until("SELECT status FROM circuit.executions", ["succeeded"])

    sends = "SELECT record, payload->'n' FROM circuit.effects WHERE connector = 'webhook' ORDER BY id"
    assert await road.rows(sends) == [("c0", 0), ("c1", 1), ("c2", 2)]
    await road.until("SELECT count(*) FROM circuit.records WHERE object = 'Total'", [1])


@pytest.mark.parametrize("upto", [1, 3])
async def test_what_belongs_to_no_record_is_lost_when_a_settled_record_failed_and_the_log_says_so(
    road: Road, upto: int
) -> None:
    async def cancel_the_first(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": [{"n": len(work.records)}]})
        await checkpoint(broker, upto, {0: "bad"}, {0: None})
        return Succeeded(broker.usage, {} if upto == 3 else {3: "late"}, {} if upto == 3 else {3: None})

    worker = await road.start(cancel_the_first)
    await road.take_in(*(contact(f"c{n}") for n in range(4)))
    await road.done()
    await road.until("SELECT usage ? 'dml_rows' FROM circuit.executions", [True])
    await road.until("SELECT status, reason FROM circuit.executions", [("partial", "bad")])

    assert len(worker.children.works) == 1, "a split would make it for a part of the batch"
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Total'") == [0]
    assert await road.rows(SCORED) == (["c1", "c2", "c3"] if upto == 3 else ["c1", "c2"])
    await asyncio.sleep(0)
    (line,) = [each for each in road.lines if each["level"] == "warning"]
    assert "what belongs to no record does not leave (writes and messages: 1)" in line["message"]


async def test_the_reason_of_a_checkpoint_outlives_the_success_of_the_rest(road: Road) -> None:
    async def fail_the_first(work: Work, broker: ExecutionBroker) -> Outcome:
        if len(work.records) == 3:
            await checkpoint(broker, 0, {0: "no phone"}, {0: None})
            await checkpoint(broker, 1)
            assert await road.rows(EXECUTIONS) == [("partial", "no phone", 3)]
        return Succeeded(broker.usage)

    await road.start(fail_the_first)
    await road.take_in(*(contact(f"c{n}") for n in range(3)))
    await road.done()

    assert await road.rows(EXECUTIONS) == [("partial", "no phone", 3)]


async def test_a_checkpoint_stores_the_usage_so_far_and_the_last_one_the_status_of_the_whole(road: Road) -> None:
    seen: list[Any] = []
    usage = "SELECT status, usage->'dml_rows', (usage->>'wall_time')::float >= 0 FROM circuit.executions"

    async def step_by_step(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        for place in range(2):
            await checkpoint(broker, place)
            seen.extend(await road.rows(usage))
        return Failed("its worker died", broker.usage, blameless=True)

    await road.start(step_by_step)
    await road.take_in(contact("c0"), contact("c1"))
    await happens(lambda: len(seen) == 2, "both checkpoints are stored")  # the queue is empty a moment before
    await road.done()

    assert seen == [("partial", 2, True), ("succeeded", 2, True)]


async def test_after_the_checkpoint_of_an_only_record_its_writes_are_refused_and_others_wait_for_the_end(
    road: Road,
) -> None:
    refused: list[str] = []

    async def go_on(work: Work, broker: ExecutionBroker) -> Outcome:
        await checkpoint(broker, 0, {0: "bad"} if work.records[0]["id"] == "c0" else {}, {0: None})
        with pytest.raises(RequestRefused, match="this record is settled") as refusal:
            await broker.request("dml", {"op": "insert", "object": "Note", "rows": [{}], "record": 0})
        refused.append(str(refusal.value))
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": [{"id": work.records[0]["id"]}]})
        return Succeeded(broker.usage)

    worker = await road.start(go_on)
    for record in ("c0", "c1"):
        await road.take_in(contact(record))
        await road.done()
    await road.until("SELECT status FROM circuit.executions ORDER BY id", ["cancelled", "succeeded"])
    await road.until("SELECT id FROM circuit.records WHERE object = 'Total'", ["c1"])

    assert len(refused) == len(worker.children.works) == 2
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Note'") == [0]


async def test_a_checkpoint_of_a_fenced_worker_ends_its_execution_and_its_rows_run_again(road: Road) -> None:
    ended: list[str] = []

    async def lose_the_lanes(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        if not ended:
            ended.append("lost")
            await road.run("UPDATE circuit.lanes SET epoch = epoch + 1, owner = NULL WHERE owner IS NOT NULL")
            try:
                await checkpoint(broker, 0)
            except (RequestRefused, asyncio.CancelledError):
                ended.append("told")
                raise
        return Succeeded(broker.usage)

    worker = await road.start(lose_the_lanes, lease=1.0)
    await road.take_in(*(contact(f"c{n}") for n in range(4)))
    await road.done()

    assert ended == ["lost", "told"]
    assert len(worker.children.handled) == 8
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(4, 4)]
    assert await road.rows(SCORED) == ["c0", "c1", "c2", "c3"]


async def test_an_outcome_that_the_database_refuses_at_a_checkpoint_is_the_handlers_to_know(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Settler.settle

    async def refuse(self: Settler, settlement: Settlement) -> None:
        if any(write.id == "c1" for write in settlement.writes):
            raise psycopg.errors.NumericValueOutOfRange("too large a number")
        await settle(self, settlement)

    monkeypatch.setattr(Settler, "settle", refuse)

    async def write(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        for place in places(work, ["c1"]):
            await checkpoint(broker, place)
        return Succeeded(broker.usage)

    await road.start(write, attempts=1)
    await road.take_in(*(contact(f"c{n}") for n in range(3)))
    await road.done()

    ((record, reason),) = await road.rows("SELECT record, reason FROM circuit.dead_letters")
    assert record == "c1"
    assert "checkpoint: the database refused the outcome: too large a number" in reason
    assert await road.rows(SCORED) == ["c0", "c2"]


async def test_a_checkpoint_waits_for_a_database_that_is_away(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, away = Settler.settle, [True]

    async def once_away(self: Settler, settlement: Settlement) -> None:
        if away:
            away.pop()
            raise psycopg.OperationalError("the server closed the connection")
        await settle(self, settlement)

    monkeypatch.setattr(Settler, "settle", once_away)

    async def half(work: Work, broker: ExecutionBroker) -> Outcome:
        await checkpoint(broker, 0)
        return Succeeded(broker.usage)

    worker = await road.start(half)
    await road.take_in(contact("c0"), contact("c1"))
    await road.done()

    assert not away
    assert worker.children.batches == [["c0", "c1"]]
    assert await road.rows(EXECUTIONS) == [("succeeded", None, 2)]


async def test_after_the_death_of_a_worker_only_what_no_checkpoint_has_settled_runs_again(road: Road) -> None:
    reached = asyncio.Event()

    async def hang(work: Work, broker: ExecutionBroker) -> None:
        await score(work, broker)
        await checkpoint(broker, 1)
        reached.set()
        await asyncio.Event().wait()

    dying = await road.start(hang)
    await road.take_in(*(contact(f"c{n}") for n in range(4)))
    await reached.wait()
    dying.task.cancel()
    for task in asyncio.all_tasks():
        if "_follow" in repr(task.get_coro()):
            task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)
    await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 minute'")
    heir = await road.start(score)
    await road.done()

    assert sorted(heir.children.handled) == ["c2", "c3"]
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(4, 4)]
    assert await road.rows(SCORED) == ["c0", "c1", "c2", "c3"]
    assert await road.rows("SELECT status FROM circuit.executions ORDER BY id") == ["partial", "succeeded"]
