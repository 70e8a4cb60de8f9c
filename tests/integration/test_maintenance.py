from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.events import maintenance
from circuit_script.events.maintenance import once, prepare
from circuit_script.events.requeue import Past, requeue
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


async def without_partitions(road: Road) -> None:
    """As after nine days without a worker."""
    for parent in PARENTS:
        for n in range(-1, 8):
            await road.run(f"DROP TABLE IF EXISTS circuit.{parent}_{TODAY + timedelta(days=n):%Y%m%d}")


async def home_of(road: Road, parent: str) -> list[str]:
    return await road.rows(f"SELECT c.relname::text FROM circuit.{parent} r JOIN pg_class c ON c.oid = r.tableoid")


async def test_rows_that_came_before_their_partition_are_moved_into_it(road: Road) -> None:
    await without_partitions(road)
    await road.take_in(contact("c1"))
    assert await home_of(road, "events") == ["events_other"]

    await prepare(road.pool)

    for parent in ("deliveries", "events"):
        assert await home_of(road, parent) == [f"{parent}_{TODAY:%Y%m%d}"]
    await road.take_in(contact("c2"))
    assert len(await partitions(road, "executions")) == 10


async def test_too_many_rows_stay_where_they_are_and_do_not_stop_the_making_of_others(road: Road) -> None:
    await without_partitions(road)
    await road.run(
        "INSERT INTO circuit.events SELECT %s, n, n, 'acme', 'Contact', 'afterInsert', 'c', 'c', 1 "
        "FROM generate_series(1, 10001) AS n", UUID(int=floor(TODAY).int + 1),
    )  # fmt: skip

    await prepare(road.pool)

    assert set(await home_of(road, "events")) == {"events_other"}
    assert len(await partitions(road, "events")) == 9
    assert len(await partitions(road, "deliveries")) == 10


async def test_partitions_are_made_while_intake_and_readers_are_at_work(road: Road) -> None:
    day = f"{TODAY + timedelta(days=5):%Y%m%d}"
    for parent in PARENTS:
        await road.run(f"DROP TABLE circuit.{parent}_{day}")
    async with road.pool.connection() as other, other.transaction():
        await other.execute(
            "INSERT INTO circuit.events VALUES (%s, 1, 1, 'acme', 'Contact', 'afterInsert', 'c', 'c', 1)", [uuid7()]
        )
        for parent in PARENTS:
            await other.execute(f"LOCK TABLE ONLY circuit.{parent} IN ROW EXCLUSIVE MODE".encode())
        await prepare(road.pool)
        for parent in PARENTS:
            assert f"{parent}_{day}" in await partitions(road, parent)


async def test_a_partition_has_what_its_parent_has(road: Road) -> None:
    for parent in PARENTS:
        assert await road.rows(f"SELECT circuit.make_partition('{parent}', current_date + 100)") == [True]
        assert await road.rows(f"SELECT circuit.make_partition('{parent}', current_date + 100)") == [False]
        (missing,) = await road.rows(
            "SELECT count(*) FROM pg_index p WHERE p.indrelid = %s::regclass AND NOT EXISTS (SELECT FROM pg_inherits i "
            "JOIN pg_index c ON c.indexrelid = i.inhrelid WHERE i.inhparent = p.indexrelid AND c.indrelid = "
            "('circuit.' || %s || '_' || to_char(current_date + 100, 'YYYYMMDD'))::regclass)",
            f"circuit.{parent}", parent,
        )  # fmt: skip
        assert missing == 0
    assert await road.rows("SELECT circuit.make_partitions(8)") == [6]


