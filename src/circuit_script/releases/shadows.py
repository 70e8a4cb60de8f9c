"""Shadows: a release that is not live runs on what live executions were given; what it would have done is compared.

One shadow is open at a time. Any worker takes recordings of the live release, each of them once: its claim is the
comparison's row. What a worker has taken that is gone, another takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseRefused
from circuit_script.releases.moving import DEPLOY, Move, go_live
from circuit_script.releases.store import ReleaseRow

SAME, DIFFERENT, INCOMPARABLE = "same", "different", "incomparable"
PROMOTED, STOPPED, TIME_UP = "promoted", "stopped", "its time is up"
COMING = "no worker has it ready yet"
STALE = timedelta(minutes=15)  # after which what somebody has taken is taken again, although they live
LATE = timedelta(minutes=15)  # how long ago an execution may have begun whose recording comes now
FULL = timedelta(days=36500)

COLUMNS = """
SELECT s.id, s.release, s.against, coalesce(r.version, left(r.content_hash, 12)),
       coalesce(a.version, left(a.content_hash, 12)), s.opened_at, s.by_whom, s.message, s.sample, s.until,
       s.promote_below, s.least, s.note, s.skipped_sample, s.skipped_rate, s.skipped_size, s.closed_at, s.closed_why,
       (s.against IS NOT DISTINCT FROM circuit.live_release()), coalesce(s.until <= clock_timestamp(), false)
FROM circuit.shadows s JOIN circuit.releases r ON r.id = s.release JOIN circuit.releases a ON a.id = s.against
"""
OPEN = f"{COLUMNS} WHERE s.closed_at IS NULL"
LAST = f"{COLUMNS} ORDER BY s.id DESC LIMIT 1"
ONE = f"{COLUMNS} WHERE s.id = %s"
MAKE = """
INSERT INTO circuit.shadows (release, against, by_whom, message, sample, until, promote_below, least, note)
VALUES (%(release)s, %(against)s, %(by)s, %(message)s, %(sample)s, clock_timestamp() + %(span)s, %(below)s, %(least)s,
        %(note)s)
RETURNING id
"""
LIVE = "SELECT circuit.live_release()"
CLOSE = """
UPDATE circuit.shadows SET closed_at = clock_timestamp(), closed_why = %s WHERE id = %s AND closed_at IS NULL
RETURNING id
"""
SKIPPED = """
UPDATE circuit.shadows SET skipped_sample = skipped_sample + %s, skipped_rate = skipped_rate + %s,
                           skipped_size = skipped_size + %s
WHERE id = %s
"""
NOTE = "UPDATE circuit.shadows SET note = %s WHERE id = %s AND note <> %s"
# The primary key lets nobody take what another has.
TAKE = """
INSERT INTO circuit.comparisons (shadow, execution, worker, tenant, handler, records)
SELECT s.id, r.execution, %(worker)s, r.tenant, r.handler, greatest(r.records, 1)
FROM circuit.shadows s JOIN circuit.recordings r ON r.release = s.against
WHERE s.id = %(shadow)s AND s.closed_at IS NULL
  AND r.execution >= circuit.uuid_floor(greatest(s.opened_at, clock_timestamp() - %(back)s))
  AND NOT EXISTS (SELECT FROM circuit.comparisons c WHERE c.shadow = s.id AND c.execution = r.execution)
ORDER BY r.execution LIMIT %(limit)s
ON CONFLICT DO NOTHING
RETURNING execution
"""
TAKE_AGAIN = """
UPDATE circuit.comparisons c SET worker = %(worker)s, taken_at = clock_timestamp()
FROM (SELECT shadow, execution FROM circuit.comparisons
      WHERE shadow = %(shadow)s AND state = 'taken'
        AND (worker = %(worker)s OR taken_at < clock_timestamp() - %(stale)s
             OR NOT EXISTS (SELECT FROM circuit.workers w WHERE w.id = worker AND w.expires_at > clock_timestamp()))
      ORDER BY execution LIMIT %(limit)s FOR UPDATE SKIP LOCKED) old
