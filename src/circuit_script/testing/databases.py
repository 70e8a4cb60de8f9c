"""The databases of a test session: one server, and on it a migrated database that each test finds empty.

A database is emptied after its test and used again: that takes 10 ms, where a copy of a template took 60 to 300.

The server is the embedded one, in ``.circuit/test`` of the app, or the one that CIRCUIT_TEST_DATABASE_URL names (as a
user who may create databases and roles). DATABASE_URL is never used. Sessions of one app share its server; the last
one stops it. What a killed session left behind is dropped by the next one that is alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import migrate
from circuit_script.db.pool import Connection, open_connection

VARIABLE = "CIRCUIT_TEST_DATABASE_URL"
PREFIX = "circuit_test_"
STALE = "SELECT datname FROM pg_database WHERE datname LIKE 'circuit\\_test\\_%'"
# Releases and handlers stay: they are the app's, which is the same in every test.
EMPTY = """
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN SELECT format('circuit.%I', c.relname) FROM pg_class c
        WHERE c.relnamespace = 'circuit'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname <> ALL (ARRAY['migrations', 'releases', 'handlers', 'live', 'routes', 'lanes'])
    LOOP
        EXECUTE 'DELETE FROM ' || part;
    END LOOP;
END $$
"""
# A crash loses nothing that anybody needs.
FORGETFUL = (
    "ALTER SYSTEM SET fsync = off",
    "ALTER SYSTEM SET synchronous_commit = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "SELECT pg_reload_conf()",
)


def stop_left_behind(state: Path) -> None:
    """Stop the server of sessions that were killed, unless another one uses it. ``state`` is the app's ``.circuit``."""
    folder = state / "test"
    if not folder.is_dir():
        return
    lock = _open_lock(folder)
    try:
        if _is_alone(lock):
            asyncio.run(EmbeddedPostgres(folder).stop())
    finally:
        os.close(lock)


def _open_lock(folder: Path) -> int:
    return os.open(folder / "sessions.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Databases:
    """One session's databases. ``state`` is the app's ``.circuit`` folder."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "test"
        self._foreign = os.environ.get(VARIABLE)
        self._embedded = EmbeddedPostgres(self._folder)
        self._numbers = itertools.count(1)
        self._login = ""
        self._admin: Connection | None = None
        self._lock = -1
        self._made: list[str] = []
        self._empty: list[str] = []
        self._emptying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the server running and a database ready. Raises StartError, DatabaseUnavailable."""
        if self._foreign:
            self._login = self._foreign
            self._admin = await open_connection(self._foreign, name="circuit-script test")
        else:
            alone = self._take_part()
            self._login = await self._embedded.start()
            self._admin = await open_connection(self._embedded.superuser_url, name="circuit-script test")
            if alone:
                await self._begin_afresh()
        self._empty.append(await self._create())

    async def fresh(self) -> str:
        """URL of a migrated database without a record, delivery or execution."""
        while self._emptying and not self._empty:
            await asyncio.wait(self._emptying, return_when=asyncio.FIRST_COMPLETED)
        return self._url(self._empty.pop() if self._empty else await self._create())

    def give_back(self, url: str) -> None:
        """Have the database emptied for another test."""
        task = asyncio.create_task(self._clean(url))
        self._emptying.add(task)
        task.add_done_callback(self._emptying.discard)

    async def _clean(self, url: str) -> None:
        connection = await open_connection(url, name="circuit-script test")
        try:
            await connection.execute(EMPTY)
        finally:
            await connection.close()
        self._empty.append(str(conninfo_to_dict(url)["dbname"]))

    async def _drop(self, name: str) -> None:
        await self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    async def stop(self) -> None:
        """Drop what was made; stop the server unless another session uses it."""
        if self._admin is not None:
            await asyncio.gather(*self._emptying, return_exceptions=True)
            for name in self._made:
                await self._drop(name)
            await self._admin.close()
        if not self._foreign and self._lock >= 0:
            if _is_alone(self._lock):
                await self._embedded.stop()
            os.close(self._lock)
            self._lock = -1

    def _take_part(self) -> bool:
        """Be one of the sessions that use the server; True when it is the only one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _open_lock(self._folder)
        alone = _is_alone(self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return alone

    async def _begin_afresh(self) -> None:
        assert self._admin is not None
        for (name,) in await (await self._admin.execute(STALE)).fetchall():
            await self._drop(name)
        for statement in FORGETFUL:
            await self._admin.execute(statement.encode())

    async def _create(self) -> str:
        name = f"{PREFIX}{os.getpid()}_{next(self._numbers)}"
        owner = conninfo_to_dict(self._login).get("user")
        owned = sql.SQL(" OWNER {}").format(sql.Identifier(str(owner))) if owner else sql.SQL("")
        await self._run(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), owned))
        self._made.append(name)
        await migrate(self._url(name))
        return name

    async def _run(self, statement: sql.Composed) -> None:
        assert self._admin is not None
        await self._admin.execute(statement)

    def _url(self, name: str) -> str:
        return make_conninfo(self._login, dbname=name)
