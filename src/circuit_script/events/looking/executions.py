"""A tenant's executions, newest first: any of them, or those that fit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection

STATUSES = ("succeeded", "partial", "failed", "breached", "held", "cancelled", "deferred", "echo")
TROUBLE = "trouble"  # a status of a query: whatever a person should look at
MOST_EVENTS = 500  # of a record, the newest, whose executions are looked for

_COLUMNS = """
x.id, coalesce(h.name, x.handler::text) AS handler, x.object, x.event, x.records, x.status,
left(x.reason, 300) AS reason, x.started_at, x.ended_at, x.release
"""
_LIST = f"""
SELECT {_COLUMNS} FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
WHERE {{which}} ORDER BY x.id DESC LIMIT %(limit)s
"""
# From the record's newest events to what handled them: neither has an index by what the other one is asked.
_OF_RECORD = f"""
SELECT {_COLUMNS} FROM (
    SELECT DISTINCT o.execution FROM (
        SELECT e.delivery, e.ordinal FROM circuit.events e
        WHERE e.record = %(record)s AND (%(object)s::text IS NULL OR e.object = %(object)s)
        ORDER BY e.id DESC LIMIT {MOST_EVENTS}
    ) e JOIN circuit.outcomes o ON o.delivery = e.delivery AND o.ordinal = e.ordinal
) f JOIN circuit.executions x ON x.id = f.execution LEFT JOIN circuit.handlers h ON h.id = x.handler
WHERE {{which}} ORDER BY x.id DESC LIMIT %(limit)s
"""
_OF_DELIVERY = f"""
SELECT {_COLUMNS} FROM (SELECT DISTINCT execution FROM circuit.outcomes WHERE delivery = %(delivery)s) o
JOIN circuit.executions x ON x.id = o.execution LEFT JOIN circuit.handlers h ON h.id = x.handler
WHERE {{which}} ORDER BY x.id DESC LIMIT %(limit)s
"""
_HANDLERS = "SELECT name FROM circuit.handlers ORDER BY name"
_HANDLER = "SELECT id FROM circuit.handlers WHERE name = %s"


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """Which executions. ``status`` is one of `STATUSES` or `TROUBLE`; ``handler`` is a whole name; ``before`` is the
    id at which the last page ended."""

    handler: str | None = None
    status: str | None = None
    record: str | None = None
    object: str | None = None
    delivery: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """One execution of a list."""

    id: UUID
    handler: str
    object: str
    event: str
    records: int
    status: str
    reason: str | None
    started_at: datetime
    ended_at: datetime
    release: int

    @property
    def took(self) -> timedelta:
        """How long it ran; clocks of two hosts may disagree."""
        return max(self.ended_at - self.started_at, timedelta())


@dataclass(frozen=True, slots=True)
class ListPage:
    """Executions, the newest first; ``older`` begins the next page, None at the end."""

    rows: list[Listed]
    older: UUID | None


async def list_executions(connection: Connection, query: ExecutionQuery) -> ListPage:
    """The newest that fit, within ``tenant_reading``."""
    values: dict[str, Any] = {
        "record": query.record,
        "object": query.object,
        "delivery": query.delivery,
        "before": query.before,
        "status": query.status,
        "since": query.since,
        "until": query.until,
        "limit": query.limit + 1,
    }
    which = ["true"]
    if query.handler is not None:
        row = await (await connection.execute(_HANDLER, [query.handler])).fetchone()
        if row is None:
            return ListPage([], None)
        which.append("x.handler = %(handler)s")
        values["handler"] = row[0]
    which += _conditions(query)
    statement = _OF_DELIVERY if query.delivery else _OF_RECORD if query.record is not None else _LIST
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.format(which=" AND ".join(which)).encode(), values)
        rows = [Listed(**row) for row in await cursor.fetchall()]
    more = len(rows) > query.limit
    return ListPage(rows[: query.limit], rows[query.limit - 1].id if more else None)


def _conditions(query: ExecutionQuery) -> list[str]:
    found = []
    if query.status == TROUBLE:
        found.append("x.status NOT IN ('succeeded', 'echo', 'cancelled', 'deferred')")
    elif query.status is not None:
        found.append("x.status = %(status)s")
        if query.status not in ("succeeded", "echo", "cancelled", "deferred"):  # which the index then finds
            found.append("x.status NOT IN ('succeeded', 'echo', 'cancelled', 'deferred')")
    if query.before is not None:
        found.append("x.id < %(before)s")
    if query.since is not None:
        found.append("x.id >= circuit.uuid_floor(%(since)s)")
    if query.until is not None:
        found.append("x.id < circuit.uuid_floor(%(until)s)")
    return found


async def handler_names(connection: Connection) -> list[str]:
    """Every handler that there ever was."""
    return [name for (name,) in await (await connection.execute(_HANDLERS)).fetchall()]
