"""The replays of a database: begun, held, ended, and what became of each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.binary_arrays import bigints, smallints, texts, uuids
from circuit_script.db.pool import Connection
from circuit_script.errors import ReplayRefused
from circuit_script.events.replay.choosing import Choice, check_text

CHANNEL = "circuit_replays"
RATE = 200  # items a second
AGAIN = 0.05  # seconds after a deadlock
NOTIFY = f"NOTIFY {CHANNEL}"

# Nobody waits any more for those whose command was ended while it still chose. One of which anything waits stays,
# however old: it alone says through which release that runs.
SWEEP = """
WITH gone AS (
    DELETE FROM circuit.replays r
    WHERE ((status IN ('done', 'cancelled', 'failed') AND ended_at < now() - interval '30 days')
       OR (status = 'choosing' AND at < now() - interval '1 day'))
      AND NOT EXISTS (SELECT FROM circuit.queue q WHERE q.replay = r.id) RETURNING id)
DELETE FROM circuit.replay_items i USING gone WHERE i.replay = gone.id
"""
BEGIN = """
INSERT INTO circuit.replays (id, status, filter, by_whom, rate, release) VALUES (%s, 'choosing', %s, %s, %s, %s)
"""
ADD = """
WITH added AS (
    INSERT INTO circuit.replay_items (replay, past, handler, delivery, ordinal, tenant)
    SELECT %b::uuid, * FROM unnest(%b::bigint[], %b::smallint[], %b::uuid[], %b::smallint[], %b::text[])
    ON CONFLICT DO NOTHING RETURNING 1)
UPDATE circuit.replays SET chosen = chosen + (SELECT count(*) FROM added) WHERE id = %b::uuid
"""
RUN = "UPDATE circuit.replays SET status = 'running' WHERE id = %s AND status = ANY(%s) RETURNING id"
PAUSE = "UPDATE circuit.replays SET status = 'paused' WHERE id = %s AND status = 'running' RETURNING id"
CANCEL = """
UPDATE circuit.replays SET status = 'cancelled', ended_at = now()
WHERE id = %s AND status NOT IN ('done', 'cancelled', 'failed') RETURNING id
"""
# What waits of one that was cancelled meanwhile cannot run either.
FAIL = """
WITH failed AS (
    UPDATE circuit.replays SET status = 'failed', reason = %(why)s, ended_at = now()
    WHERE release = %(release)s AND status IN ('running', 'paused') RETURNING id)
SELECT id FROM failed UNION
SELECT q.replay FROM circuit.queue q JOIN circuit.replays r ON r.id = q.replay WHERE r.release = %(release)s
"""
# A row that is being settled in this moment is waited for: it may stay, for its next attempt. A dead letter that was
# closed as its event was put back is open again: nothing has come of it.
TAKE_OFF = """
WITH gone AS (
    DELETE FROM circuit.queue q USING (
        SELECT id, handler FROM circuit.queue WHERE replay = %(id)s ORDER BY id, handler FOR UPDATE) AS w
    WHERE q.id = w.id AND q.handler = w.handler RETURNING q.id, q.past, q.handler, q.delivery),
opened AS (
    UPDATE circuit.dead_letters l SET status = 'open', by = NULL, closed_at = NULL, again = NULL FROM gone g
    WHERE l.delivery = g.delivery AND l.handler = g.handler AND l.again = g.id AND l.status = 'retried'),
counted AS (UPDATE circuit.replays SET fed = fed - (SELECT count(*) FROM gone) WHERE id = %(id)s)
UPDATE circuit.replay_items i SET skipped = %(why)s FROM gone g
WHERE i.replay = %(id)s AND i.past = g.past AND i.handler = g.handler
"""
FIND = "SELECT id, status FROM circuit.replays WHERE id::text LIKE %s || '%%' ORDER BY at DESC LIMIT 2"
LOOK = """
SELECT r.id, r.status, r.filter, r.by_whom, r.at, r.ended_at, r.rate, r.chosen, r.fed, r.skipped,
       (SELECT count(*) FROM circuit.queue q WHERE q.replay = r.id), r.release, r.reason
