from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.events.executions import RETIRED
from circuit_script.events.lanes import LANES
from circuit_script.events.reader import QueueReader
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Outcome, Succeeded, Work
from tests.road import SCORE, Road, contact, happens, open_road, score

OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


@pytest.mark.every_server
async def test_two_dispatchers_on_one_database_share_the_work_and_do_nothing_twice(road: Road) -> None:
    first = await road.start(score, lease=4.0)
    second = await road.start(score, lease=4.0)
    await happens(lambda: len(first.lanes.held) == len(second.lanes.held) == LANES // 2, "they share the lanes")

    for chunk in range(5):
        await road.take_in(*(contact(f"c{chunk}-{n}") for n in range(40)))
    await road.done()

    handled = Counter(first.children.handled) + Counter(second.children.handled)
    assert handled == Counter(f"c{chunk}-{n}" for chunk in range(5) for n in range(40))
    assert min(len(first.children.handled), len(second.children.handled)) > 30
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(200, 200)]


async def test_a_worker_that_leaves_hands_over_what_it_has_not_done(road: Road) -> None:
    stuck = asyncio.Event()

    async def wait(work: Work, broker: ExecutionBroker) -> None:
        await stuck.wait()

    leaving = await road.start(wait, size=1)
    await road.take_in(*(contact(f"c{n % 10}", "afterUpdate", n=n) for n in range(30)))
    await happens(lambda: leaving.children.running == 1, "it works")
    leaving.dispatcher.stop()
    stuck.set()
    await leaving.task
    assert await road.rows("SELECT count(*) > 0 FROM circuit.queue") == [True]

    await road.start(score)
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(30, 30)]
    assert sorted(await road.rows("SELECT (data->'n')::int FROM circuit.records")) == list(range(20, 30))


async def test_of_a_fenced_dispatcher_nothing_counts_and_another_does_its_work(road: Road) -> None:
    hang, resume = asyncio.Event(), asyncio.Event()

    async def paused(work: Work, broker: ExecutionBroker) -> Outcome:
        hang.set()
        await resume.wait()
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [{"id": "c1", "by": "first"}]})
        return Succeeded(broker.usage)

    async def heir(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [{"id": "c1", "by": "heir"}]})
        return Succeeded(broker.usage)

    first = await road.start(paused, lease=1000.0)
    await road.take_in(contact("c1"))
    await hang.wait()
    await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 second'")
    second = await road.start(heir)
    await road.done()
    resume.set()
    await first.stop()

    assert second.children.handled == ["c1"]
    assert await road.record("c1") == {"id": "c1", "by": "heir"}
    assert await road.rows("SELECT count(*) FROM circuit.outcomes") == [1]
    assert await road.rows("SELECT count(*) FROM circuit.executions") == [1]


async def test_rows_beside_a_fenced_lane_are_not_forgotten(road: Road) -> None:
    """A batch spans lanes; when one of them is lost, the rows of the others still wait and run."""
    lost: list[int] = []

    async def lose_a_lane(work: Work, broker: ExecutionBroker) -> None:
        if not lost:
            lost.extend(await road.rows("SELECT lane FROM circuit.queue ORDER BY id LIMIT 1"))
            await road.run("UPDATE circuit.lanes SET owner = NULL, epoch = epoch + 1 WHERE lane = %s", lost[0])

    await road.take_in(*(contact(f"c{n}") for n in range(20)))
    worker = await road.start(lose_a_lane)
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(20, 20)]
    assert lost
    assert len(worker.children.handled) >= 40, "the whole batch was fenced and ran again"


async def test_an_event_of_a_handler_that_was_retired_becomes_a_dead_letter(road: Road) -> None:
    await road.take_in(contact("c1"), contact("c2"))
    retired = road.handler("score")
    await road.live(HandlerSpec("newer", (("Contact", "afterInsert"),)))

    worker = await road.start()
    await road.take_in(contact("c3"))
    await road.done()

    assert worker.children.handled == ["c3"]
    assert await road.rows("SELECT record, handler, reason FROM circuit.dead_letters ORDER BY record") == [
        ("c1", retired, RETIRED),
        ("c2", retired, RETIRED),
    ]


