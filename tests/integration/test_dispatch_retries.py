from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, HandlerSpec, Outcome, Succeeded, Work
from tests.receiver import receiving, response
from tests.road import SCORE, Road, contact, open_road, places, score


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


@pytest.mark.parametrize("suspected", [True, False])
async def test_a_record_that_breaks_its_batch_fails_alone(road: Road, suspected: bool) -> None:
    async def break_at(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c77"])
        if bad:
            return Failed("boom", broker.usage, "Traceback …", bad[0] if suspected else None)
        return await score(work, broker)

    await road.take_in(*(contact(f"c{n}") for n in range(100)))
    worker = await road.start(break_at, attempts=2)
    await road.done()

    assert await road.rows("SELECT record, reason, attempts FROM circuit.dead_letters") == [("c77", "boom", 2)]
    scored = await road.rows("SELECT id FROM circuit.records WHERE data ? 'score'")
    assert set(scored) == {f"c{n}" for n in range(100)} - {"c77"}
    broken = [batch for batch in worker.children.batches if "c77" in batch]
    assert len(broken) == (3 if suspected else 9), "the suspect alone, or halves; then its second attempt"
    parts = [len(batch) for batch in worker.children.batches]
    if suspected:  # its second attempt may come before the rest's first
        assert sorted(parts) == [1, 1, 99, 100]
    else:
        assert parts[1:3] == [50, 50]
    assert await road.rows("SELECT detail FROM circuit.executions WHERE detail <> '' LIMIT 1") == ["Traceback …"]


async def test_a_record_that_breaches_a_limit_dies_with_that_reason(road: Road) -> None:
    async def endless(work: Work, broker: ExecutionBroker) -> Outcome | None:
        bad = places(work, ["c3"])
        return Breached("wall_time", 30.1, 30.0, broker.usage, bad[0]) if bad else None

    await road.take_in(*(contact(f"c{n}") for n in range(5)))
    await road.start(endless, attempts=1)
    await road.done()

    assert await road.rows("SELECT record, reason FROM circuit.dead_letters") == [
        ("c3", "limit wall_time exceeded: 30.10 s of 30.00 s")
    ]
    assert set(await road.rows("SELECT status FROM circuit.executions")) == {"breached", "succeeded"}
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'succeeded'") == [4]


async def test_of_a_partial_success_only_the_failed_record_is_tried_again(road: Road) -> None:
    async def partly(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        bad = places(work, ["c1"]) if work.events[0]["attempt"] == 1 else ()
        return Succeeded(broker.usage, dict.fromkeys(bad, "no phone"))

    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    worker = await road.start(partly)
    await road.done()

    assert worker.children.batches == [["c0", "c1", "c2"], ["c1"]]
    assert worker.children.works[1].events[0]["attempt"] == 2
    assert await road.rows("SELECT status, reason FROM circuit.executions ORDER BY id") == [
        ("partial", "no phone"),
        ("succeeded", None),
    ]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'score'") == [3]


async def test_unattributed_effects_leave_only_when_every_record_has_succeeded(road: Road) -> None:
    async def count(work: Work, broker: ExecutionBroker) -> Outcome:
        rows = [{"size": len(work.records)}]
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": rows})
        return Succeeded(broker.usage, dict.fromkeys(places(work, ["c1"]), "bad"))

    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    await road.start(count, attempts=1)
    await road.done()

    totals = await road.rows("SELECT data->'size' FROM circuit.records WHERE object = 'Total'")
    assert totals == [2], "of the two that succeeded together; nothing of the first try, nothing of c1"
    assert await road.rows("SELECT record FROM circuit.dead_letters") == ["c1"]


async def test_a_failing_event_is_retried_with_its_record_held_and_dies_at_the_end(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        if work.event == "afterInsert":
            raise RuntimeError("down")

    worker = await road.start(fail, attempts=3)
    await road.take_in(contact("c1"))
    await road.take_in(contact("c1", "afterUpdate"))
    await road.done()

    assert [(work.event, work.events[0]["attempt"]) for work in worker.children.works] == [
        ("afterInsert", 1),
        ("afterInsert", 2),
        ("afterInsert", 3),
        ("afterUpdate", 1),
    ]
    assert await road.rows("SELECT reason, attempts FROM circuit.dead_letters") == [("down", 3)]
    assert await road.rows("SELECT status FROM circuit.outcomes WHERE status <> 'succeeded' ORDER BY at") == [
        "retry", "retry", "dead"
    ]  # fmt: skip


async def test_a_retry_older_than_hold_is_overtaken(road: Road) -> None:
    recovered = asyncio.Event()

    async def fail(work: Work, broker: ExecutionBroker) -> None:
        if work.event == "afterInsert" and not recovered.is_set():
            raise RuntimeError("down")
        if work.event == "afterUpdate":
            recovered.set()

    await road.start(fail, attempts=50, backoff=0.2, hold=0.05)
    await road.take_in(contact("c1", city="Rome"))
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()

    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]
    assert await road.record("c1") == {"id": "c1", "city": "Oslo"}


async def test_an_event_whose_delivery_left_the_ledger_becomes_a_dead_letter_and_the_others_go_on(
    road: Road,
) -> None:
    gone, _ = await road.take_in(contact("c1"), contact("c2"))
    await road.run("DELETE FROM circuit.deliveries WHERE id = %s", gone)

    worker = await road.start()
    await road.done()

    assert worker.children.handled == ["c2"]
    ((record, reason),) = await road.rows("SELECT record, reason FROM circuit.dead_letters")
    assert record == "c1"
    assert "no longer in the ledger" in reason


async def test_a_body_that_cannot_be_read_any_more_harms_neither_its_batch_nor_a_later_event(road: Road) -> None:
    await road.live(HandlerSpec("updates", (("Contact", "afterUpdate"),)))
    blanked, *_ = await road.take_in(contact("c1"), contact("c2", "afterUpdate"))
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE id = %s", blanked)

    worker = await road.start()
    await road.take_in(contact("c1", "afterUpdate"))
    await road.done()

    assert sorted(worker.children.handled) == ["c1", "c2"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "c1", "deep": "…"}],
        [{"id": "c1", "text": "a\0b"}],
    ],
)
async def test_an_outcome_that_postgresql_refuses_is_the_failure_of_its_record(
    road: Road, rows: list[dict[str, Any]]
) -> None:
    nested: Any = 1
    for _ in range(20_000):
        nested = [nested]
    deep = "deep" in rows[0]

    async def write(work: Work, broker: ExecutionBroker) -> Outcome:
        if places(work, ["c1"]):
            row = {**rows[0], "deep": nested} if deep else rows[0]
            await broker.request("dml", {"op": "update", "object": "Contact", "rows": [row]})
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"), contact("c2"))
    await road.start(write, attempts=1)
    await road.done()

    dead = await road.rows("SELECT record FROM circuit.dead_letters")
    assert dead == (["c1"] if deep else [])
    assert await road.record("c2") == {"id": "c2"}
    if not deep:
        assert await road.record("c1") == {"id": "c1", "text": "a\ufffdb"}


