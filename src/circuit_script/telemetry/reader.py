"""Log lines on their way out: pages of those that fit a question, and then each new one, none twice and none missed.

A failed execution is a line too, of level ``error``: a handler that crashed could not log it. One that its author has
cancelled or put off is of level ``info``.

Lines are committed in another order than they were written in, so no column of theirs can be a cursor for what is new.
That is asked of PostgreSQL itself: the rows that the snapshot of the last look could not see.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from psycopg import IsolationLevel

from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.telemetry.lines import LogLine, LogPage, LogQuery
from circuit_script.telemetry.search import Bounds, Looking, PreparedQuery, prepare

SLACK = 60  # seconds from an execution's last line to its commit, at most
LONGEST = 3600  # seconds, where a release does not say how long its handlers may run

_LONGEST = """
    SELECT max((h -> 'limits' ->> 'wall_time')::float8)
    FROM circuit.live l JOIN circuit.releases r ON r.id = l.release, jsonb_array_elements(r.manifest) h
"""
_FLOOR = "SELECT circuit.uuid_floor(now() - %s * interval '1 second')"
_BOUNDS = """
    SELECT circuit.uuid_floor(%(since)s::timestamptz - %(longest)s * interval '1 second'),
           circuit.uuid_floor(%(until)s::timestamptz + interval '1 millisecond')
"""
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
_NEW = "SELECT * FROM circuit.log_since(%s::circuit.log_asked, %s, %s::pg_snapshot)"


class LogReader:
    """Reads the lines that fit one question, over a connection of its own."""

    def __init__(self, connection: Connection, query: LogQuery) -> None:
        self._connection = connection
        self._query = query
        self._seen: str | None = None
        self._prepared: PreparedQuery | None = None

    async def page(self) -> LogPage:
        """The newest ``limit`` lines before ``before``, the newest first."""
        bounds = await self._bounds()
        async with self._one_look():
            self._seen = await self._value(_SNAPSHOT)
            self._prepared = await prepare(self._connection, self._query)
            return await Looking(self._connection, self._query, self._prepared, bounds).page()

    async def latest(self) -> list[LogLine]:
        """The newest ``limit`` lines, the oldest of them first."""
        return sorted((await self.page()).lines, key=lambda line: line.at)

    async def newer(self) -> list[LogLine]:
        """The lines that were committed since the last look, by their time."""
        if self._seen is None or self._prepared is None:
            return await self.latest()
        floor = await self._value(_FLOOR, (await self._longest(),))
        async with self._one_look():
            before, self._seen = self._seen, await self._value(_SNAPSHOT)
            if self._seen == before:
                return []  # nobody has committed anything
            asked = (self._prepared.asked, floor, before)
            return [LogLine(*row) for row in await (await self._connection.execute(_NEW, asked)).fetchall()]

    async def _bounds(self) -> Bounds:
        since, until = self._query.since, self._query.until
        values = {"since": since, "until": until, "longest": await self._longest()}
        row = await (await self._connection.execute(_BOUNDS, values)).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        return Bounds.of(*row, before=self._query.before)

    async def _longest(self) -> float:
        """Seconds between an execution's start and the commit of its last line, at most."""
        longest: float | None = await self._value(_LONGEST)
        return (LONGEST if longest is None else longest) + SLACK

    async def _value(self, statement: str, parameters: tuple[object, ...] = ()) -> Any:
        row = await (await self._connection.execute(statement, parameters)).fetchone()
        assert row is not None  # each of them has one row
        return row[0]

    @contextlib.asynccontextmanager
    async def _one_look(self) -> AsyncIterator[None]:
        """All of it sees the same rows, and as its tenant may; an operator on this host, who has the database's
        password, sees those of all."""
        tenant, before = self._query.tenant, self._connection.isolation_level
        await self._connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        try:
            async with self._connection.transaction() if tenant is None else tenant_reading(self._connection, tenant):
                yield
        finally:
            await self._connection.set_isolation_level(before)
