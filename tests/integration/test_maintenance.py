from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from circuit_script.events import maintenance
from circuit_script.events.maintenance import once
from tests.road import SCORE, Road, contact, open_road

PARENTS = ("deliveries", "events", "executions", "outcomes", "circuit_logs")
TODAY = datetime.now(UTC).date()


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


async def partitions(road: Road, parent: str) -> set[str]:
    return set(await road.rows(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = %s::regclass",
        f"circuit.{parent}",
    ))  # fmt: skip


async def make_old(road: Road, day: date) -> None:
    """Partitions of a day gone by."""
    for parent in PARENTS:
        await road.run(
            f"CREATE TABLE circuit.{parent}_{day:%Y%m%d} PARTITION OF circuit.{parent} FOR VALUES "
            f"FROM ('{floor(day)}') TO ('{floor(day + timedelta(days=1))}')"
        )


def floor(day: date) -> UUID:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return UUID(int=int(moment.timestamp() * 1000) << 80)


async def test_a_week_of_partitions_stands_ready_and_events_go_into_todays(road: Road) -> None:
    for parent in PARENTS:
        await road.run(f"DROP TABLE circuit.{parent}_{TODAY + timedelta(days=5):%Y%m%d}")

    assert await once(road.pool, 30) == []

    wanted = {f"{TODAY + timedelta(days=n):%Y%m%d}" for n in range(-1, 8)} | {"other"}
    for parent in PARENTS:
        assert {name.removeprefix(f"{parent}_") for name in await partitions(road, parent)} == wanted
    await road.take_in(contact("c1"))
    assert await road.rows(
        "SELECT c.relname::text FROM circuit.deliveries d JOIN pg_class c ON c.oid = d.tableoid"
    ) == [f"deliveries_{TODAY:%Y%m%d}"]
    assert await once(road.pool, 30) == [], "and again changes nothing"


async def test_partitions_older_than_retention_are_dropped_and_logs_are_kept(road: Road) -> None:
    old, young = TODAY - timedelta(days=32), TODAY - timedelta(days=29)
    await make_old(road, old)
    await make_old(road, young)

    dropped = await once(road.pool, 30)

    assert set(dropped) == {f"{parent}_{old:%Y%m%d}" for parent in PARENTS if parent != "circuit_logs"}
    assert f"circuit_logs_{old:%Y%m%d}" in await partitions(road, "circuit_logs")
    assert f"deliveries_{young:%Y%m%d}" in await partitions(road, "deliveries")


@pytest.mark.parametrize("hour", [0, 23])
async def test_a_partition_whose_events_still_wait_is_kept_whatever_the_servers_time_zone(
    road: Road, hour: int
) -> None:
    old = TODAY - timedelta(days=40)
    await make_old(road, old)
    await road.take_in(contact("c1"))
    waiting = UUID(int=floor(old).int + (hour * 3_600_000 << 80) + 5)
    for table in ("deliveries", "events", "queue"):
        column = "id" if table == "deliveries" else "delivery"
        await road.run(f"UPDATE circuit.{table} SET {column} = %s", waiting)
    await road.run("ALTER ROLE CURRENT_USER SET timezone = 'Pacific/Kiritimati'")
    try:
        await road.pool.check()
        dropped = await once(road.pool, 30)
    finally:
        await road.run("ALTER ROLE CURRENT_USER RESET timezone")

    assert f"deliveries_{old:%Y%m%d}" not in dropped
    assert f"events_{old:%Y%m%d}" not in dropped
    assert await road.rows("SELECT count(*) FROM circuit.deliveries") == [1]
    await road.run("DELETE FROM circuit.queue")
    assert f"deliveries_{old:%Y%m%d}" in await once(road.pool, 30)


async def test_rows_that_came_before_their_partition_do_not_stop_the_making_of_others(road: Road) -> None:
    for parent in PARENTS:
        for n in range(-1, 8):
            await road.run(f"DROP TABLE circuit.{parent}_{TODAY + timedelta(days=n):%Y%m%d}")
    await road.take_in(contact("c1"))

    await once(road.pool, 30)

    assert f"deliveries_{TODAY + timedelta(days=1):%Y%m%d}" in await partitions(road, "deliveries")
    assert f"executions_{TODAY:%Y%m%d}" in await partitions(road, "executions")
    assert await road.rows("SELECT count(*) FROM circuit.deliveries") == [1]


async def test_old_keys_of_duplicates_are_forgotten_and_young_ones_are_not(road: Road) -> None:
    await road.take_in(contact("c1"))
    old = floor(TODAY - timedelta(days=8))
    await road.run("INSERT INTO circuit.seen VALUES ('standard', 'shop', 'old', %s)", old)
    for key, age in (("old", "2 days"), ("young", "1 minute")):
        await road.run(
            "INSERT INTO circuit.latest VALUES ('standard', 'shop', %s, '', %s, now() - %s::interval)", key, old, age
        )

    await once(road.pool, 30)

    assert await road.rows("SELECT count(*), count(*) FILTER (WHERE vendor_id = 'old') FROM circuit.seen") == [(1, 0)]
    assert await road.rows("SELECT record_key FROM circuit.latest") == ["young"]


async def test_replies_of_events_that_are_done_are_swept_after_an_hour(road: Road) -> None:
    await road.take_in(contact("waits"))
    ((id_, handler),) = await road.rows("SELECT id, handler FROM circuit.queue")
    for event, age in ((id_, "2 hours"), (id_ + 1, "2 hours"), (id_ + 2, "1 minute")):
        await road.run(
            "INSERT INTO circuit.journal (event, handler, key, tenant, reply, at) "
            "VALUES (%s, %s, '', 'acme', '', now() - %s::interval)", event, handler, age,
        )  # fmt: skip

    await once(road.pool, 30)

    assert await road.rows("SELECT event - %s FROM circuit.journal ORDER BY 1", id_) == [0, 2]


async def test_only_one_worker_of_all_does_it_at_a_time(road: Road) -> None:
    old = TODAY - timedelta(days=40)
    await make_old(road, old)
    async with road.pool.connection() as other, other.transaction():
        await other.execute(maintenance.LOCK)
        assert await once(road.pool, 30) == []

    assert f"deliveries_{old:%Y%m%d}" in await once(road.pool, 30)


async def test_a_long_reader_makes_it_give_up_rather_than_block_intake(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    old = TODAY - timedelta(days=40)
    await make_old(road, old)
    async with road.pool.connection() as reader, reader.transaction():
        await reader.execute("SELECT count(*) FROM circuit.deliveries")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await once(road.pool, 30)
        await road.take_in(contact("c1"))

    assert f"deliveries_{old:%Y%m%d}" in await once(road.pool, 30)
