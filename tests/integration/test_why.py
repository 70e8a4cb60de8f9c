"""Why an event waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.events.status import StatusReader
from circuit_script.events.why import Answer, why
from circuit_script.execution.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Work
from circuit_script.tenants.pauses import pause
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
