"""What maintenance does beside the ledger, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from circuit_script.cli.doctor.check import State
from circuit_script.cli.doctor.upkeep import upkeep
from circuit_script.clock import now
from circuit_script.config import BackupSettings, Settings
from circuit_script.db.pool import open_connection
from circuit_script.events import maintenance, reindex
from circuit_script.events.chores import MAINTENANCE
from circuit_script.events.maintenance import once
from tests.integration.test_maintenance import TODAY, floor, make_old, partitions
from tests.road import SCORE, Road, open_road

DONE = "SELECT succeeded_at IS NOT NULL, failure FROM circuit.upkeep WHERE chore = 'maintenance'"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


async def test_log_lines_go_after_their_own_time_and_nothing_else_with_them(road: Road) -> None:
    old, young = TODAY - timedelta(days=100), TODAY - timedelta(days=80)
    for day in (old, young):
        await make_old(road, day)

    for day in (TODAY - timedelta(days=300), TODAY - timedelta(days=9)):  # of a host that was away: in no day's
        await road.run(
            "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant) "
            "VALUES (%s, 'info', %s, %s, 'score', 'acme')", day, f"{TODAY - day}", floor(day),
        )  # fmt: skip

    assert await once(road.pool, 1000, 1, 90) == [f"circuit_logs_{old:%Y%m%d}"]

    assert f"circuit_logs_{young:%Y%m%d}" in await partitions(road, "circuit_logs")
    assert f"events_{old:%Y%m%d}" in await partitions(road, "events")
    assert await road.rows("SELECT at::date FROM circuit.circuit_logs") == [TODAY - timedelta(days=9)]


async def test_log_lines_that_could_not_be_dropped_are_remembered(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    await make_old(road, TODAY - timedelta(days=100))
    await once(road.pool, 1000, 1, 1000)  # partitions to come are there, also if it is tomorrow by now
    async with road.pool.connection() as other, other.transaction():
        await other.execute("SELECT FROM circuit.circuit_logs LIMIT 1")
        await once(road.pool, 1000, 1, 90)

    (failure,) = await road.rows("SELECT failure FROM circuit.upkeep WHERE chore = 'maintenance'")
    assert failure.startswith("drop circuit_logs_")


async def test_a_partitioned_table_that_came_later_is_tended_like_the_others(road: Road) -> None:
    await road.run("CREATE TABLE circuit.later (id uuid PRIMARY KEY) PARTITION BY RANGE (id)")
    await road.run("CREATE TABLE circuit.later_other PARTITION OF circuit.later DEFAULT")
    old = TODAY - timedelta(days=40)
    await road.run(
        f"CREATE TABLE circuit.later_{old:%Y%m%d} PARTITION OF circuit.later "
        f"FOR VALUES FROM ('{floor(old)}') TO ('{floor(old + timedelta(days=1))}')"
    )

    assert await once(road.pool, 30) == [f"later_{old:%Y%m%d}"]

    assert f"later_{TODAY:%Y%m%d}" in await partitions(road, "later")


async def test_what_failed_is_remembered_until_it_is_done(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    await road.run("INSERT INTO circuit.seen VALUES ('x', 'x', 'old', %s)", floor(TODAY - timedelta(days=9)))
    async with road.pool.connection() as other, other.transaction():
        await other.execute("SELECT FROM circuit.seen FOR UPDATE")
        await once(road.pool, 30)
    ((done, failure),) = await road.rows(DONE)
    assert not done
    assert "forget seen" in failure

    await once(road.pool, 30)

    assert await road.rows(DONE) == [(True, None)]


async def test_the_doctor_says_when_it_was_last_done_and_when_that_is_too_long_ago(road: Road) -> None:
    async def look(*, working: bool = True) -> State:
        async with await open_connection(road.url) as connection:
            checks = [each async for each in upkeep(connection, Settings(backup=BackupSettings()), working=working)]
        return next(each.state for each in checks if each.name == MAINTENANCE)

    assert await look(working=False) is State.good
    await once(road.pool, 30)
    assert await look() is State.good
    await road.run(
        "INSERT INTO circuit.workers (id, host, pid, started_at, expires_at) "
        "VALUES (gen_random_uuid(), 'far', 1, %s, now() + interval '1 hour')", now() - timedelta(days=2),
    )  # fmt: skip
    assert await look() is State.good
    await road.run("UPDATE circuit.upkeep SET succeeded_at = now() - interval '1 day'")
    assert await look() is State.warning


async def test_a_bloated_index_of_a_small_table_is_made_anew_once_a_day(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "LARGE", 200_000)
    await road.run(
        "INSERT INTO circuit.latest SELECT 'x', 'x', n::text, '', gen_random_uuid() FROM generate_series(1, 20000) AS n"
    )
    await road.run("DELETE FROM circuit.latest")
    await road.run("VACUUM ANALYZE circuit.latest")
    size = "SELECT pg_relation_size('circuit.latest_pkey')"
    (before,) = await road.rows(size)

    assert await reindex.reindex(road.pool) == "latest_pkey"

    (after,) = await road.rows(size)
    assert after < before / 10
    assert await reindex.reindex(road.pool) is None, "rarely"
    assert await road.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [0]


async def test_what_a_reindex_that_was_cut_short_has_left_is_removed(road: Road) -> None:
    await road.run("INSERT INTO circuit.seen VALUES ('x', 'x', 'x', gen_random_uuid())")
    await road.run("INSERT INTO circuit.seen VALUES ('x', 'x', 'y', gen_random_uuid())")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await road.run("CREATE UNIQUE INDEX CONCURRENTLY seen_pkey_ccnew ON circuit.seen (source)")
    assert await road.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [1]

    assert await reindex.reindex(road.pool) is None

    assert await road.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [0]
