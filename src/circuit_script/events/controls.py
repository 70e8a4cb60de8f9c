"""What a person may stop: which rows of the queue and which effects it means, and how they are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.effects.settle import Settled, order_of
from circuit_script.errors import ControlRefused
from circuit_script.events.finalizers import FINALIZE as FINALIZE_JOB
from circuit_script.events.finalizers import told_of
from circuit_script.execution.outcome import JOB, JOBS
from circuit_script.tenants.pauses import CHANNEL, Kind, shown

CHUNK = 1000  # rows of one transaction
AGAIN = 0.05  # seconds after a deadlock with a worker

HANDLERS = "SELECT id, name FROM circuit.handlers ORDER BY name"
# What somebody has paused stays paused, also where that was meanwhile. Of two who cancel the same, the one who began
# last ends the pause: when that one is done, nothing is left for the first. Who is interrupted ends none.
CANCELLING = "it is being cancelled"
HOLD = f"""
INSERT INTO circuit.pauses AS p (kind, value, tenant, reason, by_whom) VALUES (%s, %s, %s, '{CANCELLING}', %s)
ON CONFLICT (kind, value, tenant) DO UPDATE SET by_whom = excluded.by_whom, at = clock_timestamp()
WHERE p.reason = '{CANCELLING}' RETURNING p.id, p.at
"""
LET_GO = f"DELETE FROM circuit.pauses WHERE id = %s AND at = %s AND reason = '{CANCELLING}'"
NEWEST = "SELECT coalesce(max(id), 0), (SELECT release FROM circuit.live) FROM circuit.queue"
MEANT = """(%(handler)s::smallint IS NULL OR handler = %(handler)s)
AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) AND (%(record)s::text IS NULL OR record = %(record)s)"""
# A job whose moment is far has no row in the queue yet.
COUNT = f"""
SELECT (SELECT count(*) FROM circuit.queue WHERE {MEANT}) + (SELECT count(*) FROM circuit.delayed_jobs
WHERE (%(name)s::text IS NULL OR name = %(name)s) AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
AND (%(record)s::text IS NULL OR id::text = %(record)s))
"""
TAKE = f"""
WITH chosen AS MATERIALIZED (
    SELECT id, handler FROM circuit.queue WHERE id >= %(after)s AND id <= %(newest)s AND {MEANT}
    ORDER BY id, handler LIMIT {CHUNK} FOR UPDATE)
DELETE FROM circuit.queue q USING chosen c WHERE q.id = c.id AND q.handler = c.handler
RETURNING q.id, q.handler, q.tenant, q.object, q.event, q.delivery, q.ordinal, q.lane, q.order_hash, q.record,
          q.attempts, q.depth
"""
FINALIZERS = """
SELECT h.id, m -> 'job' ->> 'finalizer' FROM circuit.live l JOIN circuit.releases r ON r.id = l.release,
       jsonb_array_elements(r.manifest) AS m JOIN circuit.handlers h ON h.name = m ->> 'name'
WHERE jsonb_typeof(m -> 'job') = 'object' AND m -> 'job' ->> 'finalizer' IS NOT NULL
"""
FINALIZE = """
INSERT INTO circuit.effects
    (id, tenant, execution, release, lane, order_hash, connector, operation, target, record, payload, depth)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
