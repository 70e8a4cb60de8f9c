"""Takes jobs into ledger and queue: the one way in for enqueued, delayed and scheduled ones, and for finalizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.db.binary_arrays import bigints, byteas, smallints, texts, timestamps, uuids
from circuit_script.db.pool import Connection
from circuit_script.effects.order import order_hash
from circuit_script.execution.outcome import JOB
from circuit_script.execution.timing import HORIZON, LONGEST_DELAY

ACCOUNT = "jobs"
DEEPEST = 32_000  # the database keeps 16 bits

TAKE_IN = """
SELECT * FROM circuit.take_in_jobs(
    %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::smallint[], %b::bigint[],
    %b::timestamptz[], %b::text[], %b::interval)
"""
RING = "NOTIFY circuit_queue"
HOLDER = """
SELECT k.job FROM circuit.job_keys k
WHERE k.tenant = %s AND k.name = %s AND k.key = %s AND circuit.holds_key(k)
"""
DUE = """
SELECT id, tenant, name, body, depth, due_at, unique_key, vendor_id FROM circuit.delayed_jobs
WHERE due_at <= now() + %s ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
# take_in's: nobody claims a key meanwhile. Who stands still with it is cut off.
LOCK = "SELECT set_config('idle_in_transaction_session_timeout', '5000', true), pg_advisory_xact_lock(7207418001)"
FREE = "SELECT k.tenant, k.name, k.key FROM circuit.job_keys k WHERE NOT circuit.holds_key(k) LIMIT 1000"
FORGET = """
DELETE FROM circuit.job_keys k USING unnest(%s::text[], %s::text[], %s::text[]) AS f (tenant, name, key)
WHERE k.tenant = f.tenant AND k.name = f.name AND k.key = f.key AND NOT circuit.holds_key(k)
"""
MEANT = """
SELECT id, tenant, name, body, depth, due_at, unique_key, vendor_id FROM circuit.delayed_jobs
WHERE (%(name)s::text IS NULL OR name = %(name)s) AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
AND (%(record)s::text IS NULL OR id::text = %(record)s) ORDER BY id LIMIT %(bulk)s FOR UPDATE
"""
GONE = "DELETE FROM circuit.delayed_jobs WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be taken in. ``vendor_id`` is what it is known by if it comes twice: its id, unless it says another."""

    id: UUID
    tenant: str
    name: str
    body: bytes
    depth: int = 0
    due: datetime | None = None
    unique: str | None = None
    vendor_id: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a job: ``kind`` is queued, later, duplicate or held, and ``id`` its own or its holder's."""

    kind: str
    id: UUID


def body_of(id_: UUID, handler: str, arguments: Mapping[str, Any], **said: Any) -> bytes:
    """What the ledger keeps of a job, and its handler gets. ``said`` is what more ``context.job`` says."""
    job = {"id": str(id_), "name": handler, **{key: value for key, value in said.items() if value is not None}}
    data = {"id": str(id_), "arguments": arguments, "job": job}
    return msgspec.json.encode({"type": f"{JOB}.{handler}", "data": data})


async def take_in_jobs(connection: Connection, jobs: Sequence[NewJob], horizon: timedelta = HORIZON) -> list[Taken]:
    """Commit these, or add them to the transaction that is open; parallel to ``jobs``. What is due later than the
    ``horizon`` waits outside of the queue. Raises psycopg.Error.

    In a transaction it comes last: until the commit, intake waits.
    """
    hashes = [order_hash(job.tenant, str(job.id)) for job in jobs]
    values = (
        uuids([job.id for job in jobs]),
        uuids([uuid7() for _ in jobs]),
        texts([ACCOUNT] * len(jobs)),
        texts([job.tenant for job in jobs]),
        texts([job.vendor_id or str(job.id) for job in jobs]),
        texts([job.name for job in jobs]),
        byteas([job.body for job in jobs]),
        smallints([min(job.depth, DEEPEST) for job in jobs]),
        bigints(hashes),
        timestamps([job.due for job in jobs]),
        texts([job.unique for job in jobs]),
        horizon,
    )
    rows = await (await connection.execute(TAKE_IN, values, binary=True)).fetchall()
    if any(asleep for *_, asleep in rows):
        await connection.execute(RING)
    return [Taken(kind, holder or id_) for id_, kind, holder, _ in rows]


async def holder_of(connection: Connection, tenant: str, name: str, key: str) -> UUID | None:
    """The job that waits or runs with this key. Raises psycopg.Error."""
    row = await (await connection.execute(HOLDER, [tenant, name, key])).fetchone()
    return None if row is None else row[0]


async def take_in_delayed(connection: Connection, bulk: int = 50) -> int:
    """Take to the queue what is due within a minute, in one transaction; how many there were. Raises psycopg.Error."""
    async with connection.transaction():
        rows = await (await connection.execute(DUE, [HORIZON, bulk])).fetchall()
        await _take_in_waiting(connection, rows, HORIZON)
    return len(rows)


async def take_in_meant(connection: Connection, meant: Mapping[str, Any], bulk: int = 50) -> int:
    """Take to the queue what waits of this ``name``, ``tenant`` and ``record``, however far its moment, which it keeps;
    how many there were. Raises psycopg.Error."""
    taken, last = 0, bulk
    while last == bulk:
        async with connection.transaction():
            rows = await (await connection.execute(MEANT, {**meant, "bulk": bulk})).fetchall()
            await _take_in_waiting(connection, rows, 2 * timedelta(seconds=LONGEST_DELAY))
        last = len(rows)
        taken += last
    return taken


async def _take_in_waiting(connection: Connection, rows: Sequence[tuple[Any, ...]], horizon: timedelta) -> None:
    if not rows:
        return
    jobs = [NewJob(id_, tenant, name, bytes(body), *rest) for id_, tenant, name, body, *rest in rows]
    await connection.execute(GONE, [[job.id for job in jobs]])
    await take_in_jobs(connection, jobs, horizon)


async def free_keys(connection: Connection) -> int:
    """Forget the keys of jobs that have ended, at most a thousand; how many. Raises psycopg.Error."""
    free = await (await connection.execute(FREE)).fetchall()  # of many keys; intake does not wait for that
    if not free:
        return 0
    async with connection.transaction():
        await connection.execute(LOCK)
        return (await connection.execute(FORGET, [*map(list, zip(*free, strict=True))])).rowcount
