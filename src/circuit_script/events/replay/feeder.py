"""Feeds replays to the queue, behind live traffic: one task in each worker, at most one at a time for each replay.

It sleeps until somebody says that there is one. While one runs it looks once a second: when little waits, it puts back
as many items as the replay's rate allows, and never leaves more of it in the queue than that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import structlog

from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import DatabaseUnavailable, ReplayRefused
from circuit_script.events.requeue import Past, requeue
from circuit_script.failpoints import areach

PAUSE = 1.0  # seconds between two looks while a replay runs
IDLE = 60.0  # seconds after which it looks by itself, should it not have been told
BUSY = 500  # events that wait, and are none of a replay: then it waits, too
AT_ONCE = 500  # items of one transaction: while they are put back, intake waits

# Of recorded releases so many at a time, those whose replay began first: each takes processes of its own.
RELEASES = 2
RUNNING = """
SELECT r.id FROM circuit.replays r
WHERE r.status = 'running' AND (r.release IS NULL OR r.release IN (
    SELECT f.release FROM circuit.replays f WHERE f.status = 'running' AND f.release IS NOT NULL
    GROUP BY f.release ORDER BY min(f.at), f.release LIMIT %s))
ORDER BY r.at
"""
# One at a time, of all replays and workers: what two of them take is put back once.
TURN = "SELECT pg_advisory_xact_lock(hashtext('circuit.replay'))"
# Who is held or ended in this moment is left alone. What arrived below the lanes' low water is gone already. What waits
# because it is paused is no traffic; so as not to go through all of it each second, only what is first is looked at.
# A clock that was set back holds it no longer than a minute.
LOCK = """
SELECT r.rate, r.fed_to,
       CASE WHEN coalesce(r.fed_at, r.at) > now() + interval '1 minute' THEN 1
            ELSE least(extract(epoch FROM now() - coalesce(r.fed_at, r.at)), 1) END::float8,
       (SELECT count(*) FROM circuit.queue q WHERE q.replay = r.id),
       (SELECT count(*) FROM (
            SELECT FROM (
                SELECT q.tenant, q.record, q.handler FROM circuit.queue q
                WHERE q.id > (SELECT min(low_water) FROM circuit.lanes) AND q.replay IS NULL
                  AND (q.not_before IS NULL OR q.not_before <= now()) ORDER BY q.id LIMIT 10 * %(busy)s) AS q
            LEFT JOIN circuit.handlers h ON h.id = q.handler
            WHERE NOT EXISTS (
                SELECT FROM circuit.pauses p
                WHERE (p.tenant IS NULL OR p.tenant = q.tenant)
                  AND CASE p.kind WHEN 'everything' THEN true WHEN 'tenant' THEN p.value = q.tenant
                      WHEN 'record' THEN p.value = q.record WHEN 'trigger' THEN p.value = h.name ELSE false END)
            LIMIT %(busy)s) AS live),
       r.by_whom
FROM circuit.replays r WHERE r.id = %(id)s AND r.status = 'running' FOR UPDATE SKIP LOCKED
"""
NEXT = """
SELECT i.past, i.handler, i.delivery, i.ordinal, i.tenant,
       CASE WHEN e.id IS NULL OR d.id IS NULL THEN 'no longer in the ledger'
            WHEN octet_length(d.body) = 0 THEN 'whom it concerns was forgotten'
            WHEN EXISTS (SELECT FROM circuit.queue q WHERE q.id = i.past AND q.handler = i.handler)
              OR EXISTS (SELECT FROM circuit.queue q WHERE q.past = i.past AND q.handler = i.handler)
            THEN 'it waits in the queue already'
            WHEN EXISTS (
                SELECT FROM circuit.outcomes o JOIN circuit.replays r ON r.id = i.replay
                WHERE o.delivery = i.delivery AND o.ordinal = i.ordinal AND o.handler = i.handler
                  AND o.status = 'succeeded' AND o.at > r.at) THEN 'it succeeded meanwhile'
            WHEN c.deleted AND e.event <> 'afterDelete' THEN 'its record was deleted since' END
FROM (SELECT * FROM circuit.replay_items i
      WHERE i.replay = %s AND i.past >= %s AND i.event IS NULL AND i.skipped IS NULL
      ORDER BY i.past, i.handler LIMIT %s) AS i
LEFT JOIN circuit.events e ON e.delivery = i.delivery AND e.ordinal = i.ordinal
LEFT JOIN circuit.deliveries d ON d.id = i.delivery
LEFT JOIN circuit.records c ON c.tenant = i.tenant AND c.object = e.object AND c.id = e.record
ORDER BY i.past, i.handler
"""
# Before anything is put back, in the order in which those who retry them lock them: intake never waits for a letter.
HOLD_LETTERS = """
SELECT FROM circuit.dead_letters l
JOIN unnest(%s::uuid[], %s::smallint[], %s::smallint[]) AS w (delivery, ordinal, handler)
  ON l.delivery = w.delivery AND l.ordinal = w.ordinal AND l.handler = w.handler
