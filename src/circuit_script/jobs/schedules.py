"""Schedules: which there are and for whom, when each fires next, and what is taken in when it does.

One fires for each of its tenants by itself. A firing and the advance of its tenant's next one are one transaction, and
the firing's id in the ledger is made of schedule, tenant and moment: by however many workers, it becomes one event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import structlog

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.timing import Due, Schedule, due, jitter_of
from circuit_script.jobs.store import NewJob, body_of, take_in_jobs
from circuit_script.tenants import DEFAULT

BY = "schedule"
BULK = 250  # tenants, and about as many firings, in one transaction: intake waits for it
ANOTHER_LOOK = timedelta(hours=1)
SET_BACK = timedelta(hours=1)  # more than this, and the clock was: what fires next lies too far ahead

KNOWN = "SELECT handler, cron, every, timezone, jitter, catch_up, tenants FROM circuit.schedules FOR UPDATE"
REMOVE = "DELETE FROM circuit.schedules WHERE handler <> ALL(%s)"
PUT = """
INSERT INTO circuit.schedules (handler, cron, every, timezone, jitter, catch_up, tenants)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (handler) DO UPDATE
SET cron = excluded.cron, every = excluded.every, timezone = excluded.timezone, jitter = excluded.jitter,
    catch_up = excluded.catch_up, tenants = excluded.tenants
"""
RESTART = "UPDATE circuit.schedule_tenants SET next_at = %s WHERE handler = %s"
WANTED = """
WITH wanted AS (
    SELECT s.handler, t.tenant FROM circuit.schedules s
    CROSS JOIN LATERAL (
        SELECT k FROM unnest(%(known)s::text[]) AS k WHERE s.tenants IS NULL
        UNION SELECT n FROM unnest(s.tenants) AS n WHERE n = %(default)s OR n = ANY(%(known)s)
    ) AS t (tenant)
)
"""
LEAVE = f"""{WANTED}
DELETE FROM circuit.schedule_tenants t
WHERE NOT EXISTS (SELECT 1 FROM wanted w WHERE w.handler = t.handler AND w.tenant = t.tenant)
"""
JOIN = f"""{WANTED}
INSERT INTO circuit.schedule_tenants (handler, tenant, next_at)
SELECT w.handler, w.tenant, f.next_at FROM wanted w
JOIN unnest(%(handlers)s::text[], %(firsts)s::timestamptz[]) AS f (handler, next_at) ON f.handler = w.handler
WHERE NOT EXISTS (SELECT 1 FROM circuit.schedule_tenants t WHERE t.handler = w.handler AND t.tenant = w.tenant)
"""
MEND = """
UPDATE circuit.schedule_tenants t SET next_at = f.next_at
FROM unnest(%(handlers)s::text[], %(firsts)s::timestamptz[], %(latests)s::timestamptz[]) AS f (handler, next_at, latest)
WHERE t.handler = f.handler AND t.next_at > f.latest
"""
GONE = """
SELECT s.handler, n FROM circuit.schedules s CROSS JOIN LATERAL unnest(s.tenants) AS n
WHERE n <> %s AND n <> ALL(%s) ORDER BY 1, 2
"""
FIRST = "SELECT min(next_at), now() FROM circuit.schedule_tenants"
DUE = """
SELECT t.handler, t.tenant, t.next_at, s.cron, s.every, s.timezone, s.jitter, s.catch_up
FROM circuit.schedule_tenants t JOIN circuit.schedules s ON s.handler = t.handler
WHERE t.next_at <= %s ORDER BY t.next_at LIMIT %s FOR UPDATE OF t SKIP LOCKED
"""
ADVANCE = """
UPDATE circuit.schedule_tenants t
SET next_at = a.next_at, last_at = coalesce(a.last_at, t.last_at), last_job = coalesce(a.last_job, t.last_job),
    skipped = t.skipped + a.skipped
FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::uuid[], %s::bigint[])
     AS a (handler, tenant, next_at, last_at, last_job, skipped)
WHERE t.handler = a.handler AND t.tenant = a.tenant
"""
NOW = "SELECT now()"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fired:
    """What was taken in: the firings of one schedule for one tenant, and how many that were missed were left out."""

    handler: str
    tenant: str
    firings: tuple[datetime, ...]
    skipped: int


async def follow(
    connection: Connection,
    handlers: Iterable[HandlerSpec],
    tenants: Collection[str] = (DEFAULT,),
    moment: datetime | None = None,
) -> None:
    """Let the schedules be those of a release: within the transaction that makes it live.

    One that fires as before keeps its next moment for each tenant, so that a deploy neither repeats nor loses a firing.
    """
    wanted = {each.name: each.job.schedule for each in handlers if each.job and each.job.schedule}
    known = await _known(connection)
    if not wanted and not known:
        return
    moment = moment or await now_of(connection)
    await connection.execute(REMOVE, [list(wanted)])
    for name, schedule in wanted.items():
        names = None if schedule.tenants is None else list(schedule.tenants)
        values = [schedule.cron, schedule.every, schedule.timezone, schedule.jitter, schedule.catch_up, names]
        await connection.execute(PUT, [name, *values])
        if name in known and known[name].shown != schedule.shown:
            await connection.execute(RESTART, [schedule.next_after(moment), name])
    await _spread(connection, wanted, tenants, moment)


async def follow_tenants(connection: Connection, tenants: Collection[str], moment: datetime | None = None) -> None:
    """Let the schedules that stand fire for these tenants from now on. Who came begins with the next firing, and
    who left has none any more. Raises psycopg.Error."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.live IN EXCLUSIVE MODE")  # not while another release goes live
        known = await _known(connection)
        if not known:
            return
        await _spread(connection, known, tenants, moment or await now_of(connection))
        gone = await (await connection.execute(GONE, [DEFAULT, list(tenants)])).fetchall()
    for handler, tenant in gone:
        log.warning("schedule.tenant_gone", handler=handler, tenant=tenant, next="it does not fire for that one")


