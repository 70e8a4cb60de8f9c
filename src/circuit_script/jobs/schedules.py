"""Schedules: which there are, when each fires next, and what is taken in when it does.

A firing and the advance of its schedule are one transaction, and the firing's id in the ledger is made of schedule and
moment: by however many workers, it becomes one event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.timing import Due, Schedule, due, jitter_of
from circuit_script.jobs.store import NewJob, body_of, take_in_jobs

TENANT = "default"
BY = "schedule"
ANOTHER_LOOK = timedelta(hours=1)

KNOWN = "SELECT handler, cron, every, timezone, next_at FROM circuit.schedules FOR UPDATE"
REMOVE = "DELETE FROM circuit.schedules WHERE handler <> ALL(%s)"
PUT = """
INSERT INTO circuit.schedules AS s (handler, tenant, cron, every, timezone, jitter, catch_up, next_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (handler) DO UPDATE
SET cron = excluded.cron, every = excluded.every, timezone = excluded.timezone, jitter = excluded.jitter,
    catch_up = excluded.catch_up, next_at = excluded.next_at,
    since = CASE WHEN s.next_at IS DISTINCT FROM excluded.next_at THEN now() ELSE s.since END
"""
FIRST = "SELECT min(next_at), now() FROM circuit.schedules"
DUE = """
SELECT handler, tenant, cron, every, timezone, jitter, catch_up, next_at FROM circuit.schedules
WHERE next_at <= %s ORDER BY next_at FOR UPDATE SKIP LOCKED
"""
ADVANCE = """
UPDATE circuit.schedules
SET next_at = %s, last_at = coalesce(%s, last_at), skipped = skipped + %s WHERE handler = %s
"""
NOW = "SELECT now()"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fired:
    """What was taken in: the firings of one schedule, and how many that were missed were left out."""

    handler: str
    firings: tuple[datetime, ...]
    skipped: int


async def follow(connection: Connection, handlers: Iterable[HandlerSpec], moment: datetime | None = None) -> None:
    """Let the schedules be those of a release: within the transaction that makes it live.

    One that fires as before keeps its next moment, so that a deploy neither repeats nor loses a firing.
    """
    wanted = {each.name: each.job.schedule for each in handlers if each.job and each.job.schedule}
    rows = await (await connection.execute(KNOWN)).fetchall()
    known = {handler: (_fires(cron, every, zone), next_at) for handler, cron, every, zone, next_at in rows}
    if not wanted and not known:
        return
    moment = moment or await now_of(connection)
    await connection.execute(REMOVE, [list(wanted)])
    for name, schedule in wanted.items():
        fires, next_at = known.get(name, ("", None))
        if fires != schedule.shown:
            next_at = schedule.next_after(moment)
        values = [name, TENANT, schedule.cron, schedule.every, schedule.timezone, schedule.jitter, schedule.catch_up]
        await connection.execute(PUT, [*values, next_at])


async def now_of(connection: Connection) -> datetime:
    """The database's clock: the one that all hosts share."""
    found: datetime
    ((found,),) = await (await connection.execute(NOW)).fetchall()
    return found


async def first_of(connection: Connection) -> tuple[datetime | None, datetime]:
    """When the first schedule fires, if any, and the database's clock. Raises psycopg.Error."""
    row: Any = await (await connection.execute(FIRST)).fetchone()
    return row[0], row[1]


async def fire(connection: Connection, moment: datetime) -> list[Fired]:
    """Take in what is due at ``moment`` and advance its schedules, in one transaction. Raises psycopg.Error."""
    async with connection.transaction():
        rows = await (await connection.execute(DUE, [moment])).fetchall()
        fired: list[Fired] = []
        jobs: list[NewJob] = []
        for handler, tenant, cron, every, zone, jitter, catch_up, next_at in rows:
            schedule = Schedule(cron, every, zone, jitter, catch_up)
            try:
                found = due(schedule, next_at, moment)
            except (LookupError, ValueError) as error:  # this host knows no such time zone: the others go on
                log.error("schedule.unreadable", handler=handler, error=str(error), next="another look in an hour")
                found = Due((), moment + ANOTHER_LOOK)
            last = found.firings[-1] if found.firings else None
            await connection.execute(ADVANCE, [found.next_at, last, found.skipped, handler])
            jobs += _jobs(handler, tenant, schedule, found.firings)
            fired.append(Fired(handler, found.firings, found.skipped))
        if jobs:
            await take_in_jobs(connection, jobs)
    for each in fired:
        if each.skipped:
            log.warning("schedule.missed", handler=each.handler, left_out=each.skipped, run=len(each.firings))
    return fired


def _jobs(handler: str, tenant: str, schedule: Schedule, firings: Sequence[datetime]) -> list[NewJob]:
    jobs = []
    for firing in firings:
        id_, moment = uuid7(), firing.isoformat()
        body = body_of(id_, handler, {}, enqueued_by=BY, scheduled_for=moment)
        due_at = firing + jitter_of(schedule, handler, firing) if schedule.jitter else None
        jobs.append(NewJob(id_, tenant, handler, body, due=due_at, vendor_id=f"{handler} {moment}"))
    return jobs


def _fires(cron: str | None, every: float | None, timezone: str) -> str:
    return Schedule(cron, every, timezone).shown