WHERE c.shadow = old.shadow AND c.execution = old.execution
RETURNING c.execution
"""
# What differs is not kept once the recording is gone: somebody of its tenant may have been forgotten meanwhile. Who is
# just forgetting one is waited for. Of what is not comparable all records are: who could not read it knows no number.
SETTLE = """
WITH kept AS (SELECT execution FROM circuit.recordings WHERE execution = %(execution)s FOR KEY SHARE)
UPDATE circuit.comparisons SET state = %(state)s, different = least(%(different)s, records),
    incomparable = CASE WHEN %(state)s = 'incomparable' THEN records ELSE 0 END,
    live_ms = %(live_ms)s, shadow_ms = %(shadow_ms)s, live_cost = %(live_cost)s, shadow_cost = %(shadow_cost)s,
    live_calls = %(live_calls)s, shadow_calls = %(shadow_calls)s,
    differences = CASE WHEN %(public)s OR EXISTS (SELECT FROM kept) THEN %(differences)s::jsonb ELSE '[]' END
WHERE shadow = %(shadow)s AND execution = %(execution)s AND worker = %(worker)s AND state = 'taken'
RETURNING execution
"""
GIVE_BACK = "DELETE FROM circuit.comparisons WHERE shadow = %s AND worker = %s AND state = 'taken'"
AT_WORK = """
SELECT EXISTS (SELECT FROM circuit.comparisons WHERE shadow = s.id AND state = 'taken') OR EXISTS (
    SELECT FROM circuit.recordings r WHERE r.release = s.against AND r.execution >= circuit.uuid_floor(s.opened_at)
      AND NOT EXISTS (SELECT FROM circuit.comparisons c WHERE c.shadow = s.id AND c.execution = r.execution))
