"""Dead letters as they are found: one, many by filter, and grouped by their cause.

An effect in doubt has a letter too; it is told of by `doubt`, not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.errors import LetterRefused

OPEN = "open"
LARGEST = 2**63 - 1  # a letter's number is a bigint
STATUSES = ("open", "retried", "discarded")

# The handler of an effect is that of its execution.
_LETTERS = """
FROM circuit.dead_letters d
LEFT JOIN circuit.effects e ON e.id = d.effect
LEFT JOIN circuit.handlers h
  ON h.id = coalesce(d.handler, (SELECT x.handler FROM circuit.executions x WHERE x.id = d.execution))
WHERE e.status IS DISTINCT FROM 'in_doubt'
"""
_CHOSEN = f"""{_LETTERS}
  AND (%(status)s::text IS NULL OR d.status = %(status)s)
  AND (%(tenant)s::text IS NULL OR d.tenant = %(tenant)s)
  AND (%(record)s::text IS NULL OR d.record = %(record)s)
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
  AND (%(since)s::timestamptz IS NULL OR d.at >= %(since)s)
  AND (%(trigger)s::text IS NULL OR right('.' || h.name, length(%(trigger)s) + 1) = '.' || %(trigger)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(d.reason), lower(%(reason)s)) > 0 OR d.cause = %(reason)s)
"""
_COLUMNS = """
SELECT d.id, d.kind, d.status, d.tenant, h.name AS handler, d.object, d.event, d.record, d.attempts, d.reason, d.at,
       d.by, d.closed_at, d.why, d.delivery, d.ordinal, d.event_id, d.execution, d.effect, d.again, d.edited, d.was,
       e.connector, e.operation, e.target
"""
_LIST = f"""{_COLUMNS} {_CHOSEN} AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
ORDER BY d.id DESC LIMIT %(limit)s"""
_ONE = f"{_COLUMNS} {_LETTERS} AND d.id = %(id)s"
_CAUSES = f"""
SELECT d.cause, coalesce(h.name, '') AS handler, d.kind, count(*) AS n, min(d.at) AS first, max(d.at) AS last,
       (sum(count(*)) OVER ())::bigint AS of
{_CHOSEN} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 6 DESC, 1, 2 LIMIT %(limit)s
"""
# In the order of their events, so that the retries of one record keep it.
_IDS = f"SELECT d.id {_CHOSEN} ORDER BY d.event_id NULLS LAST, d.id"
_IN_DOUBT = """
SELECT d.effect FROM circuit.dead_letters d JOIN circuit.effects e ON e.id = d.effect
WHERE d.id = %(id)s AND e.status = 'in_doubt'
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters. ``trigger`` is a handler's name or the last part of it; ``reason`` a part of the reason, or a
    cause as `causes` tells it. With ``tenant`` they are read as that tenant may."""

    status: str | None = OPEN
    trigger: str | None = None
    tenant: str | None = None
    record: str | None = None
    reason: str | None = None
    kind: str | None = None
    since: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "trigger": self.trigger,
            "tenant": self.tenant,
            "record": self.record,
            "reason": self.reason,
            "kind": self.kind,
            "since": self.since,
        }


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``again`` is the event that a retry made, ``edited`` the delivery that a person's edit made, and
    ``was`` an effect's payload before one; ``by``, ``closed_at`` and ``why`` are None while it is open."""

    id: int
    kind: str
    status: str
    tenant: str
    handler: str | None
    object: str | None
    event: str | None
    record: str | None
    attempts: int
    reason: str
    at: datetime
    by: str | None
    closed_at: datetime | None
    why: str | None
    delivery: UUID | None
    ordinal: int | None
    event_id: int | None
    execution: UUID | None
    effect: UUID | None
    again: int | None
    edited: UUID | None
    was: dict[str, Any] | None
    connector: str | None
    operation: str | None
    target: str | None

    @property
    def closed(self) -> str:
        """Who closed it, when, and why; empty while it is open."""
        if self.closed_at is None:
            return ""
        why = f": {self.why}" if self.why else ""
        return f"{self.status} by {self.by} at {self.closed_at.astimezone():%Y-%m-%d %H:%M:%S}{why}"


@dataclass(frozen=True, slots=True)
class Cause:
    """Letters of one cause and handler; ``of`` is how many fit in all."""

    cause: str
    handler: str
    kind: str
    n: int
    first: datetime
    last: datetime
    of: int


@contextlib.asynccontextmanager
async def reading(connection: Connection, tenant: str | None) -> AsyncIterator[None]:
    """As that tenant may; an operator on this host, who has the database's password, sees all tenants."""
    if tenant is None:
        yield
        return
    async with tenant_reading(connection, tenant):
        yield


async def letters(connection: Connection, wanted: Wanted, limit: int, *, before: int | None = None) -> list[Letter]:
    """The newest ``limit`` letters that fit, the newest first; those before the number ``before``, if it is given."""
    values = wanted.parameters() | {"limit": limit, "before": before}
    async with reading(connection, wanted.tenant):
        return [Letter(**row) for row in await rows(connection, _LIST, values)]


async def causes(connection: Connection, wanted: Wanted, limit: int) -> list[Cause]:
    """The letters that fit, counted by cause and handler, the most frequent first."""
    async with reading(connection, wanted.tenant):
        return [Cause(**row) for row in await rows(connection, _CAUSES, wanted.parameters() | {"limit": limit})]


async def chosen(connection: Connection, wanted: Wanted) -> list[int]:
    """The ids of all letters that fit, in the order in which they are to be retried."""
    async with reading(connection, wanted.tenant):
        found = await (await connection.execute(_IDS.encode(), wanted.parameters())).fetchall()
    return [row[0] for row in found]


async def find_letter(connection: Connection, letter: int, tenant: str | None = None) -> Letter:
    """Raises LetterRefused when there is none of that number that ``tenant`` may see, or when it is one in doubt."""
    if not 0 < letter <= LARGEST:
        raise missing(letter)
    async with reading(connection, tenant):
        found = await rows(connection, _ONE, {"id": letter})
        doubt = [] if found else await rows(connection, _IN_DOUBT, {"id": letter})
    if doubt:
        effect = doubt[0]["effect"]
        raise LetterRefused(f"Its effect {effect} is in doubt.", cure=f"Look: circuit-script doubt show {effect}")
    if not found:
        raise missing(letter)
    return Letter(**found[0])


def missing(letter: int) -> LetterRefused:
    return LetterRefused(f"There is no dead letter {letter}.", cure="circuit-script dead list --status all shows them.")


async def rows(connection: Connection, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()