async def test_default_partitions_are_emptied_below_retention_but_for_what_waits(road: Road) -> None:
    await without_partitions(road)
    old = UUID(int=floor(TODAY - timedelta(days=40)).int + 7)
    young = UUID(int=floor(TODAY - timedelta(days=20)).int + 7)
    await road.take_in(contact("old"), contact("young"))
    for record, delivery in (("old", old), ("young", young)):
        for table in ("queue", "events"):
            await road.run(f"UPDATE circuit.{table} SET delivery = %s WHERE record = %s", delivery, record)
        await road.run(
            "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
            "VALUES (%s, 0, 1, %s, 'acme', 'succeeded')", delivery, delivery,
        )  # fmt: skip

    await once(road.pool, 30)
    assert await road.rows("SELECT delivery FROM circuit.outcomes") == [young]
    assert await road.rows("SELECT delivery FROM circuit.events_other ORDER BY 1") == [old, young], "they wait"

    await road.run("DELETE FROM circuit.queue")
    await once(road.pool, 30)
    assert await road.rows("SELECT delivery FROM circuit.events_other") == [young]


async def test_effects_that_were_delivered_are_forgotten_after_retention_and_others_never(road: Road) -> None:
    for status, days in (("delivered", 29), ("delivered", 31), ("dead", 31), ("in_doubt", 31), ("pending", None)):
        await road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, payload, status, settled_at) VALUES (gen_random_uuid(), 'acme', gen_random_uuid(), 1, 1, 1, 'x', "
            "'x', 'x', '{}', %s, now() - make_interval(days => %s))", status, days,
        )  # fmt: skip

    await once(road.pool, 30)

    kept = await road.rows("SELECT status FROM circuit.effects ORDER BY 1")
    assert kept == ["dead", "delivered", "in_doubt", "pending"]


async def test_forgetting_goes_in_chunks_until_nothing_old_is_left(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "CHUNK", 2)
    old = floor(TODAY - timedelta(days=8))
    for n in range(5):
        await road.run("INSERT INTO circuit.seen VALUES ('standard', 'shop', %s, %s)", str(n), old)

    await once(road.pool, 30)

    assert await road.rows("SELECT count(*) FROM circuit.seen") == [0]


