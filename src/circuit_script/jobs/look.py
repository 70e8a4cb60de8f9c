"""What is to be seen of jobs: which wait or run, and when schedules fire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit_script.db.pool import Connection
from circuit_script.execution.timing import Schedule

MOST = 500  # of each kind that are listed; all are counted

QUEUED = """
SELECT q.record, h.name, q.tenant, q.attempts, q.not_before, q.depth, k.key, o.reason, d.received_at,
       count(*) OVER () AS n
FROM circuit.queue q
JOIN circuit.handlers h ON h.id = q.handler
LEFT JOIN circuit.deliveries d ON d.id = q.delivery
LEFT JOIN circuit.job_keys k ON k.event = q.id
LEFT JOIN LATERAL (
    SELECT o.reason FROM circuit.outcomes o
    WHERE o.delivery = q.delivery AND o.ordinal = q.ordinal AND o.handler = q.handler ORDER BY o.at DESC LIMIT 1) o
  ON q.attempts > 0
WHERE q.object = 'Job' AND (%(tenant)s::text IS NULL OR q.tenant = %(tenant)s)
ORDER BY q.not_before NULLS FIRST, q.id LIMIT %(most)s
"""
DELAYED = """
SELECT j.id::text, j.name, j.tenant, 0, j.due_at, j.depth, j.unique_key, NULL, j.made_at, count(*) OVER () AS n
FROM circuit.delayed_jobs j WHERE %(tenant)s::text IS NULL OR j.tenant = %(tenant)s
ORDER BY j.due_at LIMIT %(most)s
"""
SCHEDULES = """
SELECT s.handler, s.tenant, s.cron, s.every, s.timezone, s.jitter, s.catch_up, s.next_at, s.last_at, s.skipped,
       o.status, o.reason, o.at
FROM circuit.schedules s
LEFT JOIN circuit.handlers h ON h.name = s.handler
LEFT JOIN LATERAL (
    SELECT o.status, o.reason, o.at FROM circuit.seen n
    JOIN circuit.outcomes o ON o.delivery = n.delivery AND o.handler = h.id
    WHERE n.source = 'circuit' AND n.account = 'jobs'
    AND n.vendor_id = s.handler || ' ' || to_char(s.last_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
    ORDER BY o.at DESC LIMIT 1) o ON true
WHERE %(tenant)s::text IS NULL OR s.tenant = %(tenant)s
ORDER BY s.next_at NULLS LAST, s.handler
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that has no end yet. One whose moment has come (``due`` is None or past) runs, or is about to."""

    id: str
    name: str
    tenant: str
    attempts: int
    due: datetime | None
    depth: int
    unique: str | None
    reason: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule, its next firing, and what became of the last one (None while nothing has)."""

    name: str
    tenant: str
    fires: str
    jitter: float
    catch_up: str
    next_at: datetime | None
    last_at: datetime | None
    skipped: int
    status: str | None
    reason: str | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Look:
    """All that ``circuit-script jobs`` shows. ``number`` counts also those that are not listed."""

    number: int
    jobs: tuple[Waiting, ...]
    schedules: tuple[Scheduled, ...]


async def look(connection: Connection, tenant: str | None = None) -> Look:
    """Read it. Raises psycopg.Error."""
    asked = {"tenant": tenant, "most": MOST}
    number = 0
    jobs: list[Waiting] = []
    for statement in (QUEUED, DELAYED):
        rows = await (await connection.execute(statement, asked)).fetchall()
        number += rows[0][-1] if rows else 0
        jobs += [Waiting(*row[:-1]) for row in rows]
    schedules = await (await connection.execute(SCHEDULES, asked)).fetchall()
    return Look(number, tuple(jobs), tuple(map(_scheduled, schedules)))


def _scheduled(row: tuple[Any, ...]) -> Scheduled:
    handler, tenant, cron, every, timezone, jitter, catch_up, *rest = row
    return Scheduled(handler, tenant, Schedule(cron, every, timezone).shown, jitter, catch_up, *rest)