WHERE l.kind = 'event' AND l.status = 'open' ORDER BY l.event_id NULLS LAST, l.id FOR UPDATE OF l
"""
SKIP = """
UPDATE circuit.replay_items i SET skipped = s.why
FROM unnest(%s::bigint[], %s::smallint[], %s::text[]) AS s (past, handler, why)
WHERE i.replay = %s AND i.past = s.past AND i.handler = s.handler
"""
MOVE = """
UPDATE circuit.replays
SET fed = fed + %s, skipped = skipped + %s, fed_to = %s, fed_at = now() - make_interval(secs => %s) WHERE id = %s
"""
END = "UPDATE circuit.replays SET status = 'done', ended_at = now() WHERE id = %s"

log = structlog.get_logger()


class Feeder:
    """One per worker. Times are in seconds."""

    def __init__(
        self, database: Pool, *, pause: float = PAUSE, idle: float = IDLE, busy: int = BUSY, at_once: int = AT_ONCE
    ) -> None:
        self._database = database
        self._pause = pause
        self._idle = idle
        self._busy = busy
        self._at_once = at_once
        self._told = asyncio.Event()

    def wake(self) -> None:
        """There may be a replay."""
        self._told.set()

    async def run(self) -> None:
        """Until cancelled; survives the loss of the database."""
        while True:
            self._told.clear()
            try:
                found = await self.feed()
            except (psycopg.Error, OSError, DatabaseUnavailable, ReplayRefused) as error:
                log.warning("replay.feed", error=str(error), next="trying again")
                found = True
            if found:
                await asyncio.sleep(self._pause)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), self._idle)

    async def feed(self) -> bool:
        """Feed what is due of each replay that runs, in turns; whether there was one. Raises psycopg.Error."""
        async with self._database.connection() as connection:
            while True:
                running = [row[0] for row in await (await connection.execute(RUNNING, [RELEASES])).fetchall()]
                more = [await self._feed_or_tell(connection, replay) for replay in running]
                if not any(more):
                    return bool(running)

    async def _feed_or_tell(self, connection: Connection, replay: UUID) -> bool:
        """Whether more of it may be due; when it cannot be fed, the others go on."""
        try:
            return await self._feed_one(connection, replay)
        except (psycopg.DatabaseError, ReplayRefused) as error:
            if connection.closed:
                raise
            log.warning("replay.feed", replay=str(replay), error=str(error), next="trying again")
            return False

    async def _feed_one(self, connection: Connection, replay: UUID) -> bool:
        """Whether more of it may be due. What is put back, and that it is, stand in one transaction: whoever goes on
        after a kill goes on there."""
        async with connection.transaction():
            await connection.execute(TURN)
            row = await (await connection.execute(LOCK, {"id": replay, "busy": self._busy})).fetchone()
            if row is None:
                return False
            rate, fed_to, elapsed, waiting, live, by = row
            room = min(int(rate * elapsed), rate - waiting, self._at_once) if live < self._busy else 0
            if room <= 0:
                return False
            items = await (await connection.execute(NEXT, [replay, fed_to, room])).fetchall()
            if await self._held_letters(connection, items):  # whom we waited for may have put some of them back
                items = await (await connection.execute(NEXT, [replay, fed_to, room])).fetchall()
            if not items:
                if not waiting:
                    await connection.execute(END, [replay])
                    log.info("replay.done", replay=str(replay))
                return False
            await areach("replay.before")
            await self._put_back(connection, replay, items, by, left=elapsed - room / rate)
            return room == self._at_once

    async def _held_letters(self, connection: Connection, items: Sequence[tuple[Any, ...]]) -> bool:
        """Lock the dead letters of these; whether there may have been any."""
        values = [[item[place] for item in items] for place in (2, 3, 1)]
        return (await connection.execute(HOLD_LETTERS, values)).rowcount > 0

    async def _put_back(
        self, connection: Connection, replay: UUID, items: Sequence[tuple[Any, ...]], by: str, *, left: float
    ) -> None:
        """``left`` is for how many seconds more may be put back than this."""
        skipped = [(past, handler, why) for past, handler, _, _, _, why in items if why is not None]
        if skipped:
            await connection.execute(SKIP, [*map(list, zip(*skipped, strict=True)), replay])
        again = [Past(delivery, n, handler, tenant) for _, handler, delivery, n, tenant, why in items if why is None]
        await connection.execute(MOVE, [len(again), len(skipped), items[-1][0], left, replay])
        await requeue(connection, again, replay=replay, by=by)
        await areach("replay.put")
