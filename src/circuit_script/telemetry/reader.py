"""Log lines on their way out: the latest that fit a question, and then each new one, none twice and none missed.

A failed execution is a line too, of level ``error``: a handler that crashed could not log it. One that its author has
cancelled or put off is of level ``info``.

Lines are committed in another order than they were written in, so no column of theirs can be a cursor. What is new
is asked of PostgreSQL itself: the rows that the snapshot of the last look could not see.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit_script.db.pool import Connection, tenant_reading

LEVELS = ("debug", "info", "warning", "error", "critical")
SLACK = 60  # seconds from an execution's last line to its commit, at most
LONGEST = 3600  # seconds, where a release does not say how long its handlers may run

_LINES = """
    SELECT at, level, message, context, execution, handler, tenant, record, xmin::text::bigint AS xmin
    FROM circuit.circuit_logs WHERE (%(from)s::uuid IS NULL OR execution >= %(from)s)
    UNION ALL
    SELECT x.ended_at, CASE WHEN x.status IN ('cancelled', 'deferred') THEN 'info' ELSE 'error' END,
           x.status || ': ' || coalesce(x.reason, ''),
           jsonb_strip_nulls(jsonb_build_object('records', x.records, 'detail', left(x.detail, 2000))),
           x.id, coalesce(h.name, x.handler::text), x.tenant, NULL, x.xmin::text::bigint
    FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
    WHERE x.status NOT IN ('succeeded', 'echo') AND (%(from)s::uuid IS NULL OR x.id >= %(from)s)
"""
_CHOSEN = f"""
    SELECT l.at, l.level, l.message, l.context, l.execution, l.handler, l.tenant, l.record, l.xmin
    FROM ({_LINES}) l
    WHERE (%(execution)s::uuid IS NULL OR l.execution = %(execution)s)
      AND (%(delivery)s::uuid IS NULL
           OR l.execution IN (SELECT o.execution FROM circuit.outcomes o WHERE o.delivery = %(delivery)s))
      AND (%(record)s::text IS NULL OR l.record = %(record)s)
      AND (%(handler)s::text IS NULL OR l.handler = %(handler)s OR l.handler LIKE '%%.' || %(handler)s)
      AND (%(levels)s::text[] IS NULL OR l.level = ANY(%(levels)s))
      AND (%(since)s::timestamptz IS NULL OR l.at >= %(since)s)
      AND (%(search)s::text IS NULL OR strpos(lower(l.message || ' ' || coalesce(l.context::text, '')),
                                              lower(%(search)s)) > 0)
"""
# The snapshot comes with the rows, so that it is the one by which they were seen.
_LATEST = f"""
    WITH now AS (SELECT pg_current_snapshot()::text AS snapshot)
    SELECT now.snapshot, latest.*
    FROM now LEFT JOIN LATERAL (
        SELECT c.at, c.level, c.message, c.context, c.execution, c.handler, c.tenant, c.record FROM ({_CHOSEN}) c
        ORDER BY c.execution DESC, c.at DESC LIMIT %(limit)s
    ) latest ON true
"""
# xmin has 32 bits; its upper ones are those of the snapshot, unless it lies behind the snapshot's end.
_NEW = f"""
    WITH now AS (SELECT pg_current_snapshot() AS snapshot, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS top)
    SELECT now.snapshot::text AS snapshot, fresh.*
    FROM now LEFT JOIN LATERAL (
        SELECT c.at, c.level, c.message, c.context, c.execution, c.handler, c.tenant, c.record FROM ({_CHOSEN}) c
        WHERE NOT pg_visible_in_snapshot(
            ((now.top >> 32 << 32) + c.xmin
             - CASE WHEN c.xmin > (now.top & 4294967295) THEN 4294967296 ELSE 0 END)::text::xid8,
            %(seen)s::pg_snapshot)
        ORDER BY c.at
    ) fresh ON true
"""
_LONGEST = """
    SELECT max((h -> 'limits' ->> 'wall_time')::float8)
    FROM circuit.live l JOIN circuit.releases r ON r.id = l.release, jsonb_array_elements(r.manifest) h
"""
_FLOOR = "SELECT circuit.uuid_floor(now() - %s * interval '1 second')"
_FLOOR_OF = "SELECT circuit.uuid_floor(%s::timestamptz - %s * interval '1 second')"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines. ``handler`` is a handler's name or the last part of it; ``level`` is the least that is shown."""

    execution: UUID | None = None
    delivery: UUID | None = None
    record: str | None = None
    handler: str | None = None
    tenant: str | None = None
    level: str | None = None
    since: datetime | None = None
    search: str | None = None
    limit: int = 100

    def parameters(self) -> dict[str, Any]:
        levels = None if self.level in (None, LEVELS[0]) else list(LEVELS[LEVELS.index(str(self.level)) :])
        return {
            "execution": self.execution,
            "delivery": self.delivery,
            "record": self.record,
            "handler": self.handler,
            "levels": levels,
            "since": self.since,
            "search": self.search,
            "limit": self.limit,
        }


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an execution's log."""

    at: datetime
    level: str
    message: str
    context: Mapping[str, Any] | None
    execution: UUID
    handler: str
    tenant: str
    record: str | None


class LogReader:
    """Reads the lines that fit one question, over a connection of its own."""

    def __init__(self, connection: Connection, query: LogQuery) -> None:
        self._connection = connection
        self._query = query
        self._seen: str | None = None

    async def latest(self) -> list[LogLine]:
        """The newest ``limit`` lines, the oldest of them first."""
        since = self._query.since
        floor = None if since is None else await self._value(_FLOOR_OF, (since, await self._longest()))
        return sorted(await self._look(_LATEST, floor), key=lambda line: line.at)

    async def newer(self) -> list[LogLine]:
        """The lines that were committed since the last look, by their time."""
        if self._seen is None:
            return await self.latest()
        return await self._look(_NEW, await self._value(_FLOOR, (await self._longest(),)))

    async def _look(self, statement: str, floor: UUID | None) -> list[LogLine]:
        parameters = {**self._query.parameters(), "from": floor, "seen": self._seen}
        async with self._reading():
            rows = await (await self._connection.execute(statement, parameters)).fetchall()
        self._seen = rows[0][0]
        return [LogLine(*row[1:]) for row in rows if row[1] is not None]

    async def _longest(self) -> float:
        """Seconds between an execution's start and the commit of its last line, at most."""
        longest: float | None = await self._value(_LONGEST)
        return (LONGEST if longest is None else longest) + SLACK

    async def _value(self, statement: str, parameters: tuple[object, ...] = ()) -> Any:
        row = await (await self._connection.execute(statement, parameters)).fetchone()
        assert row is not None  # each of them has one row
        return row[0]

    def _reading(self) -> contextlib.AbstractAsyncContextManager[None]:
        tenant = self._query.tenant
        return _everything() if tenant is None else tenant_reading(self._connection, tenant)


@contextlib.asynccontextmanager
async def _everything() -> AsyncIterator[None]:
    """An operator on this host, who has the database's password, sees all tenants."""
    yield