FROM circuit.replays r
"""
ONE = f"{LOOK} WHERE r.id = %s"
LATEST = f"{LOOK} ORDER BY r.at DESC LIMIT %s"
WORKERS = "SELECT EXISTS (SELECT FROM circuit.workers WHERE expires_at > now())"
# The latest outcome of what was fed and waits no more is that of the replay, or of what was done about it since.
BECAME = """
SELECT i.became, count(*) FROM (
    SELECT CASE WHEN i.skipped IS NOT NULL THEN i.skipped
                WHEN i.event IS NULL THEN 'not begun'
                WHEN EXISTS (SELECT FROM circuit.queue q WHERE q.id = i.event AND q.handler = i.handler) THEN 'waiting'
                ELSE coalesce(latest.status, 'gone') END AS became
    FROM circuit.replay_items i
    LEFT JOIN LATERAL (
        SELECT o.status FROM circuit.outcomes o
        WHERE o.delivery = i.delivery AND o.ordinal = i.ordinal AND o.handler = i.handler
        ORDER BY o.execution DESC LIMIT 1) AS latest ON true
    WHERE i.replay = %s) AS i
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay. Of ``chosen`` items ``fed`` were put back on the queue, where ``waiting`` still are (what its end has
    taken off again is in neither); ``skipped`` are those that could not be put back any more. ``rate`` is in items a
    second, ``release`` the recorded one through which it goes, None for the live one, and ``reason`` why it failed."""

    id: UUID
    status: str
    filter: Mapping[str, Any]
    by: str
    at: datetime
    ended_at: datetime | None
    rate: int
    chosen: int
    fed: int
    skipped: int
    waiting: int
    release: int | None = None
    reason: str | None = None

    @property
    def settled(self) -> int:
        """How many items are over and done with."""
        return self.fed - self.waiting + self.skipped

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "cancelled", "failed")


async def begin(
    reading: Connection,
    writing: Connection,
    choice: Choice,
    *,
    by: str,
    rate: int = RATE,
    release: int | None = None,
) -> Replay:
    """Choose the items and have them fed from now on, by whatever workers there are, through this recorded release.

    Two connections: one reads the ledger as the filter's tenant may, the other writes. Raises ReplayRefused for a
    ``by`` that is no text, psycopg.Error.
    """
    check_text("by", by)
    id_ = uuid7()
    await writing.execute(SWEEP)
    await writing.execute(BEGIN, [id_, Jsonb(choice.filter.as_dict()), by, rate, release])
    async for chunk in choice.chunks(reading):
        values = (
            id_,
            bigints([item.past for item in chunk]),
            smallints([item.handler for item in chunk]),
            uuids([item.delivery for item in chunk]),
            smallints([item.ordinal for item in chunk]),
            texts([item.tenant for item in chunk]),
            id_,
        )
        await writing.execute(ADD, values)
    await _change(writing, RUN, id_, ["choosing"])
    return await look(writing, id_)


async def pause(connection: Connection, which: str) -> Replay:
    """Put nothing more of it back; what is on the queue already is handled. Raises ReplayRefused, psycopg.Error."""
    id_ = await _find(connection, which)
    if not await _change(connection, PAUSE, id_):
        raise ReplayRefused(f"Replay {id_} does not run.", cure="`circuit-script replay list` says how each stands.")
    return await look(connection, id_)


async def resume(connection: Connection, which: str) -> Replay:
    """Go on with one that is paused. Raises ReplayRefused, psycopg.Error."""
    id_ = await _find(connection, which)
    if not await _change(connection, RUN, id_, ["paused"]):
        raise ReplayRefused(f"Replay {id_} is not paused.", cure="`circuit-script replay list` says how each stands.")
    return await look(connection, id_)


async def cancel(connection: Connection, which: str) -> Replay:
    """End it, and take off the queue what waits of it. What runs of it in this moment may finish, or be discarded.
    Raises ReplayRefused, psycopg.Error."""
    id_ = await _find(connection, which)

    async def end() -> None:
        if not await _change(connection, CANCEL, id_):
            raise ReplayRefused(f"Replay {id_} is over already.")
        await connection.execute(TAKE_OFF, {"id": id_, "why": "cancelled"})

    await _in_one(connection, end)
    return await look(connection, id_)


async def fail(connection: Connection, release: int, reason: str) -> None:
    """End every replay through a release that cannot be run, and take off the queue what waits of them. Raises
    psycopg.Error."""

    async def end() -> None:
        rows = await (await connection.execute(FAIL, {"release": release, "why": reason})).fetchall()
        for (id_,) in rows:
            await connection.execute(TAKE_OFF, {"id": id_, "why": "its release cannot be run"})

    await _in_one(connection, end)


async def find(connection: Connection, which: str) -> Replay:
    """The replay whose id begins so. Raises ReplayRefused when there is none, or several."""
    return await look(connection, await _find(connection, which))


async def look(connection: Connection, id_: UUID) -> Replay:
    """How it stands now. Raises ReplayRefused when it is gone."""
    row = await (await connection.execute(ONE, [id_])).fetchone()
    if row is None:
        raise ReplayRefused(f"There is no replay {id_}.")
    return Replay(*row)


async def latest(connection: Connection, limit: int) -> list[Replay]:
    """The replays that began last, the newest first."""
    return [Replay(*row) for row in await (await connection.execute(LATEST, [limit])).fetchall()]


async def has_workers(connection: Connection) -> bool:
    """Whether there is a worker to feed replays. Raises psycopg.Error."""
    row = await (await connection.execute(WORKERS)).fetchone()
    return bool(row and row[0])


async def became(connection: Connection, id_: UUID) -> dict[str, int]:
    """How many items stand how: succeeded, dead, … by their latest outcome; waiting, not begun, or why not."""
    rows = await (await connection.execute(BECAME, [id_])).fetchall()
    return {str(state): int(items) for state, items in sorted(rows)}


async def _in_one(connection: Connection, do: Callable[[], Awaitable[None]]) -> None:
    """In one transaction; again, where this and a worker that settles waited for each other."""
    while True:
        try:
            async with connection.transaction():
                await do()
                return
        except psycopg.errors.DeadlockDetected:
            await asyncio.sleep(AGAIN)


async def _find(connection: Connection, which: str) -> UUID:
    said = which.strip().lower()
    found = await connection.execute(FIND, [said]) if re.fullmatch("[0-9a-f-]+", said) else None
    rows = [] if found is None else await found.fetchall()
    if len(rows) != 1:
        several = "Several replays begin" if rows else "No replay begins"
        raise ReplayRefused(f"{several} with {which!r}.", cure="`circuit-script replay list` shows their ids.")
    return UUID(str(rows[0][0]))


async def _change(connection: Connection, statement: str, id_: UUID, *more: object) -> bool:
    row = await (await connection.execute(statement.encode(), [id_, *more])).fetchone()
    await connection.execute(NOTIFY)
    return row is not None
