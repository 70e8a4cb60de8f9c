"""How a page of the log is found: first among the newest lines, where common words end, then by the indexes.

These are asked of one stretch of time after the other, until there are enough lines or the time for a page is up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import errors

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection
from circuit_script.telemetry.lines import Cursor, LogLine, LogPage, LogQuery

NEWEST = 5000  # lines that are looked at one by one, before an index is asked
BUDGET = 2.0  # seconds for a page
LEAST = 0.05  # seconds that one stretch gets
FIRST = 150_000  # rows, about, of the first stretch; each further one has three times as many,
STRETCH = 3_000_000  # up to so many; a day that has more is cut
FINEST = 1 << 20
_RARE = ("warning", "error", "critical")

_ZERO, _LAST = UUID(int=0), UUID(int=(1 << 128) - 1)
_PREPARE = """
    SELECT circuit.log_ask(
        ROW(%(levels)s, %(handler)s, %(record)s, %(user)s, %(trace)s, %(since)s, %(until)s, %(executions)s, NULL, NULL,
            false, NULL, NULL)::circuit.log_asked,
        %(words)s, %(keys)s, %(values)s, %(tenant)s, %(rare)s)::text
"""
_OF_DELIVERY = "SELECT DISTINCT execution FROM circuit.outcomes WHERE delivery = %s"
_OF_TRACE = "SELECT DISTINCT execution FROM circuit.circuit_logs WHERE trace = %s LIMIT 1000"
_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"
# A table that nobody has counted yet has about so many rows as fit into it.
_DAYS = """
    SELECT circuit.uuid_floor(day::timestamp AT TIME ZONE 'UTC'), sum(n) FROM (
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day,
               CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_relation_size(c.oid) / 200 END AS n
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.relnamespace = to_regnamespace('circuit') AND p.relname IN ('circuit_logs', 'executions')
          AND c.relname ~ '_[0-9]{8}$') AS days
    GROUP BY day ORDER BY day DESC
"""
_ASKED = "%(asked)s::circuit.log_asked"
_RANGE = "%(lo)s::uuid, %(hi)s::uuid, %(at)s::timestamptz, %(most)s::integer, %(plain)s::boolean"
_FIND = f"""
    SELECT * FROM circuit.find_log({_ASKED}, NULL, {_RANGE})
    UNION ALL SELECT * FROM circuit.find_ended({_ASKED}, NULL, {_RANGE})
"""
_FIND_MINE = f"""
    SELECT * FROM circuit.my_log({_ASKED}, {_RANGE}, false)
    UNION ALL SELECT * FROM circuit.my_log({_ASKED}, {_RANGE}, true)
"""
_NEWEST = "SELECT circuit.log_floor(%s, %s)"
_NEWEST_MINE = "SELECT circuit.my_log_floor(%s, %s)"
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)
_AFTER_ALL = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bounds:
    """From which execution to which is looked; of ``hi`` itself the lines up to ``at``."""

    lo: UUID
    hi: UUID
    at: datetime = _AFTER_ALL

    @classmethod
    def of(cls, lo: UUID | None, hi: UUID | None, *, before: Cursor | None) -> Bounds:
        found = cls(lo or _ZERO, hi or _LAST)
        if before is not None and before.execution <= found.hi:
            return cls(found.lo, before.execution, before.at or _BEFORE_ALL)
        return found


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A question in PostgreSQL's form. ``executions`` are the only ones that are meant, where it names some."""

    asked: str
    executions: Sequence[UUID] | None