async def test_a_step_that_cannot_be_done_now_does_not_undo_or_stop_the_others(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    old = TODAY - timedelta(days=40)
    await make_old(road, old)
    await road.run("INSERT INTO circuit.seen VALUES ('standard', 'shop', 'old', %s)", floor(old))
    await road.run("INSERT INTO circuit.latest VALUES ('x', 'x', 'x', '', %s, now() - interval '2 days')", floor(old))
    async with road.pool.connection() as other, other.transaction():
        await other.execute("SELECT FROM circuit.seen FOR UPDATE")
        dropped = await once(road.pool, 30)

    assert f"events_{old:%Y%m%d}" in dropped
    assert await road.rows("SELECT count(*) FROM circuit.latest") == [0]
    assert await road.rows("SELECT count(*) FROM circuit.seen") == [1]


async def test_no_error_ends_maintenance(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [RuntimeError("bug"), psycopg.OperationalError("away")]
    again = asyncio.Event()

    async def failing(pool: object, *days: int | None, recording_days: int) -> list[str]:
        if errors:
            raise errors.pop()
        again.set()
        return []

    monkeypatch.setattr(maintenance, "EVERY", 0.01)
    monkeypatch.setattr(maintenance, "once", failing)
    task = asyncio.create_task(maintenance.maintain(road.pool, retention_days=3))
    await asyncio.wait({asyncio.create_task(again.wait()), task}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert again.is_set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


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


async def test_replies_of_events_that_are_done_are_kept_as_long_as_is_said_and_for_an_hour_at_least(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "CHUNK", 1)
    await road.take_in(contact("waits"))
    ((id_, handler),) = await road.rows("SELECT id, handler FROM circuit.queue")
    ages = ("4 days", "4 days", "2 days", "2 hours", "1 minute")
    for event, age in enumerate(ages, id_):
        await road.run(
            "INSERT INTO circuit.journal (event, handler, key, tenant, reply, at) "
            "VALUES (%s, %s, '', 'acme', '', now() - %s::interval)", event, handler, age,
        )  # fmt: skip

    left = "SELECT event - %s FROM circuit.journal ORDER BY 1"
    for days, expected in ((3, [0, 2, 3, 4]), (1, [0, 3, 4]), (0, [0, 4])):
        await once(road.pool, 30, days)
        assert await road.rows(left, id_) == expected


async def test_files_of_releases_go_with_the_ledger_but_for_what_is_live(road: Road) -> None:
    """One release a day, the latest made today; `live` is the very first."""
    await road.run(
        "INSERT INTO circuit.releases (content_hash, platform, manifest, created_at) "
        "SELECT 'r' || n, '', '[]', now() - (150 - n) * interval '1 day' FROM generate_series(1, 150) AS n"
    )
    await road.run(
        "UPDATE circuit.releases SET created_at = now() - interval '200 days' WHERE id = %s", road.release.id
    )
    await road.run("INSERT INTO circuit.release_sources (release, source) SELECT id, '' FROM circuit.releases")
    kept = "SELECT count(*) FROM circuit.release_sources WHERE release <> %s"

    await once(road.pool, 1000)
    assert await road.rows(kept, road.release.id) == [100]
    await once(road.pool, 30)
    assert await road.rows(kept, road.release.id) == [31], "what was replaced thirty days ago may have run since"
    assert await road.rows("SELECT min(release) FROM circuit.release_sources") == [road.release.id]


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
        assert f"deliveries_{old:%Y%m%d}" not in await once(road.pool, 30)
        await road.take_in(contact("c1"))

    assert f"deliveries_{old:%Y%m%d}" in await once(road.pool, 30)


async def test_who_puts_an_old_event_back_on_the_queue_keeps_its_partitions(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read, and not on the queue yet, when its partition is looked at: the drop waits, and looks again."""
    old = TODAY - timedelta(days=40)
    await make_old(road, old)
    await road.take_in(contact("c1"))
    delivery = UUID(int=floor(old).int + 5)
    for table, column in (("deliveries", "id"), ("events", "delivery")):
        await road.run(f"UPDATE circuit.{table} SET {column} = %s", delivery)
    await road.run("DELETE FROM circuit.queue")
    monkeypatch.setattr(maintenance, "PATIENCE", "SET LOCAL lock_timeout = '30s'")
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND (query LIKE 'LOCK TABLE%%' OR query LIKE 'DROP TABLE%%') AND pid <> pg_backend_pid()"
    )
    async with road.pool.connection() as connection:
        async with connection.transaction():
            past = [Past(delivery, 0, 1)]
            await connection.execute("SELECT count(*) FROM circuit.events")  # as requeue reads it
            dropping = asyncio.create_task(once(road.pool, 30))
            await road.until(waits, [1])
            await requeue(connection, past, by="ann")
        dropped = await asyncio.wait_for(dropping, 60)

    assert {f"deliveries_{old:%Y%m%d}", f"events_{old:%Y%m%d}"}.isdisjoint(dropped)
    assert await road.rows("SELECT count(*) FROM circuit.deliveries WHERE id = %s", delivery) == [1]


async def test_the_outcomes_of_an_execution_are_found_without_reading_all_of_a_day(road: Road) -> None:
    made = f"{floor(TODAY)}"[:13].replace("-", "")
    await road.run(
        "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
        "SELECT i, 0, 1, i, 'acme', 'succeeded' FROM (SELECT ((%s || lpad(to_hex(n), 20, '0'))::uuid) AS i "
        "FROM generate_series(1, 40000) AS n) AS ids",
        made[:12],
    )
    await road.run(f"VACUUM ANALYZE circuit.outcomes_{TODAY:%Y%m%d}")

    plan = await road.rows(
        "EXPLAIN SELECT * FROM circuit.outcomes WHERE execution = %s::uuid", f"{made[:12]}{30000:020x}"
    )
    day = [line for line in plan if f"outcomes_{TODAY:%Y%m%d}" in line]
    assert any("Bitmap Index Scan" in line and "_execution_idx" in line for line in day), plan
