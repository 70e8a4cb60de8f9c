"""Schedules: each firing once, by however many tickers; they follow the live release; what was missed is caught up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from circuit_script.clock import now
from circuit_script.db.pool import Connection
from circuit_script.events.ledger import LedgerAway
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.execution.timing import Schedule
from circuit_script.jobs.look import look
from circuit_script.jobs.schedules import fire, follow
from circuit_script.jobs.ticker import TAKEN, Ticker
from tests.road import PATIENCE, Road, contact, open_road

FIRINGS = "SELECT vendor_id FROM circuit.seen WHERE source = 'circuit' ORDER BY vendor_id"
QUEUED = "SELECT count(*) FROM circuit.queue"
SUNDAY = datetime(2026, 10, 25, tzinfo=UTC)  # Berlin's clocks go back at 01:00 UTC


def nightly(schedule: Schedule, name: str = "nightly") -> HandlerSpec:
    return HandlerSpec(name, (("Job", name),), batch_size=1, job=JobSpec("scheduled", schedule=schedule))


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        yield made


async def begin_at(road: Road, moment: datetime, *handlers: HandlerSpec) -> None:
    """Make these live as if it were that moment."""
    await road.live(*handlers)
    async with road.pool.connection() as connection:
        await connection.execute("DELETE FROM circuit.schedule_tenants")
        await follow(connection, handlers, moment=moment)


async def test_three_tickers_racing_take_each_firing_in_once(road: Road) -> None:
    """Over the night in which the clocks of Berlin go back, by a clock that all of them see leaping by ten minutes."""
    await begin_at(
        road, SUNDAY - timedelta(hours=3), nightly(Schedule("30 2 * * *", timezone="Europe/Berlin")),
        nightly(Schedule("*/20 * * * *", timezone="Europe/Berlin", catch_up="all"), "often"),
    )  # fmt: skip
    clock = SUNDAY - timedelta(hours=3)

    async def moment(_: Connection, __: datetime) -> datetime:
        return clock

    tickers = [Ticker(road.pool, clock=moment) for _ in range(3)]
    while clock < SUNDAY + timedelta(hours=4):
        clock += timedelta(minutes=10)
        await asyncio.gather(*(ticker.tick() for ticker in tickers))

    fired = await road.rows(FIRINGS)
    assert [each for each in fired if each.startswith("nightly")] == ["nightly 2026-10-25T00:30:00+00:00 default"]
    assert len([each for each in fired if each.startswith("often")]) == 7 * 3
    assert await road.rows(QUEUED) == [len(fired)]


async def test_a_ticker_that_is_cut_off_before_its_commit_loses_no_firing(road: Road) -> None:
    await begin_at(road, SUNDAY, nightly(Schedule(every=3600.0)))
    moment = SUNDAY + timedelta(hours=1)
    async with await road.connect() as gateway, await road.connect() as cut:
        await gateway.execute("BEGIN")
        await gateway.execute("SELECT pg_advisory_xact_lock(7207418001)")  # intake is busy: the firing waits for it
        firing = asyncio.create_task(fire(cut, moment))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'advisory'"
        await road.until(waits, [1], cut.info.backend_pid)
        await road.run("SELECT pg_terminate_backend(%s)", cut.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            await firing
        await gateway.execute("ROLLBACK")
    assert await road.rows(QUEUED) == [0]
    async with road.pool.connection() as connection:
        (fired,) = await fire(connection, moment)
        assert fired.firings == (moment,)
        assert await fire(connection, moment) == []
    assert await road.rows(QUEUED) == [1]


async def test_a_worker_that_freezes_before_its_commit_is_cut_off_as_intake_waits_for_it(road: Road) -> None:
    await begin_at(road, SUNDAY, nightly(Schedule(every=3600.0)))
    moment = SUNDAY + timedelta(hours=1)
    frozen = await road.connect()
    try:
        await frozen.execute("BEGIN")
        assert len(await fire(frozen, moment)) == 1
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(LedgerAway):  # then the vendor is told to send again, and does
                    await road.take_in(contact("c1"))  # as soon as the frozen one has lost its lock
                    break
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            await frozen.execute("COMMIT")
    finally:
        await frozen.close()
    async with road.pool.connection() as connection:
        (fired,) = await fire(connection, moment)
        assert fired.firings == (moment,)
        patience = await (await connection.execute("SHOW idle_in_transaction_session_timeout")).fetchone()
    assert patience == ("0",), "of its transaction only"


async def test_a_ticker_does_not_spin_while_another_holds_what_is_due(road: Road) -> None:
    await begin_at(road, SUNDAY, nightly(Schedule(every=3600.0)))
    async with await road.connect() as other, other.transaction():
        await other.execute("SELECT 1 FROM circuit.schedule_tenants FOR UPDATE")
        assert await Ticker(road.pool).tick() == TAKEN
    assert await Ticker(road.pool).tick() > 0.0
    assert await road.rows(QUEUED) == [1]


async def test_a_clock_that_jumps_back_fires_nothing_twice(road: Road) -> None:
    await begin_at(road, SUNDAY, nightly(Schedule(every=3600.0)))
    async with road.pool.connection() as connection:
        assert len(await fire(connection, SUNDAY + timedelta(hours=1))) == 1
        assert await fire(connection, SUNDAY - timedelta(days=1)) == []
        await connection.execute("UPDATE circuit.schedule_tenants SET next_at = %s", [SUNDAY + timedelta(hours=1)])
        await fire(connection, SUNDAY + timedelta(hours=1))
    assert await road.rows(QUEUED) == [1], "what the ledger has seen is not taken in again"


async def test_what_was_missed_is_caught_up_as_said_and_counted(road: Road) -> None:
    every = [nightly(Schedule(every=3600.0, catch_up=each), f"by_{each}") for each in ("last", "all", "none")]
    await begin_at(road, SUNDAY, *every)
    async with road.pool.connection() as connection:
        await fire(connection, SUNDAY + timedelta(hours=5, minutes=10))
    found = await road.rows("SELECT event, count(*) FROM circuit.queue GROUP BY 1 ORDER BY 1")
    assert found == [("by_all", 5), ("by_last", 1)]
    assert await road.rows("SELECT handler, skipped FROM circuit.schedule_tenants ORDER BY 1") == [
        ("by_all", 0), ("by_last", 4), ("by_none", 5)
    ]  # fmt: skip


async def test_jitter_delays_a_firing(road: Road) -> None:
    moment = now()
    await begin_at(road, moment, nightly(Schedule(every=3600.0, jitter=3000.0)))
    async with road.pool.connection() as connection:
        ((next_at,),) = await (await connection.execute("SELECT next_at FROM circuit.schedule_tenants")).fetchall()
        await fire(connection, next_at)
    assert await road.rows("SELECT count(*) FROM circuit.queue WHERE not_before > now()") == [0]
    assert await road.rows("SELECT due_at > %s FROM circuit.delayed_jobs", next_at) == [True]


async def test_schedules_follow_the_live_release(road: Road) -> None:
    hourly, other = nightly(Schedule("0 * * * *")), nightly(Schedule(every=60.0), "other")
    await begin_at(road, SUNDAY, hourly, other)
    states = "SELECT handler, next_at FROM circuit.schedule_tenants ORDER BY handler"
    at = SUNDAY + timedelta(minutes=30)
    async with road.pool.connection() as connection:
        await follow(connection, [nightly(Schedule("0 * * * *", catch_up="all"))], moment=at)
        assert await road.rows(states) == [("nightly", SUNDAY + timedelta(hours=1))], "it fires as before"
        assert await road.rows("SELECT catch_up FROM circuit.schedules") == ["all"]
        await follow(connection, [nightly(Schedule("45 * * * *"))], moment=at)
        assert await road.rows(states) == [("nightly", SUNDAY + timedelta(minutes=45))]
        await follow(connection, [], moment=at)
    assert await road.rows(states) == []


async def test_a_ticker_wakes_for_another_release_and_for_what_is_delayed(road: Road) -> None:
    ticker = Ticker(road.pool)
    running = asyncio.create_task(ticker.run())
    await road.live(nightly(Schedule(every=1.0)))
    ticker.wake()
    await road.until("SELECT count(*) > 1 FROM circuit.queue WHERE object = 'Job'", [True])
    ticker.stop()
    await asyncio.wait_for(running, 15)
    assert await Ticker(road.pool).tick() <= 1.0
    await road.live()
    assert await Ticker(road.pool).tick() == 30.0, "nothing is due: it looks twice a minute"


async def test_what_is_to_be_seen_of_schedules(road: Road) -> None:
    await begin_at(road, SUNDAY, nightly(Schedule("0 7 * * *", timezone="Europe/Berlin")))
    async with road.pool.connection() as connection:
        (before,) = (await look(connection)).schedules
        await fire(connection, SUNDAY + timedelta(hours=6))
        await road.start()
        await road.done()
        (after,) = (await look(connection)).schedules
    assert (before.fires, before.last_at, before.status) == ("0 7 * * * Europe/Berlin", None, None)
    assert (after.last_at, after.status) == (SUNDAY + timedelta(hours=6), "succeeded")
    assert after.next_at == SUNDAY + timedelta(days=1, hours=6)
