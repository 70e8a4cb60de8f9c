"""Of the waiting updates of one record only the newest runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from tests.road import SCORE, Incoming, Road, contact, happens, open_road

COALESCED = replace(SCORE, coalesce=True)
LEFT = "SELECT reason FROM circuit.outcomes WHERE status = 'cancelled' ORDER BY delivery"


def update(city: str, record: str = "c1", **fields: Any) -> Incoming:
    return contact(record, "afterUpdate", city=city, **fields)


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(COALESCED)
        yield made


async def test_only_the_newest_of_the_waiting_updates_runs_and_sees_the_state_before_the_first(road: Road) -> None:
    await road.take_in(contact("c1", city="Rome", phone="1"))
    worker = await road.start()
    await road.done()
    await worker.stop()
    for city in ("Oslo", "Bern", "Graz"):
        await road.take_in(update(city))
    await road.take_in(update("Nice", "c2"))

    worker = await road.start()
    await road.done()

    seen = {str(record["id"]): (record, old) for work in worker.children.works
            for record, old in zip(work.records, work.old, strict=True)}  # fmt: skip
    assert sorted(worker.children.handled) == ["c1", "c2"]
    assert seen["c1"] == ({"id": "c1", "city": "Graz", "phone": "1"}, {"id": "c1", "city": "Rome", "phone": "1"})
    newest = max(await road.rows("SELECT id FROM circuit.events WHERE record = 'c1'"))
    assert await road.rows(LEFT) == [f"a newer update came: event {newest}"] * 2
    assert await road.record("c1") == {"id": "c1", "city": "Graz", "phone": "1"}


async def test_an_older_update_that_was_cancelled_does_not_keep_the_newest_from_running(road: Road) -> None:
    gate = asyncio.Event()

    async def hold(work: Work, broker: ExecutionBroker) -> Outcome:
        await gate.wait()
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"))
    worker = await road.start(hold)
    await happens(lambda: worker.children.running == 1, "it runs")
    await road.take_in(update("Oslo"), update("Bern"))
    await happens(lambda: len(worker.dispatcher.backlog) == 3, "the updates were read")
    await road.run("DELETE FROM circuit.queue WHERE id = (SELECT max(id) - 1 FROM circuit.queue)")
    gate.set()
    await road.done()
    assert [dict(work.records[0]) for work in worker.children.works] == [{"id": "c1"}, {"id": "c1", "city": "Bern"}]
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "nothing is left in memory")


async def test_updates_of_single_fields_are_added_up(road: Road) -> None:
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"), contact("c1", "afterUpdate", phone="2"))
    worker = await road.start()
    await road.done()

    assert [dict(work.records[0]) for work in worker.children.works] == [{"id": "c1", "city": "Oslo", "phone": "2"}]
    assert await road.record("c1") == {"id": "c1", "city": "Oslo", "phone": "2"}


async def test_another_event_of_the_record_is_not_jumped_over(road: Road) -> None:
    await road.take_in(update("Oslo"), update("Bern"), contact("c1", "afterDelete"), update("Graz"), update("Nice"))
    worker = await road.start()
    await road.done()

    assert [(work.event, work.records[0].get("city")) for work in worker.children.works] == [
        ("afterUpdate", "Bern"),
        ("afterDelete", "Bern"),
        ("afterUpdate", "Nice"),
    ]


async def test_updates_that_come_while_the_record_is_held_by_a_retry_take_its_place(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.records[0]["city"] != "Graz":
            raise RuntimeError("down")
        return Succeeded(broker.usage)

    await road.take_in(contact("c1", city="Rome"))
    worker = await road.start()
    await road.done()
    await worker.stop()

    worker = await road.start(fail, attempts=1000)
    await road.take_in(update("Oslo"))
    await road.until("SELECT min(attempts) >= 1 FROM circuit.queue", [True])
    await road.take_in(update("Bern"))
    await road.take_in(update("Graz"))
    await road.done()

    last = worker.children.works[-1]
    assert last.records[0]["city"] == "Graz"
    assert last.old[0] is not None
    assert last.old[0]["city"] == "Rome"
    assert len(await road.rows(LEFT)) == 2


async def test_the_newest_that_fails_keeps_what_the_older_ones_brought(road: Road) -> None:
    gate = asyncio.Event()

    async def fail_once(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.events[0]["attempt"] == 1:
            raise RuntimeError("down")
        gate.set()
        return Succeeded(broker.usage)

    await road.take_in(contact("c1", "afterUpdate", city="Oslo"), contact("c1", "afterUpdate", phone="2"))
    worker = await road.start(fail_once)
    await road.done()

    assert gate.is_set()
    assert [dict(work.records[0]) for work in worker.children.works] == [{"id": "c1", "city": "Oslo", "phone": "2"}] * 2
    assert len(await road.rows(LEFT)) == 1, "the older one left with the first attempt"
    assert await road.record("c1") == {"id": "c1", "city": "Oslo", "phone": "2"}


async def test_a_newest_that_dies_does_not_take_an_unread_older_one_along(road: Road) -> None:
    _, broken = await road.take_in(update("Oslo"), update("Bern"))
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE id = %s", broken)
    worker = await road.start()
    await road.done()

    assert [work.records[0]["city"] for work in worker.children.works] == ["Oslo"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [1]


async def test_an_older_update_that_cannot_be_read_leaves_with_the_newest(road: Road) -> None:
    broken, _ = await road.take_in(update("Oslo"), update("Bern"))
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE id = %s", broken)
    worker = await road.start()
    await road.done()

    assert [work.records[0]["city"] for work in worker.children.works] == ["Bern"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]
    assert len(await road.rows(LEFT)) == 1


async def test_without_coalesce_each_update_runs(road: Road) -> None:
    await road.live(SCORE)
    await road.take_in(update("Oslo"), update("Bern"))
    worker = await road.start()
    await road.done()

    assert [work.records[0]["city"] for work in worker.children.works] == ["Oslo", "Bern"]
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "nothing is left in memory")