FROM circuit.shadows s WHERE s.id = %s
"""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate (``release``) beside what was live when it was opened (``against``). ``promote_below`` is the share
    of records that may differ for it to go live by itself, once ``least`` were compared. ``note`` says why nothing is
    compared. ``on_live`` says whether ``against`` is still live, ``over`` that its time is up."""

    id: int
    release: int
    against: int
    name: str
    against_name: str
    opened: datetime
    by: str
    message: str
    sample: float
    until: datetime | None
    promote_below: float | None
    least: int
    note: str
    skipped_sample: int
    skipped_rate: int
    skipped_size: int
    closed: datetime | None
    closed_why: str | None
    on_live: bool
    over: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of one comparison. ``different`` counts records; calls are those of models and callouts. ``public``:
    nothing of a person is in ``differences``."""

    state: str
    different: int = 0
    live_ms: float | None = None
    shadow_ms: float | None = None
    live_cost: float = 0.0
    shadow_cost: float = 0.0
    live_calls: int = 0
    shadow_calls: int = 0
    differences: Sequence[Sequence[Any]] = ()
    public: bool = False


async def open_shadow(
    connection: Connection,
    release: ReleaseRow,
    *,
    by: str,
    message: str = "",
    sample: float = 1.0,
    span: timedelta | None = None,
    promote_below: float | None = None,
    least: int = 100,
) -> Shadow:
    """Compare it with what is live from now on, for ``span`` or until somebody says so. Raises ReleaseRefused where
    nothing is live, it is live itself, or another shadow is open."""
    row = await (await connection.execute(LIVE)).fetchone()
    against = row[0] if row else None
    if against is None:
        raise ReleaseRefused("Nothing is live that it could be compared with.", cure="circuit-script deploy")
    if against == release.id:
        raise ReleaseRefused(f"{release.name} is live: it would be compared with itself.", cure="Change the app first.")
    values = {"release": release.id, "against": against, "by": by, "message": message, "sample": sample, "note": COMING}
    try:
        async with connection.transaction():
            made = await connection.execute(MAKE, {**values, "span": span, "below": promote_below, "least": least})
            row = await made.fetchone()
    except psycopg.errors.UniqueViolation:
        there = await current(connection)
        name = "Another release" if there is None else there.name
        cure = "See it: circuit-script shadow. End it: circuit-script shadow stop"
        raise ReleaseRefused(f"{name} is compared already, one at a time.", cure=cure) from None
    assert row is not None
    return await _one(connection, row[0])


async def current(connection: Connection) -> Shadow | None:
    """The open shadow. Raises psycopg.Error."""
    row = await (await connection.execute(OPEN)).fetchone()
    return None if row is None else Shadow(*row)


async def latest(connection: Connection) -> Shadow | None:
    """The shadow that was opened last, open or not. Raises psycopg.Error."""
    row = await (await connection.execute(LAST)).fetchone()
    return None if row is None else Shadow(*row)


async def claim(connection: Connection, shadow: Shadow, worker: UUID, limit: int, *, whole: bool = False) -> list[UUID]:
    """Executions that this worker is to compare, and no other; of the last minutes, or of the ``whole`` shadow. It asks
    when it has none: what it had taken, it has lost."""
    values: dict[str, Any] = {"shadow": shadow.id, "worker": worker, "limit": limit, "stale": STALE}
    values["back"] = FULL if whole else LATE
    found = [id_ for (id_,) in await (await connection.execute(TAKE, values)).fetchall()]
    if not found:
        found = [id_ for (id_,) in await (await connection.execute(TAKE_AGAIN, values)).fetchall()]
    return sorted(found)


async def settle(connection: Connection, shadow: Shadow, worker: UUID, execution: UUID, settled: Settled) -> bool:
    """Note what came of it; False where another worker has taken it meanwhile."""
    values = {
        "shadow": shadow.id, "worker": worker, "execution": execution, "state": settled.state,
        "different": settled.different, "public": settled.public,
        "live_ms": settled.live_ms, "shadow_ms": settled.shadow_ms,
        "live_cost": settled.live_cost, "shadow_cost": settled.shadow_cost,
        "live_calls": settled.live_calls, "shadow_calls": settled.shadow_calls,
        "differences": Jsonb(list(settled.differences)),
    }  # fmt: skip
    return await (await connection.execute(SETTLE, values)).fetchone() is not None


async def give_back(connection: Connection, shadow: Shadow, worker: UUID) -> None:
    """Leave to others what this worker has taken and not compared."""
    await connection.execute(GIVE_BACK, [shadow.id, worker])


async def is_at_work(connection: Connection, shadow: Shadow) -> bool:
    """Whether there is something that is not compared yet, taken by a worker or not."""
    row = await (await connection.execute(AT_WORK, [shadow.id])).fetchone()
    return bool(row and row[0])


async def add_skipped(connection: Connection, shadow: Shadow, sample: int, rate: int, size: int) -> None:
    """Count executions that were not recorded."""
    await connection.execute(SKIPPED, [sample, rate, size, shadow.id])


async def note(connection: Connection, shadow: Shadow, said: str) -> None:
    """Say why nothing is compared; an empty text: it is."""
    await connection.execute(NOTE, [said[:2000], shadow.id, said[:2000]])


async def close(connection: Connection, shadow: Shadow, why: str) -> bool:
    """End it; False where somebody has ended it already."""
    return await (await connection.execute(CLOSE, [why, shadow.id])).fetchone() is not None


async def promote(
    connection: Connection, shadow: Shadow, *, by: str, reason: str = "", watch: timedelta | None = None
) -> Move:
    """Take the candidate live, with the usual watch, and end the shadow: both or none. Raises ReleaseRefused where it
    is closed, or another release went live meanwhile."""
    async with connection.transaction():
        if not await close(connection, shadow, PROMOTED):
            cure = "circuit-script shadow says why."
            raise ReleaseRefused(f"The shadow of {shadow.name} is closed.", cure=cure)
        return await go_live(
            connection, shadow.release, kind=DEPLOY, by=by, reason=reason, watch=watch, expected=shadow.against
        )


async def _one(connection: Connection, shadow: int) -> Shadow:
    row = await (await connection.execute(ONE, [shadow])).fetchone()
    assert row is not None
    return Shadow(*row)
