"""A database into which a copy is restored is nobody else's meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from circuit_script.backup import back_up, restore
from circuit_script.clock import uuid7
from circuit_script.errors import BackupRefused
from circuit_script.events.lanes import BEAT
from tests.road import SCORE, Road, open_road
from tests.servers import Server, until


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """A database in which nothing is."""
    made = server.create_database(None)
    yield made
    server.drop_database(made)


@pytest.fixture
def target(server: Server, name: str) -> str:
    return server.url(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "copy.backup"


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


async def test_what_comes_in_while_it_is_restored_waits_and_is_kept(
    road: Road, name: str, target: str, file: Path
) -> None:
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
        waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        with psycopg.connect(target, autocommit=True) as other:
            until(lambda: not came[0].is_alive() or other.execute(waits, pids).fetchone() is not None, "it waits", 30)

    await restore(file, target)
    await restore(file, target, replace=name, told=told)
    await asyncio.to_thread(came[0].join, 30)
    async with await psycopg.AsyncConnection.connect(target) as connection:
        cursor = await connection.execute("SELECT count(*) FROM circuit.deliveries WHERE id = %s", [delivery])
        assert await cursor.fetchone() == (1,)
