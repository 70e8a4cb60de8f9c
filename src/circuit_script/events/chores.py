"""When a chore was last done, and what went wrong since: one row of circuit.upkeep each, for `status` and `doctor`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection

BACKUP = "backup"
MAINTENANCE = "maintenance"
REINDEX = "reindex"
GUARDIAN = "guardian"  # what concerns all hosts; "guardian HOST" is a host's own

_DONE = """
INSERT INTO circuit.upkeep AS u (chore, succeeded_at, detail) VALUES (%s, now(), %s)
ON CONFLICT (chore) DO UPDATE
SET succeeded_at = excluded.succeeded_at, failed_at = NULL, failure = NULL, detail = excluded.detail
"""
_FAILED = """
INSERT INTO circuit.upkeep AS u (chore, failed_at, failure) VALUES (%s, now(), %s)
ON CONFLICT (chore) DO UPDATE SET failed_at = excluded.failed_at, failure = excluded.failure
"""
# Seconds until it is due: `every` after it succeeded, and after a failure no earlier than `again`.
_DUE = """
SELECT greatest(0, extract(epoch FROM greatest(
    coalesce(max(succeeded_at) + make_interval(secs => %(every)s), '-infinity'),
    coalesce(max(failed_at) + make_interval(secs => %(again)s), '-infinity'), now()) - now()))::float8
FROM circuit.upkeep WHERE chore = %(chore)s
"""

_DONE_AT = "SELECT succeeded_at FROM circuit.upkeep WHERE chore = %s"
_NOTES = """
SELECT chore, succeeded_at, detail FROM circuit.upkeep
WHERE (chore = %(chore)s OR starts_with(chore, %(chore)s || ' '))
AND succeeded_at > now() - make_interval(secs => %(s)s) ORDER BY chore
"""
_OLD_NOTES = """
DELETE FROM circuit.upkeep
WHERE starts_with(chore, %(chore)s || ' ') AND greatest(succeeded_at, failed_at) < now() - make_interval(secs => %(s)s)
"""


async def succeeded(connection: Connection, chore: str, **detail: Any) -> None:
    await connection.execute(_DONE, [chore, Jsonb(detail)])


async def failed(connection: Connection, chore: str, failure: str) -> None:
    await connection.execute(_FAILED, [chore, failure[:2000]])


async def due_in(connection: Connection, chore: str, *, every: float, again: float) -> float:
    """Seconds until the chore is due; 0 when it is, or was never done."""
    row = await (await connection.execute(_DUE, {"chore": chore, "every": every, "again": again})).fetchone()
    assert row is not None  # an aggregate has one row
    return float(row[0])


async def done_at(connection: Connection, chore: str) -> datetime | None:
    """When the chore last succeeded."""
    row = await (await connection.execute(_DONE_AT, [chore])).fetchone()
    return row[0] if row else None


async def notes_of(connection: Connection, chore: str, seconds: float) -> dict[str, dict[str, Any]]:
    """What the chore, and what is called after it (``"chore …"``), noted within so many seconds."""
    rows = await (await connection.execute(_NOTES, {"chore": chore, "s": seconds})).fetchall()
    return {name: detail for name, _, detail in rows}


async def drop_notes(connection: Connection, chore: str, seconds: float) -> None:
    """Forget what is called after the chore and was not done for so many seconds: hosts come and go."""
    await connection.execute(_OLD_NOTES, {"chore": chore, "s": seconds})
