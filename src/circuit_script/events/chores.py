"""When a chore was last done, and what went wrong since: one row of circuit.upkeep each, for `status` and `doctor`."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection

BACKUP = "backup"
MAINTENANCE = "maintenance"
REINDEX = "reindex"

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


async def succeeded(connection: Connection, chore: str, **detail: Any) -> None:
    await connection.execute(_DONE, [chore, Jsonb(detail)])


async def failed(connection: Connection, chore: str, failure: str) -> None:
    await connection.execute(_FAILED, [chore, failure[:2000]])


async def due_in(connection: Connection, chore: str, *, every: float, again: float) -> float:
    """Seconds until the chore is due; 0 when it is, or was never done."""
    row = await (await connection.execute(_DUE, {"chore": chore, "every": every, "again": again})).fetchone()
    assert row is not None  # an aggregate has one row
    return float(row[0])
