"""What is to be seen of jobs: which wait or run, and when schedules fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
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
# The delivery of a firing is no older than the firing, but for what two hosts' clocks differ.
SCHEDULES = """
SELECT s.handler, s.tenants, coalesce(n.number, 0), s.cron, s.every, s.timezone, s.jitter, s.catch_up,
       t.tenant, t.next_at, t.last_at, t.skipped, o.status, o.reason, o.at,
       o.status IS NULL AND (e.delivery IS NOT NULL OR EXISTS (
           SELECT 1 FROM circuit.delayed_jobs d WHERE d.id = t.last_job))
FROM circuit.schedules s
LEFT JOIN (SELECT handler, count(*) AS number FROM circuit.schedule_tenants GROUP BY handler) n ON n.handler = s.handler
LEFT JOIN circuit.schedule_tenants t ON t.handler = s.handler
LEFT JOIN LATERAL (
    SELECT e.delivery FROM circuit.events e
    WHERE e.tenant = t.tenant AND e.record = t.last_job::text
    AND e.delivery >= circuit.uuid_floor(t.last_at - interval '1 hour') ORDER BY e.id DESC LIMIT 1) e ON true
LEFT JOIN LATERAL (
    SELECT o.status, o.reason, o.at FROM circuit.outcomes o
    WHERE o.delivery = e.delivery ORDER BY o.at DESC LIMIT 1) o ON true
WHERE %(tenant)s::text IS NULL OR t.tenant = %(tenant)s
ORDER BY s.handler, t.tenant
"""
WAITS = "waits"
TROUBLE = ("dead", "retry", "cancelled", WAITS)  # which of the ends of a firing is told first


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
    """A schedule, for whom it fires (``tenants`` is "all" or names, ``fires_for`` how many there are of them now), its
    next firing, and what became of each tenant's last one.

    ``ended`` counts tenants by status; those of whom nothing is known (it never fired, or too long ago) are left out.
    ``status`` is the worst of them; ``reason`` and ``ended_at`` are those of one that has it.
    """

    name: str
    tenants: str | tuple[str, ...]
    fires_for: int
    fires: str
    jitter: float
    catch_up: str
    next_at: datetime | None
    last_at: datetime | None
    skipped: int
    ended: Mapping[str, int]
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
    rows = await (await connection.execute(SCHEDULES, asked)).fetchall()
    schedules = [_scheduled(list(each)) for _, each in groupby(rows, key=lambda row: row[0])]
    schedules.sort(key=lambda each: (each.next_at is None, each.next_at, each.name))
    return Look(number, tuple(jobs), tuple(schedules))


def _scheduled(rows: Sequence[tuple[Any, ...]]) -> Scheduled:
    """Of one row for each tenant, or of one without."""
    handler, tenants, number, cron, every, timezone, jitter, catch_up, *_ = rows[0]
    each_of = [_Turn(*row[8:]) for row in rows if row[8] is not None]
    ends = [each for each in each_of if each.end is not None]
    worst = min(ends, key=lambda each: _badness(each.end), default=_NOBODY)
    return Scheduled(
        name=handler,
        tenants="all" if tenants is None else tuple(tenants),
        fires_for=number,
        fires=Schedule(cron, every, timezone).shown,
        jitter=jitter,
        catch_up=catch_up,
        next_at=min((each.next_at for each in each_of if each.next_at is not None), default=None),
        last_at=max((each.last_at for each in each_of if each.last_at is not None), default=None),
        skipped=sum(each.skipped for each in each_of),
        ended=dict(Counter(each.end for each in ends if each.end is not None)),
        status=worst.end,
        reason=worst.reason,
        ended_at=worst.ended_at,
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """A schedule of one tenant."""

    tenant: str = ""
    next_at: datetime | None = None
    last_at: datetime | None = None
    skipped: int = 0
    status: str | None = None
    reason: str | None = None
    ended_at: datetime | None = None
    waits: bool = False

    @property
    def end(self) -> str | None:
        return WAITS if self.waits else self.status


_NOBODY = _Turn()


def _badness(end: str | None) -> int:
    return TROUBLE.index(end) if end in TROUBLE else len(TROUBLE)
