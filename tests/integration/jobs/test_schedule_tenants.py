"""Schedules of several tenants: each firing once for each of them, by however many tickers; who comes, and who goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.clock import now
from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.execution.timing import Schedule
from circuit_script.jobs.look import WAITS, look
from circuit_script.jobs.schedules import Fired, fire, follow, follow_tenants
from circuit_script.jobs.ticker import Ticker
from circuit_script.tenants.pauses import pause
from tests.road import Road, open_road

HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2026, 10, 25, tzinfo=UTC)
QUEUED = "SELECT tenant FROM circuit.queue ORDER BY tenant"
NEXT = "SELECT tenant, next_at FROM circuit.schedule_tenants ORDER BY tenant"


def hourly(tenants: tuple[str, ...] | None = None, *, catch_up: str = "last", jitter: float = 0.0) -> HandlerSpec:
    schedule = Schedule(every=3600.0, tenants=tenants, catch_up=catch_up, jitter=jitter)
    return HandlerSpec("hourly", (("Job", "hourly"),), batch_size=1, job=JobSpec("scheduled", schedule=schedule))


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        yield made


@pytest.fixture
async def connection(road: Road) -> AsyncIterator[Connection]:
    async with road.pool.connection() as made:
        yield made


async def begin(road: Road, tenants: Collection[str], *handlers: HandlerSpec, moment: datetime = MIDNIGHT) -> None:
    """Make these live for these tenants, as if it were that moment."""
    await road.live(*handlers)
    async with road.pool.connection() as connection:
        await connection.execute("DELETE FROM circuit.schedule_tenants")
        await follow(connection, handlers, tenants, moment)


def whose(fired: list[Fired]) -> list[tuple[str, int]]:
    return sorted((each.tenant, len(each.firings)) for each in fired)


async def test_racing_tickers_take_each_firing_in_once_for_each_tenant(road: Road) -> None:
    tenants = [f"t{number:02}" for number in range(40)]
    await begin(road, tenants, hourly(catch_up="all"))
    clock = MIDNIGHT

    async def moment(_: Connection, __: datetime) -> datetime:
        return clock

    tickers = [Ticker(road.pool, clock=moment) for _ in range(3)]
    for _ in range(4):
        clock += HOUR
        await asyncio.gather(*(ticker.tick() for ticker in tickers))

    assert Counter(await road.rows(QUEUED)) == dict.fromkeys(tenants, 4)
    seen = await road.rows("SELECT vendor_id FROM circuit.seen WHERE vendor_id LIKE %s ORDER BY 1", "% t07")
    assert seen == [f"hourly {(MIDNIGHT + HOUR * n).isoformat()} t07" for n in (1, 2, 3, 4)]


async def test_a_thousand_tenants_fire_in_a_few_statements(road: Road, connection: Connection) -> None:
    await begin(road, [f"t{number}" for number in range(1000)], hourly())
    sent: list[str] = []
    execute = connection.execute

    async def counted(query: object, *more: object, **options: object) -> object:
        sent.append(str(query))
        return await execute(query, *more, **options)  # type: ignore[arg-type]  # whatever it is

    connection.execute = counted  # type: ignore[method-assign]  # to see what is asked
    while await fire(connection, MIDNIGHT + HOUR):
        pass
    assert len(sent) <= 4 * 4 + 1, "of 250 each time: what is due, its advance, the jobs, and a bell"
    assert await road.rows("SELECT count(*), count(DISTINCT tenant) FROM circuit.queue") == [(1000, 1000)]


async def test_more_than_a_bulk_is_taken_in_by_parts_of_which_none_is_lost(road: Road, connection: Connection) -> None:
    await begin(road, ["a", "b", "c"], hourly(catch_up="all"))
    parts = []
    while fired := await fire(connection, MIDNIGHT + 5 * HOUR, bulk=6):
        parts.append(sum(len(each.firings) for each in fired))
    assert parts == [10, 5], "a tenant's firings stay together"
    assert Counter(await road.rows(QUEUED)) == {"a": 5, "b": 5, "c": 5}


async def test_all_are_those_of_the_moment_and_who_comes_later_gets_nothing_before(
    road: Road, connection: Connection
) -> None:
    await begin(road, ["ada", "ben"], hourly(catch_up="all"))
    await follow_tenants(connection, ["ben", "cleo"], MIDNIGHT + 2 * HOUR + timedelta(minutes=1))
    fired = await fire(connection, MIDNIGHT + 4 * HOUR)
    assert whose(fired) == [("ben", 4), ("cleo", 2)], "ada has left, and cleo was not there for the first two"
    await follow_tenants(connection, ["ada", "ben"], MIDNIGHT + 6 * HOUR)
    assert whose(await fire(connection, MIDNIGHT + 6 * HOUR)) == [("ben", 2)], "who comes again is new"


async def test_a_clock_that_was_ahead_silences_no_schedule_for_longer_than_to_the_next_start(
    road: Road, connection: Connection
) -> None:
    await begin(road, ["ada"], hourly())
    await fire(connection, MIDNIGHT + HOUR)
    await fire(connection, MIDNIGHT + 30 * HOUR)
    await follow_tenants(connection, ["ada"], MIDNIGHT + timedelta(minutes=1))
    assert await road.rows(NEXT) == [("ada", MIDNIGHT + HOUR)]
    for hour in (1, 2):
        await fire(connection, MIDNIGHT + hour * HOUR)
    fired = "SELECT vendor_id FROM circuit.seen ORDER BY 1"
    hours = [f"hourly {(MIDNIGHT + HOUR * n).isoformat()} ada" for n in (1, 2, 30)]
    assert await road.rows(fired) == hours
    assert len(await road.rows(QUEUED)) == 3, "the first one is there already"


async def test_tenants_of_a_list_and_default_fire_and_nobody_else(road: Road, connection: Connection) -> None:
    await begin(road, ["ada", "ben", "cleo"], hourly(("ben", "default", "gone")))
    assert whose(await fire(connection, MIDNIGHT + HOUR)) == [("ben", 1), ("default", 1)]


async def test_a_deploy_keeps_the_moment_of_each_tenant_and_a_tenant_that_it_adds_begins_then(
    road: Road, connection: Connection
) -> None:
    await begin(road, ["ada", "ben"], hourly(("ada",), catch_up="all"))
    await follow(connection, [hourly(catch_up="all")], ["ada", "ben"], MIDNIGHT + 3 * HOUR + timedelta(minutes=1))
    assert await road.rows(NEXT) == [("ada", MIDNIGHT + HOUR), ("ben", MIDNIGHT + 4 * HOUR)]
    await follow(connection, [hourly(("ben",))], ["ada", "ben"], MIDNIGHT + 3 * HOUR)
    assert await road.rows(NEXT) == [("ben", MIDNIGHT + 4 * HOUR)]


async def test_jitter_is_drawn_for_each_tenant(road: Road, connection: Connection) -> None:
    await begin(road, [f"t{number}" for number in range(20)], hourly(jitter=3000.0), moment=now())
    ((first,),) = await (await connection.execute("SELECT min(next_at) FROM circuit.schedule_tenants")).fetchall()
    await fire(connection, first)
    dues = await road.rows("SELECT due_at FROM circuit.delayed_jobs")
    assert len(set(dues)) == 20
    assert all(first <= due < first + timedelta(seconds=3000) for due in dues)
    (found,) = (await look(connection)).schedules
    assert (found.status, found.ended) == (WAITS, {WAITS: 20}), "none has begun"


async def test_a_firing_runs_as_its_tenant_and_waits_where_that_one_is_paused(
    road: Road, connection: Connection
) -> None:
    await begin(road, ["ada", "ben"], hourly())
    await pause(connection, "tenant", "ben", reason="unpaid", by="eve")
    await fire(connection, MIDNIGHT + HOUR)
    worker = await road.start()
    await road.until(QUEUED, ["ben"])
    assert [work.tenant for work in worker.children.works] == ["ada"]
    (found,) = (await look(connection)).schedules
    assert (found.tenants, found.fires_for, found.ended) == ("all", 2, {"succeeded": 1, WAITS: 1})
    (of_ada,) = (await look(connection, "ada")).schedules
    assert (of_ada.fires_for, of_ada.status, of_ada.last_at) == (2, "succeeded", MIDNIGHT + HOUR)


async def test_a_tenant_does_not_learn_for_whom_else_a_schedule_fires(road: Road, connection: Connection) -> None:
    await begin(road, ["ada", "ben"], hourly(("ada", "ben")))
    async with tenant_reading(connection, "ada"):
        assert await (await connection.execute("SELECT tenant FROM circuit.schedule_tenants")).fetchall() == [("ada",)]
        rows = await (await connection.execute("SELECT handler, every FROM circuit.schedules")).fetchall()
        assert rows == [("hourly", 3600.0)]
    async with tenant_reading(connection, "cleo"):
        assert await (await connection.execute("SELECT handler FROM circuit.schedules")).fetchall() == []