async def prepare(connection: Connection, query: LogQuery) -> PreparedQuery:
    """Make a question ready, in the transaction that will look."""
    executions = await _executions(connection, query)
    levels = query.levels
    values = {
        "levels": levels,
        "handler": query.handler,
        "record": query.record,
        "user": query.user,
        "trace": query.trace,
        "since": query.since,
        "until": query.until,
        "executions": executions,
        "words": [_stored(word) for word in query.words],
        "keys": [_stored(key) for key, _ in query.where],
        "values": [_stored(value) for _, value in query.where],
        "tenant": query.tenant,
        "rare": levels if levels is not None and set(levels) <= set(_RARE) else None,
    }
    values |= {name: _stored(str(values[name])) for name in ("handler", "record", "user", "tenant") if values[name]}
    row = await (await connection.execute(_PREPARE, values)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return PreparedQuery(row[0], executions)


async def _executions(connection: Connection, query: LogQuery) -> list[UUID] | None:
    """Those that a question means, where it says so; each further condition leaves fewer of them."""
    said: list[set[UUID]] = []
    if query.execution is not None:
        said.append({query.execution})
    if query.delivery is not None:
        said.append(await _found(connection, _OF_DELIVERY, query.delivery))
    if query.trace is not None:
        said.append({UUID(query.trace)} | await _found(connection, _OF_TRACE, query.trace))
    return sorted(set.intersection(*said)) if said else None


async def _found(connection: Connection, statement: str, value: object) -> set[UUID]:
    return {row[0] for row in await (await connection.execute(statement, (value,))).fetchall()}


def _stored(text: str) -> str:
    """As it would stand in the log: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Looking:
    """One page on its way. Runs in the transaction of its caller, who has become the tenant if there is one."""

    def __init__(self, connection: Connection, query: LogQuery, prepared: PreparedQuery, bounds: Bounds) -> None:
        self._connection = connection
        self._query = query
        self._prepared = prepared
        self._bounds = bounds
        self._lines: list[LogLine] = []
        self._skip = query.before.skip if query.before is not None else 0
        self._ends = time.monotonic() + BUDGET

    async def page(self) -> LogPage:
        """The lines, and how it goes on."""
        only = self._prepared.executions
        if only is not None:
            if only:
                lo, hi = max(only[0], self._bounds.lo), min(only[-1], self._bounds.hi)
                at = self._bounds.at if hi == self._bounds.hi else _AFTER_ALL
                await self._look(Bounds(lo, hi, at), plain=True)
            return self._whole()
        rest: Bounds | None = self._bounds
        if self._query.before is None or self._query.before.fine == 1:
            rest = await self._newest()
        if rest is None or self._full:
            return self._whole()
        return await self._by_index(rest)

    async def _newest(self) -> Bounds | None:
        """Look at the newest lines; what is left of the bounds, None if nothing is."""
        statement = _NEWEST if self._query.tenant is None else _NEWEST_MINE
        row = await (await self._connection.execute(statement, (self._bounds.hi, NEWEST))).fetchone()
        floor = row[0] if row is not None else None
        if floor is None or floor < self._bounds.lo:
            floor = self._bounds.lo
        if not await self._look(replace(self._bounds, lo=floor), plain=True):
            return self._bounds
        return replace(self._bounds, hi=floor, at=_BEFORE_ALL) if floor > self._bounds.lo else None

    async def _by_index(self, rest: Bounds) -> LogPage:
        fine = self._query.before.fine if self._query.before is not None else 1
        first = True
        for lo in await self._stretches(rest, fine):
            if not await self._look(replace(rest, lo=lo), plain=False):
                finer = min(fine * 8, FINEST) if first else fine
                return self._until(rest, finer)
            rest, first = Bounds(self._bounds.lo, lo, _BEFORE_ALL), False
            if self._full:
                return self._whole()
            if time.monotonic() > self._ends and lo > self._bounds.lo:
                return self._until(rest, fine)
        return self._whole()

    async def _stretches(self, rest: Bounds, fine: int) -> list[UUID]:
        """Where each stretch begins, the newest first: days, together if they are small, in parts if large."""
        days = await (await self._connection.execute(_DAYS)).fetchall()
        begins: list[UUID] = []
        gathered, wanted = 0.0, FIRST
        top = min(rest.hi, UUID(int=int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1000) << 80))
        for floor, rows in days:
            if floor >= top:
                continue
            parts = min(FINEST, max(1, -(-int(rows) // (STRETCH // 3))) * fine)
            if parts == 1 and gathered + rows <= wanted and begins:
                gathered += rows
                begins[-1] = floor
            else:
                begins += _parts(floor, top, parts)
                gathered, wanted = float(rows), min(STRETCH, wanted * 3) if len(begins) > 1 else FIRST
            top = floor
            if floor <= rest.lo:
                break
        inside = [each for each in begins if each > rest.lo]
        return [*inside, rest.lo]

    async def _look(self, bounds: Bounds, *, plain: bool) -> bool:
        """Add the lines within ``bounds``; False if there was not time enough."""
        values = {
            "asked": self._prepared.asked,
            "lo": bounds.lo,
            "hi": bounds.hi,
            "at": bounds.at,
            "most": self._query.limit + self._skip + 1,
            "plain": plain,
        }
        left = max(LEAST, self._ends - time.monotonic())
        try:
            async with self._connection.transaction():
                await self._connection.execute(_TIMEOUT, (str(int(left * 1000)),))
                statement = _FIND if self._query.tenant is None else _FIND_MINE
                rows = await (await self._connection.execute(statement, values)).fetchall()
        except errors.QueryCanceled:
            return False
        found = sorted((LogLine(*row) for row in rows), key=lambda line: line.message)
        found.sort(key=lambda line: (line.execution, line.at), reverse=True)
        self._lines += found
        return True

    @property
    def _shown(self) -> list[LogLine]:
        """Without those of the last page that stand at the same place."""
        return self._lines[self._skip :]

    @property
    def _full(self) -> bool:
        return len(self._shown) > self._query.limit

    def _whole(self) -> LogPage:
        """Everything was looked at that had to be."""
        shown = self._shown
        if not self._full:
            return LogPage(shown)
        lines = shown[: self._query.limit]
        last = lines[-1]
        skip = sum(1 for line in lines if (line.execution, line.at) == (last.execution, last.at))
        before = self._query.before
        if before is not None and (before.execution, before.at) == (last.execution, last.at):
            skip += self._skip
        return LogPage(lines, before=str(Cursor(last.execution, last.at, skip)))

    def _until(self, rest: Bounds, fine: int) -> LogPage:
        """The time is up; ``rest`` is what has not been looked at."""
        at = None if rest.at == _BEFORE_ALL else rest.at
        before = Cursor(rest.hi, at, self._skip if at is not None and not self._lines else 0, fine)
        return LogPage(self._shown, before=str(before), looked_back_to=time_of(rest.hi))


def _parts(lo: UUID, hi: UUID, parts: int) -> list[UUID]:
    """The beginnings of equal parts of the time between, the newest first."""
    first, beyond = lo.int >> 80, hi.int >> 80
    step = max(1, (beyond - first) // parts)
    found = sorted({first + step * n for n in range(parts) if first + step * n < beyond}, reverse=True)
    return [UUID(int=each << 80) for each in found] or [lo]
