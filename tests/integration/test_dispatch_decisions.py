"""Retry and Cancel on the road, and whose record a log line is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from tests.road import SCORE, Road, contact, open_road, places, score

OUTCOMES = "SELECT status, reason FROM circuit.outcomes ORDER BY at, status"


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def test_a_cancelled_record_leaves_the_queue_without_its_effects_and_is_no_dead_letter(road: Road) -> None:
    async def cancel(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        bad = places(work, ["c1"])
        return Succeeded(broker.usage, dict.fromkeys(bad, "unsubscribed"), dict.fromkeys(bad, None))

    worker = await road.start(cancel)
    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    await road.done()

    assert worker.children.batches == [["c0", "c1", "c2"]]
    assert await road.rows("SELECT status, reason FROM circuit.executions") == [("partial", "unsubscribed")]
    assert await road.rows("SELECT reason FROM circuit.outcomes WHERE status = 'cancelled'") == ["unsubscribed"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]
    assert await road.record("c1") == {"id": "c1"}, "its event's state is known; what the handler wrote is not"
    assert await road.record("c2") == {"id": "c2", "score": 1}


async def test_a_batch_of_which_every_record_was_cancelled_is_cancelled_and_no_trouble(road: Road) -> None:
    async def cancel(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": [{"n": 1}]})
        every = range(len(work.records))
        return Succeeded(broker.usage, dict.fromkeys(every, "closed"), dict.fromkeys(every, None))

    await road.start(cancel)
    await road.take_in(contact("c0"), contact("c1"))
    await road.done()

    assert await road.rows("SELECT status, reason FROM circuit.executions") == [("cancelled", "closed")]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Total'") == [0]


async def test_the_next_event_of_a_cancelled_record_runs(road: Road) -> None:
    async def cancel(work: Work, broker: ExecutionBroker) -> Outcome:
        first = work.event == "afterInsert"
        return Succeeded(broker.usage, {0: "no"}, {0: None}) if first else Succeeded(broker.usage)

    worker = await road.start(cancel)
    await road.take_in(contact("c1"))
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()

    assert [work.event for work in worker.children.works] == ["afterInsert", "afterUpdate"]
    assert await road.rows(OUTCOMES) == [("cancelled", "no"), ("succeeded", None)]


async def test_a_retry_waits_as_long_as_its_author_said(road: Road) -> None:
    async def later(work: Work, broker: ExecutionBroker) -> Outcome:
        return Succeeded(broker.usage, {0: "busy"}, {0: 7200.0})

    await road.start(later, backoff=0.01)
    await road.take_in(contact("c1"))
    await road.until("SELECT attempts FROM circuit.queue", [1])

    waits = "SELECT not_before - now() BETWEEN interval '110 minutes' AND interval '2 hours' FROM circuit.queue"
    assert await road.rows(waits) == [True]
    assert await road.rows(OUTCOMES) == [("retry", "busy")]


async def test_retries_count_as_attempts_and_end_as_a_dead_letter_with_their_reason(road: Road) -> None:
    async def later(work: Work, broker: ExecutionBroker) -> Outcome:
        return Succeeded(broker.usage, {0: "busy"}, {0: 0.0})

    worker = await road.start(later, attempts=3, backoff=3600.0)
    await road.take_in(contact("c1"))
    await road.done()

    assert [work.events[0]["attempt"] for work in worker.children.works] == [1, 2, 3]
    assert await road.rows("SELECT reason, attempts FROM circuit.dead_letters") == [("busy", 3)]


async def test_a_log_line_carries_the_id_of_its_record(road: Road) -> None:
    async def say(work: Work, broker: ExecutionBroker) -> None:
        for place in places(work, ["c1"]):
            broker.log({"message": "hot", "level": "info", "record": place})
        broker.log({"message": "all", "level": "info", "record": None})
        broker.log({"message": "odd", "level": "info", "record": 77})

    await road.start(say)
    await road.take_in(contact("c0"), contact("c1"))
    await road.done()

    assert [(line["message"], line["record"]) for line in road.lines] == [("hot", "c1"), ("all", None), ("odd", None)]


async def test_partitions_of_every_age_take_what_is_cancelled(road: Road) -> None:
    """Those that were made with their parent, and those that were made alone and attached."""
    made = "SELECT circuit.make_partition('outcomes', current_date + 30)"
    assert await road.rows(made) == [True]
    checks = """
        SELECT DISTINCT pg_get_constraintdef(c.oid) LIKE '%%cancelled%%', count(*) OVER (PARTITION BY c.conrelid)
        FROM pg_constraint c JOIN pg_inherits i ON i.inhrelid = c.conrelid
        WHERE i.inhparent = 'circuit.{}'::regclass AND c.contype = 'c' AND c.conname LIKE '%%status%%'
    """
    for parent in ("outcomes", "executions"):
        assert await road.rows(checks.format(parent)) == [(True, 1)]
