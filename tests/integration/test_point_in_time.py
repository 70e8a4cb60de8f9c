"""The commands of docs/how-to/backups.md for plain PostgreSQL: base backup, archived WAL, back to one moment."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from circuit_script.db.migrate import migrate
from circuit_script.db.server_user import ServerUser, choose
from tests.conftest import _short_folder
from tests.road import SCORE, contact, open_road
from tests.servers import DEBIAN_15, as_url

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DEBIAN_15.is_dir(), reason=f"PostgreSQL 15 is not installed: no {DEBIAN_15}"),
]


class Cluster:
    """A server with an archive of its own, under ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.user: ServerUser = choose(folder / "home")
        self.user.own_folder(folder / "home")
        self.home = folder / "home"
        self.data, self.base, self.archive = self.home / "data", self.home / "base", self.home / "archive"
        self.url = as_url("", user="postgres", dbname="postgres", host=str(self.home), port="5432")

    async def run(self, name: str, *arguments: str | Path) -> None:
        code, printed = await self.user.run(DEBIAN_15 / name, *arguments, cwd=self.home)
        assert code == 0, printed

    async def make(self) -> None:
        self.user.own_folder(self.archive)
        await self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.home}'\n"
                "wal_level = replica\narchive_mode = on\narchive_timeout = 60\n"
                f"archive_command = 'test ! -f {self.archive}/%f && cp %p {self.archive}/%f'\n"
            )
        await self.start()

    async def start(self) -> None:
        await self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.home / "log")

    async def stop(self) -> None:
        await self.run("pg_ctl", "stop", "-m", "immediate", "-D", self.data)

    async def value(self, query: str) -> object:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
            assert row is not None
            return row[0]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    folder = _short_folder()
    made = Cluster(folder)
    await made.make()
    yield made
    await made.stop()
    shutil.rmtree(folder)


async def test_the_database_goes_back_to_a_moment_between_two_deliveries(cluster: Cluster) -> None:
    await migrate(cluster.url)
    async with open_road(cluster.url) as road:
        await road.live(SCORE)
        await road.take_in(contact("before"))
        await cluster.run("pg_basebackup", "-h", cluster.home, "-U", "postgres", "-D", cluster.base, "-X", "none")
        await road.take_in(contact("wanted"))
        moment = await cluster.value("SELECT clock_timestamp()::text")
        await road.take_in(contact("mistake"))
    segment = await cluster.value("SELECT pg_walfile_name(pg_switch_wal())")
    async with asyncio.timeout(60):
        while not (cluster.archive / str(segment)).exists():
            await asyncio.sleep(0.05)

    await cluster.stop()
    shutil.rmtree(cluster.data)
    cluster.base.rename(cluster.data)
    with (cluster.data / "postgresql.auto.conf").open("a") as conf:
        conf.write(
            f"restore_command = 'cp {cluster.archive}/%f %p'\n"
            f"recovery_target_time = '{moment}'\nrecovery_target_action = 'promote'\n"
        )
    (cluster.data / "recovery.signal").touch()
    await cluster.start()
    async with asyncio.timeout(60):
        while await cluster.value("SELECT pg_is_in_recovery()"):
            await asyncio.sleep(0.05)

    async with open_road(cluster.url) as road:
        assert await road.rows("SELECT record FROM circuit.events ORDER BY id") == ["before", "wanted"]
        await road.live(SCORE)
        await road.start()
        await road.take_in(contact("after"))
        await road.done()