async def test_a_database_that_restarts_stops_nothing_for_good(road: Road) -> None:
    worker = await road.start(score)
    await road.take_in(*(contact(f"a{n}") for n in range(50)))
    for _ in range(3):
        with pytest.raises(psycopg.Error):
            await road.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND backend_type = 'client backend' ORDER BY pid = pg_backend_pid()"
            )
        await road.take_in(*(contact(f"b{uuid7()}") for _ in range(20)))
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(110, 110)]
    assert not worker.task.done()


async def test_lanes_won_while_the_connection_broke_are_read_all_the_same(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = []
    of_lanes = QueueReader.of_lanes

    def break_once(self: QueueReader, *arguments: Any) -> Any:
        if not broken:
            broken.append(True)
            raise psycopg.OperationalError("the connection broke")
        return of_lanes(self, *arguments)

    monkeypatch.setattr(QueueReader, "of_lanes", break_once)
    await road.take_in(*(contact(f"c{n}") for n in range(20)))
    worker = await road.start()
    await road.done()

    assert broken
    assert len(worker.children.handled) == 20


async def test_a_worker_that_drains_does_not_mark_lanes_that_it_never_read(road: Road) -> None:
    release = asyncio.Event()

    async def wait(work: Work, broker: ExecutionBroker) -> None:
        await release.wait()

    first = await road.start(wait, size=1, lease=1.0)
    second = await road.start(wait, size=1, lease=1.0)
    await happens(lambda: len(first.lanes.held) == len(second.lanes.held) == 32, "they share")
    await road.take_in(*(contact(f"c{n % 40}", "afterUpdate", n=n) for n in range(160)))
    await happens(lambda: first.children.running + second.children.running == 2, "both work")

    for worker in (first, second):
        worker.dispatcher.stop()
    release.set()
    await asyncio.gather(first.task, second.task)
    left = await road.rows("SELECT count(*) FROM circuit.queue")
    assert left[0] > 0

    await road.start()
    await road.done()
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(160, 160)]


async def test_an_event_of_a_newer_releases_handler_waits_for_a_worker_that_has_it(road: Road) -> None:
    await road.start()
    await road.live(SCORE, HandlerSpec("newer", (("Contact", "afterInsert"),)))

    await road.take_in(contact("c1"), contact("c2"))

    await road.until("SELECT status FROM circuit.outcomes", ["succeeded", "succeeded"])
    assert await road.rows("SELECT handler FROM circuit.queue") == [road.handler("newer")] * 2
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_a_worker_that_stops_while_lanes_are_unread_leaves_their_events_to_the_next(road: Road) -> None:
    first = await road.start()
    await road.take_in(*(contact(f"c{number}") for number in range(20)))
    first.dispatcher._unread = dict.fromkeys(first.lanes.held, 0)  # as after a takeover whose reading broke
    first.dispatcher.stop()
    await road.close_workers()

    second = await road.start()
    await road.done()

    assert len(set(first.children.handled) | set(second.children.handled)) == 20


async def test_a_worker_that_stops_while_the_database_is_away_does_not_wait_for_it(road: Road) -> None:
    async def never(work: Work, broker: ExecutionBroker) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    worker = await road.start(never, drain=0.2)
    await road.take_in(contact("a"))
    await happens(lambda: worker.children.handled == ["a"], "it runs")
    road.url = "postgresql://127.0.0.1:1/away"
    await road.run(OTHERS)

    await worker.stop()

    assert worker.children.handled == ["a"]


async def test_a_worker_that_stops_has_the_time_that_is_left_since_it_was_told_to(road: Road) -> None:
    async def never(work: Work, broker: ExecutionBroker) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    worker = await road.start(never, drain=60.0)
    await road.take_in(contact("a"))
    await happens(lambda: worker.children.handled == ["a"], "it runs")
    worker.dispatcher.stop()
    worker.dispatcher._gives_up = time.monotonic() + 0.5  # the database was away for most of it

    await asyncio.wait_for(asyncio.shield(worker.task), 30.0)

    assert await road.rows("SELECT count(*) FROM circuit.lanes WHERE owner IS NOT NULL") == [0]
