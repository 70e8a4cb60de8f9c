"""What a trigger says of its retries, its events' age and its batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from circuit_script.clock import now
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import ALL_OR_NONE, Breached, Failed, Hint, Outcome, Succeeded, Work
from circuit_script.execution.retries import Retries
from tests.road import SCORE, Road, contact, open_road, places, score

BAD = Hint(kinds=("app.BadRow", "builtins.ValueError"))


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        yield made


async def test_a_trigger_has_retries_of_its_own_and_the_others_those_of_the_settings(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        raise RuntimeError("down")

    own = replace(SCORE, name="own", retries=Retries(attempts=2))
    await road.live(SCORE, own)
    await road.take_in(contact("c1"))
    await road.start(fail, attempts=4)
    await road.done()

    letters = await road.rows(
        "SELECT h.name, d.attempts FROM circuit.dead_letters d JOIN circuit.handlers h ON h.id = d.handler ORDER BY 1"
    )
    assert letters == [("own", 2), ("score", 4)]


@pytest.mark.parametrize("suspected", [True, False])
async def test_a_permanent_exception_is_the_end_of_its_record_alone(road: Road, suspected: bool) -> None:
    async def raise_at(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c3"])
        if bad:
            return Failed("BadRow: no", broker.usage, suspect=bad[0] if suspected else None, hint=BAD)
        return await score(work, broker)

    await road.live(replace(SCORE, retries=Retries(attempts=5, permanent=("builtins.ValueError",))))
    await road.take_in(*(contact(f"c{n}") for n in range(5)))
    await road.start(raise_at, backoff=3600.0)
    await road.done()

    assert await road.rows("SELECT record, attempts FROM circuit.dead_letters") == [("c3", 1)]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'score'") == [4]


async def test_a_permanent_exception_in_the_block_of_a_record_is_its_end(road: Road) -> None:
    async def partly(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c1"])
        return Succeeded(broker.usage, dict.fromkeys(bad, "no"), hints=dict.fromkeys(bad, BAD))

    await road.live(replace(SCORE, retries=Retries(permanent=(ValueError,)).named()))
    await road.take_in(contact("c0"), contact("c1"))
    await road.start(partly, attempts=9)
    await road.done()

    assert await road.rows("SELECT record, attempts FROM circuit.dead_letters") == [("c1", 1)]


async def test_what_a_vendor_asks_for_is_the_least_delay(road: Road) -> None:
    async def busy(work: Work, broker: ExecutionBroker) -> Outcome:
        return Failed("HTTPStatusError: 429", broker.usage, hint=Hint(after=1800.0))

    await road.live(SCORE)
    await road.take_in(contact("c1"))
    await road.start(busy, backoff=0.01)
    await road.until("SELECT attempts FROM circuit.queue", [1])

    (left,) = await road.rows("SELECT extract(epoch FROM not_before - now())::float8 FROM circuit.queue")
    assert 1700 < left < 1801


async def test_an_event_that_is_too_old_is_cancelled_with_its_age_and_what_it_brought_is_kept(road: Road) -> None:
    await road.live(replace(SCORE, max_age=3600.0))
    await road.take_in(contact("c1", city="Rome"))
    await _make_older(road, timedelta(hours=7))
    worker = await road.start()
    await road.done()
    await road.take_in(contact("c2"))
    await road.done()

    assert worker.children.handled == ["c2"]
    ((status, reason),) = await road.rows("SELECT status, reason FROM circuit.outcomes WHERE status <> 'succeeded'")
    assert status == "cancelled"
    assert reason == "it is too old: 7h since it arrived, and max_age is 1h"
    assert await road.rows("SELECT count(*) FROM circuit.executions WHERE status = 'cancelled'") == [1]
    assert await road.record("c1") == {"id": "c1", "city": "Rome"}


async def test_a_retry_that_became_too_old_is_cancelled_too(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        raise RuntimeError("down")

    await road.live(replace(SCORE, max_age=3600.0))
    await road.take_in(contact("c1"))
    worker = await road.start(fail, backoff=3600.0)
    await road.until("SELECT attempts FROM circuit.queue", [1])
    await worker.stop()
    await _make_older(road, timedelta(hours=2))
    await road.run("UPDATE circuit.queue SET not_before = now()")
    again = await road.start(fail)
    await road.done()

    assert again.children.works == []
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]
    assert await road.rows("SELECT status FROM circuit.outcomes WHERE status <> 'retry'") == ["cancelled"]


async def _make_older(road: Road, age: timedelta) -> None:
    """Deliveries carry their time in their id."""
    floor = "(SELECT circuit.uuid_floor(%s::timestamptz))"
    moment = now() - age
    await road.run(f"UPDATE circuit.queue SET delivery = {floor}", moment)
    await road.run(f"UPDATE circuit.events SET delivery = {floor}", moment)
    await road.run(f"UPDATE circuit.deliveries SET id = {floor}", moment)


@pytest.mark.parametrize("how", ["fails", "breaches", "raises"])
async def test_all_or_none_leaves_nothing_of_a_batch_and_tries_all_of_it_again(road: Road, how: str) -> None:
    async def once(work: Work, broker: ExecutionBroker) -> Outcome:
        outcome = await score(work, broker)
        bad = places(work, ["c2"])[0]
        if work.events[bad]["attempt"] > 1:
            return outcome
        match how:
            case "fails":
                return Succeeded(broker.usage, {bad: "no phone"})
            case "breaches":
                return Breached("cpu_time", 11, 10, broker.usage, bad)
            case _:
                return Failed("boom", broker.usage, suspect=bad)

    await road.live(replace(SCORE, batch=ALL_OR_NONE))
    await road.take_in(*(contact(f"c{n}") for n in range(6)))
    worker = await road.start(once)
    await road.done()

    all_of_it = [f"c{n}" for n in range(6)]
    assert [sorted(batch) for batch in worker.children.batches] == [all_of_it, all_of_it]
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'retry'") == [6]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'score'") == [6]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_all_or_none_dies_together_with_the_reason_of_the_culprit(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        return Succeeded(broker.usage, dict.fromkeys(places(work, ["c1"]), "no phone"))

    await road.live(replace(SCORE, batch=ALL_OR_NONE))
    await road.take_in(*(contact(f"c{n}") for n in range(3)))
    worker = await road.start(fail, attempts=3)
    await road.done()

    other = "no phone (record c1 of its batch, which is all or none)"
    letters = await road.rows("SELECT record, reason, attempts FROM circuit.dead_letters ORDER BY record")
    assert letters == [("c0", other, 3), ("c1", "no phone", 3), ("c2", other, 3)]
    assert [len(batch) for batch in worker.children.batches] == [3, 3, 3]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'score'") == [0]


async def test_a_batch_that_is_all_or_none_stays_the_same_while_others_arrive(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome | None:
        if work.events[0]["attempt"] < 3 and places(work, ["c0"]):
            raise RuntimeError("down")
        return None

    await road.live(replace(SCORE, batch=ALL_OR_NONE, batch_size=3))
    await road.take_in(*(contact(f"c{n}") for n in range(3)))
    worker = await road.start(fail, backoff=0.2)
    await road.until("SELECT min(attempts) FROM circuit.queue", [1])
    await road.take_in(*(contact(f"d{n}") for n in range(30)))
    await road.done()

    tries = [sorted(batch) for batch in worker.children.batches if "c0" in batch]
    assert tries == [["c0", "c1", "c2"]] * 3


async def test_what_the_database_refuses_fails_the_whole_batch_that_is_all_or_none(road: Road) -> None:
    nested: list[object] = []
    for _ in range(20_000):
        nested = [nested]

    async def write(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c1"])
        rows = [{"id": "c1", "deep": nested}] if bad else []
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [*rows, {"id": "c0", "x": 1}]})
        return Succeeded(broker.usage)

    await road.live(replace(SCORE, batch=ALL_OR_NONE))
    await road.take_in(contact("c0"), contact("c1"))
    worker = await road.start(write, attempts=1)
    await road.done()

    assert len(worker.children.works) == 1
    assert set(await road.rows("SELECT record FROM circuit.dead_letters")) == {"c0", "c1"}


async def test_a_checkpoint_is_refused_where_a_batch_is_all_or_none(road: Road) -> None:
    said: list[str] = []

    async def take(work: Work, broker: ExecutionBroker) -> Outcome:
        try:
            await broker.request("checkpoint", {"upto": 0, "errors": [], "decided": []})
        except RequestRefused as error:
            said.append(str(error))
        return Succeeded(broker.usage)

    await road.live(replace(SCORE, batch=ALL_OR_NONE))
    await road.take_in(contact("c0"), contact("c1"))
    await road.start(take)
    await road.done()

    assert len(said) == 1
    assert "all or none" in said[0]