async def test_a_callout_paid_before_a_crash_is_not_paid_again(road: Road) -> None:
    async with receiving(lambda got: response(200, b"%d" % len(paid.got))) as paid:
        replies: list[bytes] = []
        hang = asyncio.Event()

        async def ask(work: Work, broker: ExecutionBroker) -> None:
            for place in range(len(work.records)):
                answer = await broker.request("http", {"method": "GET", "url": paid.url, "record": place})
                replies.append(answer["body"])
            if len(replies) == 2:
                hang.set()
                await asyncio.Event().wait()

        crashing = await road.start(ask)
        await road.take_in(contact("c1"), contact("c2"))
        await hang.wait()
        crashing.task.cancel()
        for task in asyncio.all_tasks():
            if "_follow" in repr(task.get_coro()):
                task.cancel()
        await asyncio.gather(crashing.task, return_exceptions=True)
        await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 minute'")

        await road.start(ask)
        await road.done()

    assert len(paid.got) == 2
    assert sorted(replies) == [b"1", b"1", b"2", b"2"]


async def test_a_dispatcher_sleeps_while_all_it_has_is_a_distant_retry(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        raise RuntimeError("down")

    await road.start(fail, backoff=3600.0, attempts=9)
    await road.take_in(contact("c1"))

    await road.until("SELECT attempts FROM circuit.queue", [1])
    await road.until("SELECT asleep FROM circuit.workers", [True])
