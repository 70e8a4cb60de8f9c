"""Why an event waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.clock import uuid7
from circuit_script.events.status import StatusReader
from circuit_script.events.why import Answer, why
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Work
from circuit_script.tenants.pauses import pause
from tests.integration.courier_vendor import Office
from tests.road import SCORE, Road, contact, open_road


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def ask(road: Road, said: str, **more: object) -> Answer:
    async with road.pool.connection() as connection:
        return await why(connection, said, **more)  # type: ignore[arg-type]  # a test's


async def test_without_a_worker_that_is_why_and_the_place_in_the_queue_is_told(road: Road) -> None:
    await road.take_in(contact("c1"), contact("c2"), contact("c3"))

    (found,) = (await ask(road, "c2")).waiting
    assert (found.kind, found.place, found.of, found.trigger) == ("no worker", 2, 3, "score")
    assert (await ask(road, str(found.event))).waiting == [found], "by the event's number, too"
    assert (await ask(road, "nobody")) == Answer([], [])
    assert (await ask(road, "c2", tenant="bolt")).waiting == []


async def test_a_retry_and_what_waits_behind_it(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome | None:
        raise RuntimeError("down")

    await road.start(fail, backoff=3600.0, attempts=9)
    await road.take_in(contact("c1"))
    await road.until("SELECT attempts FROM circuit.queue", [1])
    await road.take_in(contact("c1", "afterUpdate"))

    answer = await ask(road, "c1")
    first, second = answer.waiting
    assert (first.kind, first.words) == ("retry", "attempt 2 comes when its delay is over")
    assert first.until is not None
    assert second.kind == "behind"
    assert second.words == f"event {first.event} of the same record comes first, and is held for its attempt 2"
    assert second.until == first.until
    assert [(row["status"], row["reason"]) for row in answer.ended] == [("retry", "down")]


async def test_what_is_replayed_through_an_earlier_release_needs_no_handler_of_the_live_one(road: Road) -> None:
    worker = await road.start()
    await worker.stop()
    await road.take_in(contact("c1"))
    await road.run("INSERT INTO circuit.workers (id, host, pid, expires_at) "
                   "VALUES (gen_random_uuid(), 'elsewhere', 1, now() + interval '1 hour')")  # fmt: skip
    await road.run("UPDATE circuit.lanes SET owner = (SELECT id FROM circuit.workers)")
    await road.run("DELETE FROM circuit.routes")
    assert [each.kind for each in (await ask(road, "c1")).waiting] == ["no handler"]
    replay = uuid7()
    await road.run("INSERT INTO circuit.replays (id, status, filter, by_whom, rate, release) "
                   "SELECT %s, 'running', '{}', 'ada', 1, release FROM circuit.live", replay)  # fmt: skip
    await road.run("UPDATE circuit.queue SET replay = %s", replay)
    assert [each.kind for each in (await ask(road, "c1")).waiting] == ["line"]


async def test_effects_of_a_record_wait_for_what_the_courier_tells(road: Road) -> None:
    office = Office(road)
    first, second = await office.effect(1, key=7), await office.effect(2, key=7)
    await office.effect(3, key=7, tenant="bolt")
    await road.run("UPDATE circuit.effects SET attempts = 1, next_at = now() + interval '1 hour', reason = 'HTTP 503' "
                   "WHERE id = %s", first)  # fmt: skip

    one, two = (await ask(road, "c7", tenant="acme")).effects
    assert (one.id, one.why, one.ahead, one.attempts, one.reason) == (first, "retry", 0, 1, "HTTP 503")
    assert one.until is not None
    assert (two.id, two.why, two.ahead, two.until) == (second, "behind", 1, None)
    assert (await ask(road, str(second))).effects == [two], "by its id, too"
    assert len((await ask(road, "c7")).effects) == 3
    await road.run("INSERT INTO circuit.courier_waits (tenant, connector, target, kind, worker, until, reason) "
                   "VALUES ('acme', 'vendor', 'alerts', 'open', %s, now() + interval '1 minute', '5 failures')",
                   office.worker)  # fmt: skip
    assert [(each.why, each.reason) for each in (await ask(road, str(first))).effects] == [("open", "5 failures")]


async def test_the_effects_that_a_delivery_led_to(road: Road) -> None:
    office = Office(road)
    (mine,) = await road.take_in(contact("c1"))
    (other,) = await road.take_in(contact("c2"))
    execution = uuid7()
    for delivery, record in (mine, 1), (other, 2):
        await road.run("INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
                       "VALUES (%s, 0, 1, %s, 'acme', 'succeeded')", delivery, execution)  # fmt: skip
        id_ = await office.effect(record)
        await road.run("UPDATE circuit.effects SET execution = %s WHERE id = %s", execution, id_)

    assert [each.record for each in (await ask(road, str(mine))).effects] == ["c1"], "of its batch, its own only"
    assert [each.record for each in (await ask(road, str(other))).effects] == ["c2"]


async def test_a_pause_a_quota_and_the_line(road: Road) -> None:
    worker = await road.start()
    await road.take_in(contact("c0"))
    await road.done()
    async with road.pool.connection() as connection:
        await pause(connection, "record", "c1", tenant="acme", reason="the customer asked", by="ada")
        await pause(connection, "trigger", "score", tenant="bolt", by="ada")
    await worker.stop()
    await road.take_in(contact("c1"), contact("c2"))
    await road.run("INSERT INTO circuit.workers (id, host, pid, expires_at) "
                   "VALUES (gen_random_uuid(), 'elsewhere', 1, now() + interval '1 hour')")  # fmt: skip
    assert [each.kind for each in (await ask(road, "c2")).waiting] == ["unowned"]
    await road.run("UPDATE circuit.lanes SET owner = (SELECT id FROM circuit.workers)")

    (paused,) = (await ask(road, "c1")).waiting
    assert paused.kind == "paused"
    assert paused.words.startswith("ada paused record c1 of tenant acme")
    assert paused.words.endswith(": the customer asked")
    (line,) = (await ask(road, "c2")).waiting
    assert (line.kind, line.place, line.of) == ("line", 2, 2)
    assert line.seconds is not None
    end = datetime.now(UTC) + timedelta(hours=3)
    (quota,) = (await ask(road, "c2", used_up={"acme": end})).waiting
    assert (quota.kind, quota.until) == ("quota", end)

    found = await StatusReader(road.pool).read()
    assert {row["why"]: row["n"] for row in found.waits} == {"paused": 1, "in line": 1}
