"""Pause, resume and cancel on the road."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from circuit_script.errors import ControlRefused
from circuit_script.events.controls import Selection, cancel, found, waiting
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from circuit_script.tenants.pauses import Kind, pause, read_pauses, resume
from tests.road import SCORE, Incoming, Road, Worker, contact, happens, open_road

NOTE = replace(SCORE, name="note")


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE, NOTE)
        yield made


async def stop(road: Road, kind: Kind, value: str = "", tenant: str | None = None) -> int:
    async with road.pool.connection() as connection:
        return await pause(connection, kind, value, tenant=tenant, reason="a test", by="ada")


async def go_on(road: Road, kind: Kind, value: str = "", tenant: str | None = None) -> int:
    async with road.pool.connection() as connection:
        return await resume(connection, kind, value, tenant=tenant)


async def take_out(road: Road, selection: Selection, reason: str = "wrong file") -> int:
    async with road.pool.connection() as connection:
        return await cancel(connection, await found(connection, selection), reason=reason, by="ada")


def handled(worker: Worker, handler: str) -> list[str]:
    return [str(each["id"]) for work in worker.children.works if work.handler == handler for each in work.records]


async def noticed(worker: Worker) -> None:
    """Until it has read what is paused now."""
    seen = worker.dispatcher.pauses.changed
    await happens(lambda: worker.dispatcher.pauses.changed > seen, "the worker did not look")


@pytest.mark.parametrize(
    ("kind", "value", "tenant", "left"),
    [
        ("trigger", "score", None, {("score", "acme"), ("score", "bolt")}),
        ("trigger", "score", "acme", {("score", "acme")}),
        ("tenant", "acme", None, {("score", "acme"), ("note", "acme")}),
        ("record", "c1", "acme", {("score", "acme"), ("note", "acme")}),
        ("everything", "", None, {("score", "acme"), ("note", "acme"), ("score", "bolt"), ("note", "bolt")}),
    ],
)
async def test_what_is_paused_waits_and_everything_else_goes_on(
    road: Road, kind: Kind, value: str, tenant: str | None, left: set[tuple[str, str]]
) -> None:
    await stop(road, kind, value, tenant)
    await road.take_in(contact("c1"), Incoming("c1", tenant="bolt"))
    worker = await road.start()
    rows = "SELECT h.name, q.tenant FROM circuit.queue q JOIN circuit.handlers h ON h.id = q.handler ORDER BY 1, 2"

    await road.until(rows, sorted(left))
    assert len(worker.children.works) == 4 - len(left)
    await happens(lambda: bool(worker.dispatcher.backlog.aside), "it was put aside")
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "what is paused is not in memory")
    assert len(worker.children.works) == 4 - len(left)
    assert await go_on(road, kind, value, tenant) == 1
    await road.done()
    assert len(worker.children.works) == 4
    assert await go_on(road, kind, value, tenant) == 0


async def test_a_paused_trigger_with_more_rows_than_fit_does_not_keep_its_tenants_others_waiting(road: Road) -> None:
    await stop(road, "trigger", "score")
    await road.take_in(*(contact(f"c{n}") for n in range(300)))
    worker = await road.start(look_ahead=20)
    await happens(lambda: len(handled(worker, "note")) == 300, "the other trigger starves")
    assert handled(worker, "score") == []
    await happens(lambda: worker.dispatcher._asleep, "the reader does not rest")

    await road.take_in(*(contact(f"c{n}", "afterUpdate") for n in range(300)))
    await happens(lambda: len(handled(worker, "note")) == 600, "the other trigger starves")
    await go_on(road, "trigger", "score")
    await road.done()
    events: dict[str, list[str]] = {}
    for work in worker.children.works:
        if work.handler == "score":
            for record in work.records:
                events.setdefault(str(record["id"]), []).append(work.event)
    assert len(events) == 300
    assert all(each == ["afterInsert", "afterUpdate"] for each in events.values()), "in order"


async def test_a_pause_while_rows_are_in_memory_takes_them_out_and_order_holds_afterwards(road: Road) -> None:
    gate = asyncio.Event()
    order: list[Any] = []

    async def slow(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.handler == "score":
            await gate.wait()
            order.extend((record["id"], record["n"]) for record in work.records)
        return Succeeded(broker.usage)

    await road.take_in(*(contact("c1", "afterUpdate", n=n) for n in range(5)))
    worker = await road.start(slow)
    await happens(lambda: worker.children.running == 1, "the first one runs")
    await stop(road, "trigger", "score")
    await noticed(worker)
    gate.set()
    await road.until("SELECT count(*) FROM circuit.queue", [4])
    assert order == [("c1", 0)], "what ran has ended, and nothing after it started"

    await worker.stop()
    again = await road.start(slow)
    await road.take_in(contact("c1", "afterUpdate", n=5))
    await road.until("SELECT count(*) FROM circuit.queue", [5])
    assert again.dispatcher.pauses.triggers == {"score"}, "it survives a restart"
    await go_on(road, "trigger", "score")
    await road.done()
    assert order == [("c1", n) for n in range(6)]


async def test_a_retry_of_what_is_paused_waits_too(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome | None:
        if work.handler == "score" and work.events[0]["attempt"] == 1:
            raise RuntimeError("down")
        return None

    worker = await road.start(fail, backoff=4.0)  # in which a busy machine, too, sees it wait
    await road.take_in(contact("c1"))
    await road.until("SELECT attempts FROM circuit.queue", [1])
    await stop(road, "tenant", "acme")
    await noticed(worker)
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "it is not in memory")
    await go_on(road, "tenant", "acme")
    await road.done()

    assert handled(worker, "score") == ["c1", "c1"]


async def test_pausing_twice_keeps_the_pause_and_its_last_reason(road: Road) -> None:
    first = await stop(road, "connector", "webhook", "acme")
    async with road.pool.connection() as connection:
        again = await pause(connection, "connector", "webhook", tenant="acme", reason="still", by="bob")
        (kept,) = await read_pauses(connection)

    assert first == again == kept.id
    assert (kept.shown, kept.reason, kept.by) == ("connector webhook of tenant acme", "still", "bob")
    worker = await road.start()
    await happens(lambda: worker.dispatcher.pauses.connectors == {("webhook", "acme")}, "the courier is told")


async def test_cancelled_rows_leave_with_their_reason_in_bounded_transactions(road: Road) -> None:
    for _ in range(5):
        await road.take_in(*(contact(f"c{n}") for n in range(500)))
    told: list[int] = []
    async with road.pool.connection() as connection:
        meant = await found(connection, Selection("trigger", "score"))
        assert await waiting(connection, meant) == 2500
        done = await cancel(connection, meant, reason="wrong file", by="ada", told=told.append)

    assert done == 2500
    assert told == [0, 1000, 2000, 2500]
    assert await road.rows("SELECT DISTINCT handler FROM circuit.queue") == [road.handler("note")]
    assert await road.rows("SELECT DISTINCT status, reason FROM circuit.outcomes") == [
        ("cancelled", "cancelled by ada: wrong file")
    ]
    assert await road.rows("SELECT sum(records)::int FROM circuit.executions WHERE status = 'cancelled'") == [2500]
    assert await road.rows("SELECT count(*) FROM circuit.pauses") == [0]
    worker = await road.start()
    await road.done()
    assert handled(worker, "score") == []


async def test_the_result_of_what_runs_while_it_is_cancelled_does_not_count(road: Road) -> None:
    gate = asyncio.Event()

    async def write(work: Work, broker: ExecutionBroker) -> Outcome:
        await gate.wait()
        rows = [{"id": record["id"], "by": work.handler} for record in work.records]
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
        return Succeeded(broker.usage)

    await road.live(SCORE)
    await road.take_in(contact("c1"), contact("c2"))
    worker = await road.start(write)
    await happens(lambda: worker.children.running == 1, "it runs")
    assert await take_out(road, Selection("record", "c1", "acme")) == 1
    gate.set()
    await road.done()

    assert await road.record("c1") is None
    assert await road.record("c2") == {"id": "c2", "by": "score"}
    ended = await road.rows("SELECT status FROM circuit.outcomes ORDER BY status")
    assert ended == ["cancelled", "succeeded"]
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "nothing is left in memory")


async def test_what_is_cancelled_does_not_start_though_a_worker_has_read_it(road: Road) -> None:
    """The second event of c1 waits in memory for the first one; the pause is over before the worker looks."""
    gate = asyncio.Event()

    async def hold(work: Work, broker: ExecutionBroker) -> Outcome:
        await gate.wait()
        return Succeeded(broker.usage)

    await road.live(SCORE)
    await road.take_in(contact("c1"))
    worker = await road.start(hold)
    await happens(lambda: worker.children.running == 1, "it runs")
    await road.take_in(contact("c1", "afterUpdate"))
    await happens(lambda: len(worker.dispatcher.backlog) == 2, "the second one was read")
    worker.dispatcher.pauses.refresh = unaware  # type: ignore[method-assign]
    assert await take_out(road, Selection("record", "c1", "acme")) == 2
    gate.set()
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "nothing is left in memory")
    assert len(worker.children.works) == 1
    await road.take_in(contact("c1", "afterUpdate"))
    await road.done()
    assert len(worker.children.works) == 2


async def unaware(_: object) -> bool:
    return False


async def test_parts_of_a_batch_that_was_paused_while_it_ran_do_not_start(road: Road) -> None:
    gate = asyncio.Event()

    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        await gate.wait()
        raise RuntimeError("one of them is bad")

    await road.live(SCORE)
    worker = await road.start(fail)
    await road.take_in(*(contact(f"c{n}") for n in range(8)))
    await happens(lambda: worker.children.running == 1, "it runs")
    await stop(road, "trigger", "score")
    await noticed(worker)
    gate.set()
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "its rows were put aside")
    assert worker.children.batches == [[f"c{n}" for n in range(8)]]


async def test_cancelling_what_is_paused_leaves_the_pause(road: Road) -> None:
    await stop(road, "trigger", "score")
    await road.take_in(contact("c1"))
    assert await take_out(road, Selection("trigger", "score")) == 1
    assert await road.rows("SELECT kind, value, reason FROM circuit.pauses") == [("trigger", "score", "a test")]


async def test_a_trigger_that_is_not_there_is_refused_with_one_that_is_near(road: Road) -> None:
    async with road.pool.connection() as connection:
        with pytest.raises(ControlRefused, match="Did you mean 'score'"):
            await found(connection, Selection("trigger", "scoer"))