EXECUTIONS = """
INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason, started_at, usage)
SELECT x.id, x.tenant, %s, x.handler, x.object, x.event, x.records, 'cancelled', %s, now(), '{}'
FROM unnest(%s::uuid[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::smallint[])
     AS x (id, tenant, handler, object, event, records)
"""
OUTCOMES = """
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
SELECT o.delivery, o.ordinal, o.handler, o.execution, o.tenant, 'cancelled', %s
FROM unnest(%s::uuid[], %s::smallint[], %s::smallint[], %s::uuid[], %s::text[])
     AS o (delivery, ordinal, handler, execution, tenant)
ON CONFLICT DO NOTHING  -- an event and its replay, both waiting
"""
# What must not be repeated blindly and is on its way to its vendor (or may have got there) is not ours to take back: it
# ends by its answer, and nothing leaves after it. The others do not leave again; if one of them is on its way, and its
# vendor does it, its answer will say so. Two who cancel the same wait for each other, and each row is counted once.
EFFECTS = """FROM circuit.effects WHERE status = 'pending' AND connector = %(connector)s
AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"""
COUNT_EFFECTS = f"SELECT count(*) {EFFECTS} AND left_at IS NULL"
COUNT_LEAVING = f"SELECT count(*) {EFFECTS} AND cancelled"
DISCARD = f"""
WITH chosen AS MATERIALIZED (
    SELECT id {EFFECTS} AND NOT cancelled ORDER BY id LIMIT {CHUNK} FOR UPDATE)
UPDATE circuit.effects e
SET status = CASE WHEN e.left_at IS NULL THEN 'discarded' ELSE e.status END, cancelled = e.left_at IS NOT NULL,
    settled_at = CASE WHEN e.left_at IS NULL THEN now() END, settled_by = %(by)s, note = %(reason)s
FROM chosen c WHERE e.id = c.id RETURNING e.id, e.status = 'discarded'
"""
RESOLVE = "SELECT circuit.resolve(%s::uuid[])"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is meant: ``value`` names it (empty for everything), ``tenant`` bounds it to one tenant."""

    kind: Kind
    value: str = ""
    tenant: str | None = None
    handler: int | None = None  # of a trigger, once it was looked up

    @property
    def shown(self) -> str:
        return shown(self.kind, self.value, self.tenant)

    def meant(self) -> dict[str, Any]:
        """The parameters of what looks for it."""
        return {
            "handler": self.handler,
            "name": self.value if self.kind == "trigger" else None,
            "tenant": self.value if self.kind == "tenant" else self.tenant,
            "record": self.value if self.kind == "record" else None,
            "connector": self.value,
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that was taken out of the queue."""

    id: int
    handler: int
    tenant: str
    object: str
    event: str
    delivery: UUID
    ordinal: int
    lane: int
    order_hash: int
    record: str
    attempts: int
    depth: int

    @property
    def kind(self) -> tuple[str, int, str, str]:
        return self.tenant, self.handler, self.object, self.event

    def ended(self, reason: str) -> Settled:
        return Settled(
            self.id, self.handler, self.lane, self.delivery, self.ordinal, self.tenant, self.record, "cancelled",
            self.attempts, self.order_hash, reason,
        )  # fmt: skip


async def found(connection: Connection, selection: Selection) -> Selection:
    """The selection with the full name of its trigger. Raises ControlRefused where there is none, or several."""
    if selection.kind != "trigger":
        return selection
    handlers = await (await connection.execute(HANDLERS)).fetchall()
    exact = [(id_, name) for id_, name in handlers if name == selection.value]
    meant = exact or [(id_, name) for id_, name in handlers if name.endswith(f".{selection.value}")]
    if len(meant) == 1:
        return replace(selection, handler=meant[0][0], value=meant[0][1])
    if meant:
        names = ", ".join(name for _, name in meant)
        raise ControlRefused(f"{selection.value!r} could be {names}.", cure="Write the whole name.")
    near = get_close_matches(selection.value, [name for _, name in handlers], n=1)
    cure = f"Did you mean {near[0]!r}?" if near else "circuit-script limits shows the app's handlers."
    raise ControlRefused(f"There is no trigger {selection.value!r}.", cure=cure)


async def waiting(connection: Connection, selection: Selection) -> int:
    """How many events of it are in the queue, and jobs that wait for their moment; of a connector, how many effects
    wait."""
    statement = COUNT_EFFECTS if selection.kind == "connector" else COUNT
    row = await (await connection.execute(statement, selection.meant())).fetchone()
    return int(row[0]) if row else 0


async def leaving(connection: Connection, selection: Selection) -> int:
    """How many effects of a connector were on their way when they were cancelled, and have no answer yet."""
    row = await (await connection.execute(COUNT_LEAVING, selection.meant())).fetchone()
    return int(row[0]) if row else 0