async def now_of(connection: Connection) -> datetime:
    """The database's clock: the one that all hosts share."""
    found: datetime
    ((found,),) = await (await connection.execute(NOW)).fetchall()
    return found


async def first_of(connection: Connection) -> tuple[datetime | None, datetime]:
    """When the first schedule fires, if any, and the database's clock. Raises psycopg.Error."""
    row: Any = await (await connection.execute(FIRST)).fetchone()
    return row[0], row[1]


async def fire(connection: Connection, moment: datetime, bulk: int = BULK) -> list[Fired]:
    """Take in what is due at ``moment``, of at most ``bulk`` tenants, and advance their schedules, in one transaction.
    What is left is still due: it is for the next call, or for another worker. Raises psycopg.Error."""
    looked = cache(lambda handler, schedule, next_at: _due(handler, schedule, next_at, moment))
    fired: list[Fired] = []
    jobs: list[NewJob] = []
    advances: list[tuple[Any, ...]] = []
    async with connection.transaction():
        for handler, tenant, next_at, *how in await (await connection.execute(DUE, [moment, bulk])).fetchall():
            if len(jobs) >= bulk:
                break
            schedule = Schedule(*how)
            found = looked(handler, schedule, next_at)
            made = [_job(handler, tenant, schedule, firing) for firing in found.firings]
            last_at, last_job = (found.firings[-1], made[-1].id) if made else (None, None)
            advances.append((handler, tenant, found.next_at, last_at, last_job, found.skipped))
            fired.append(Fired(handler, tenant, found.firings, found.skipped))
            jobs += made
        if advances:
            await connection.execute(ADVANCE, [*map(list, zip(*advances, strict=True))])
        if jobs:
            await take_in_jobs(connection, jobs)
    _tell_missed(fired)
    return fired


async def _known(connection: Connection) -> dict[str, Schedule]:
    rows = await (await connection.execute(KNOWN)).fetchall()
    return {
        handler: Schedule(cron, every, timezone, jitter, catch_up, None if tenants is None else tuple(tenants))
        for handler, cron, every, timezone, jitter, catch_up, tenants in rows
    }


async def _spread(
    connection: Connection, schedules: Mapping[str, Schedule], tenants: Collection[str], moment: datetime
) -> None:
    """Each schedule stands for each of its tenants, and for nobody else. One that fired by a clock that was ahead, and
    was set back since, fires again from now on; a firing that was taken in then is known by its id."""
    firsts = [each.next_after(moment) for each in schedules.values()]
    latests = [each.next_after(moment + SET_BACK) for each in schedules.values()]
    places = {"handlers": list(schedules), "firsts": firsts, "latests": latests}
    asked = {"known": list(tenants), "default": DEFAULT, **places}
    for statement in (LEAVE, MEND, JOIN):
        await connection.execute(statement, asked)


def _due(handler: str, schedule: Schedule, next_at: datetime, moment: datetime) -> Due:
    try:
        return due(schedule, next_at, moment)
    except (LookupError, ValueError) as error:  # this host knows no such time zone: the others go on
        log.error("schedule.unreadable", handler=handler, error=str(error), next="another look in an hour")
        return Due((), moment + ANOTHER_LOOK)


def _job(handler: str, tenant: str, schedule: Schedule, firing: datetime) -> NewJob:
    id_: UUID = uuid7()
    moment = firing.isoformat()
    body = body_of(id_, handler, {}, enqueued_by=BY, scheduled_for=moment)
    due_at = firing + jitter_of(schedule, f"{handler} {tenant}", firing) if schedule.jitter else None
    return NewJob(id_, tenant, handler, body, due=due_at, vendor_id=f"{handler} {moment} {tenant}")


def _tell_missed(fired: Iterable[Fired]) -> None:
    missed: defaultdict[str, list[Fired]] = defaultdict(list)
    for each in fired:
        if each.skipped:
            missed[each.handler].append(each)
    for handler, those in missed.items():
        left_out, run = sum(each.skipped for each in those), sum(len(each.firings) for each in those)
        log.warning("schedule.missed", handler=handler, tenants=len(those), left_out=left_out, run=run)
