"""A database into which a copy is restored is nobody else's meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from circuit_script.backup import back_up, restore
from circuit_script.clock import uuid7
from circuit_script.erasure import Person, forget
from circuit_script.errors import BackupRefused
from circuit_script.events.lanes import BEAT
from tests.road import SCORE, Road, contact, open_road
from tests.servers import until

backup_restore = sys.modules[restore.__module__]  # the function has its module's name


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


def name_of(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def waits_for_a_lock(url: str, *pids: int) -> Callable[[], bool]:
    """Whether one of these, or of all connections, does."""
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "

    def look() -> bool:
        with psycopg.connect(url, autocommit=True) as other:
            return (
                other.execute(waits + "AND pid = ANY(coalesce(%s, ARRAY[pid]))", [list(pids) or None]).fetchone()
                is not None
            )

    return look


async def test_a_database_at_work_is_left_alone(road: Road, target: str, file: Path) -> None:
    await back_up(road.url, file)
    await restore(file, target)
    async with await psycopg.AsyncConnection.connect(target, autocommit=True) as connection:
        await connection.execute(BEAT, [uuid7(), "far", 7, 60])
        with pytest.raises(BackupRefused, match="a worker on far"):
            await restore(file, target)
        await connection.execute("DELETE FROM circuit.workers")
        async with await psycopg.AsyncConnection.connect(target, application_name="circuit-script gateway"):
            with pytest.raises(BackupRefused, match="circuit-script gateway"):
                await restore(file, target)


async def test_what_comes_in_while_it_is_restored_waits_and_is_kept(road: Road, target: str, file: Path) -> None:
    await back_up(road.url, file)
    delivery = uuid7()
    came: list[threading.Thread] = []

    def come_in(told_pid: threading.Event, pids: list[int]) -> None:
        with psycopg.connect(target, autocommit=True) as connection:
            pids.append(connection.info.backend_pid)
            told_pid.set()
            connection.execute(
                "INSERT INTO circuit.deliveries (id, source, account, headers, body) VALUES (%s, 'x', 'x', '{}', '')",
                [delivery],
            )

    def told(table: str, done: int, of: int) -> None:
        if came:
            return
        ready, pids = threading.Event(), list[int]()
        came.append(threading.Thread(target=come_in, args=(ready, pids)))
        came[0].start()
        assert ready.wait(30)
        waits = waits_for_a_lock(target, *pids)
        until(lambda: not came[0].is_alive() or waits(), "it waits", 30)

    await restore(file, target)
    await restore(file, target, replace=name_of(target), told=told)
    await asyncio.to_thread(came[0].join, 30)
    async with await psycopg.AsyncConnection.connect(target) as connection:
        cursor = await connection.execute("SELECT count(*) FROM circuit.deliveries WHERE id = %s", [delivery])
        assert await cursor.fetchone() == (1,)


async def test_what_came_in_while_it_waited_for_its_turn_is_not_replaced(road: Road, target: str, file: Path) -> None:
    await back_up(road.url, file)
    await restore(file, target)
    async with await psycopg.AsyncConnection.connect(target) as other:
        await other.execute("LOCK TABLE circuit.migrations IN ACCESS EXCLUSIVE MODE")
        late = asyncio.create_task(restore(file, target))
        await asyncio.to_thread(until, waits_for_a_lock(target), "the restore waits", 30)
        await other.execute(
            "INSERT INTO circuit.deliveries (id, source, account, headers, body) VALUES (%s, 'x', 'x', '{}', '')",
            [uuid7()],
        )
        await other.commit()
        with pytest.raises(BackupRefused, match="is not empty"):
            await late
        assert await (await other.execute("SELECT count(*) FROM circuit.deliveries")).fetchone() == (1,)


async def test_who_is_forgotten_while_it_waits_for_its_turn_is_forgotten_again(
    road: Road, target: str, file: Path
) -> None:
    await road.take_in(contact("anna"))
    await back_up(road.url, file)
    await restore(file, target)
    async with await psycopg.AsyncConnection.connect(target) as other:
        await other.execute("LOCK TABLE circuit.migrations IN ACCESS EXCLUSIVE MODE")
        late = asyncio.create_task(restore(file, target, replace=name_of(target)))
        await asyncio.to_thread(until, waits_for_a_lock(target), "the restore waits", 30)
        await forget(other, Person("anna", "acme"), "eva")
        await other.commit()
        assert [each.record for each in (await late).forgotten] == ["anna"]


async def test_whoever_holds_a_table_for_too_long_is_said_to(
    road: Road, target: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await back_up(road.url, file)
    await restore(file, target)
    monkeypatch.setattr(backup_restore, "PATIENCE", "SET LOCAL lock_timeout = '300ms'")
    async with await psycopg.AsyncConnection.connect(target) as reader:
        await reader.execute("SELECT FROM circuit.migrations")
        with pytest.raises(BackupRefused, match="did not end in time"):
            await restore(file, target)


async def test_what_cannot_be_tidied_up_does_not_make_a_restore_look_undone(
    road: Road, target: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await back_up(road.url, file)
    await restore(file, target)
    monkeypatch.setattr(backup_restore, "PATIENCE", "SET LOCAL lock_timeout = '500ms'")
    async with await psycopg.AsyncConnection.connect(target) as reader:
        await reader.execute("SELECT FROM circuit.upkeep")
        done = await restore(file, target, replace=name_of(target))
        assert done.left is not None
        assert "lock timeout" in done.left

    assert (await restore(file, target)).left is None, "the next one removes what it left"
    async with await psycopg.AsyncConnection.connect(target) as connection:
        there = await connection.execute("SELECT to_regnamespace('circuit_before_restore') IS NULL")
        assert await there.fetchone() == (True,)