async def cancel(
    connection: Connection, selection: Selection, *, reason: str, by: str, told: Callable[[int], None] = lambda _: None
) -> int:
    """Take everything of it that is in the queue now out of it, for good; how many rows that were.

    Nothing of it starts meanwhile. What runs is fenced: its row is gone, so its result does not count. ``told`` gets
    the number after each transaction, the first of which pauses it: 0. What a connector still has to deliver is
    discarded; what is on its way ends by its vendor's answer (`leaving` counts it), and is not sent again. If it is
    interrupted, the rest of it stays paused.
    """
    words = f"cancelled by {by}" + (f": {reason}" if reason else "")
    mine = await _pauses(connection, HOLD, [selection.kind, selection.value, selection.tenant, by])
    done = 0
    told(done)
    chunks = _effects if selection.kind == "connector" else _rows
    async for size in chunks(connection, selection, words, by):
        done += size
        told(done)
    if mine is not None:
        await _pauses(connection, LET_GO, mine)
    return done


async def _pauses(connection: Connection, statement: str, values: Sequence[Any]) -> Sequence[Any] | None:
    async with connection.transaction():
        cursor = await connection.execute(statement.encode(), values)
        await connection.execute(f"NOTIFY {CHANNEL}")
        return await cursor.fetchone() if cursor.description else None


async def _rows(connection: Connection, selection: Selection, words: str, _: str) -> AsyncIterator[int]:
    row = await (await connection.execute(NEWEST)).fetchone()
    newest, release = row if row is not None else (0, None)
    values = {**selection.meant(), "after": 0, "newest": newest}
    while True:
        try:
            async with connection.transaction():
                taken = [Taken(*row) for row in await (await connection.execute(TAKE, values)).fetchall()]
                await _keep(connection, taken, release or 0, words)
        except psycopg.errors.DeadlockDetected:
            await asyncio.sleep(AGAIN)
            continue
        if taken:
            yield len(taken)
        if len(taken) < CHUNK:
            return
        values["after"] = max(each.id for each in taken)


async def _keep(connection: Connection, taken: Sequence[Taken], release: int, words: str) -> None:
    """Their outcome, so that they can be found and replayed; and the finalizers of jobs."""
    groups: dict[tuple[str, int, str, str], list[Taken]] = {}
    for each in taken:
        groups.setdefault(each.kind, []).append(each)
    ids: dict[tuple[str, int, str, str], UUID] = {key: uuid7() for key in groups}
    heads = [(ids[key], *key, len(rows)) for key, rows in groups.items()]
    executions = zip(*heads, strict=True) if heads else ([], [], [], [], [], [])
    await connection.execute(EXECUTIONS, [release, words, *map(list, executions)])
    rows = [(each.delivery, each.ordinal, each.handler, ids[each.kind], each.tenant) for each in taken]
    outcomes = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    await connection.execute(OUTCOMES, [words, *map(list, outcomes)])
    if jobs := [each for each in taken if each.object == JOB]:
        await _finalize(connection, [(each, ids[each.kind]) for each in jobs], release, words)


async def _finalize(connection: Connection, jobs: Sequence[tuple[Taken, UUID]], release: int, words: str) -> None:
    names: dict[int, str] = dict(await (await connection.execute(FINALIZERS)).fetchall())
    sends = []
    for job, execution in jobs:
        if (name := names.get(job.handler)) is not None:
            told = told_of(job.ended(words), job.event, execution, job.depth)
            id_ = uuid7()
            send = (id_, job.tenant, execution, release, job.lane, order_of(id_), JOBS, FINALIZE_JOB, name, job.record)
            sends.append((*send, Jsonb(told), job.depth + 1))
    async with connection.cursor() as cursor:
        await cursor.executemany(FINALIZE, sends)


async def _effects(connection: Connection, selection: Selection, words: str, by: str) -> AsyncIterator[int]:
    values = {**selection.meant(), "by": by, "reason": words}
    while True:
        try:
            async with connection.transaction():
                found = await (await connection.execute(DISCARD, values)).fetchall()
                gone = [id_ for id_, discarded in found if discarded]
                await connection.execute(RESOLVE, [gone])
        except psycopg.errors.DeadlockDetected:
            await asyncio.sleep(AGAIN)
            continue
        if gone:
            yield len(gone)
        if len(found) < CHUNK:
            return
