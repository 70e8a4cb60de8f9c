"""Keeps the ledger and the queue's side tables small: partitions made and dropped, old keys forgotten."""

from __future__ import annotations

import asyncio
import random

import psycopg
import psycopg.sql
import structlog

from circuit_script.db.pool import Pool
from circuit_script.events.journal import SWEEP

log = structlog.get_logger()

EVERY = 3600.0
LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('circuit.maintenance'))"
# Making and dropping partitions locks the whole table: intake must not queue up behind a long reader for it.
PATIENCE = "SET LOCAL lock_timeout = '2s'"
MAKE = "SELECT circuit.make_partitions(7)"
FORGET_SEEN = "DELETE FROM circuit.seen WHERE delivery < circuit.uuid_floor(now() - interval '7 days')"
FORGET_LATEST = "DELETE FROM circuit.latest WHERE at < now() - interval '1 day'"
OLD_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE p.relnamespace = 'circuit'::regnamespace AND p.relname IN ('deliveries', 'events', 'executions', 'outcomes')
AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8)::date < current_date - %s::integer
"""


async def maintain(pool: Pool, retention_days: int = 30) -> None:
    """Once an hour, by one worker of all; a failure is logged and tried again an hour later."""
    while True:
        try:
            await once(pool, retention_days)
        except (psycopg.Error, OSError) as error:
            log.warning("maintenance", error=str(error))
        await asyncio.sleep(EVERY * random.uniform(0.9, 1.1))  # spreads load, guards nothing


async def once(pool: Pool, retention_days: int) -> list[str]:
    """One round; returns the partitions that were dropped.

    A partition with events that still wait is kept, whatever its age.
    """
    dropped: list[str] = []
    async with pool.connection() as connection, connection.transaction():
        row = await (await connection.execute(LOCK)).fetchone()
        if row is None or not row[0]:
            return dropped
        await connection.execute(PATIENCE)
        await connection.execute(MAKE)
        for statement in (FORGET_SEEN, FORGET_LATEST, SWEEP):
            await connection.execute(statement)
        for (name,) in await (await connection.execute(OLD_PARTITIONS, [retention_days])).fetchall():
            if name.startswith(("deliveries", "events")) and await _waits(connection, name[-8:]):
                continue
            await connection.execute(psycopg.sql.SQL("DROP TABLE circuit.{}").format(psycopg.sql.Identifier(name)))
            dropped.append(name)
    return dropped


async def _waits(connection: psycopg.AsyncConnection[tuple[object, ...]], day: str) -> bool:
    """True when the queue still refers to deliveries of that day (YYYYMMDD)."""
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT 1 FROM circuit.queue "
            "WHERE delivery >= circuit.uuid_floor(%s::date::timestamp AT TIME ZONE 'UTC') "
            "AND delivery < circuit.uuid_floor((%s::date + 1)::timestamp AT TIME ZONE 'UTC'))",
            [day, day],
        )
    ).fetchone()
    return bool(row and row[0])
