"""Keeps the ledger and the queue's side tables small: partitions made and dropped, old keys and effects forgotten.

Every step is a short transaction of its own: intake and the dispatchers never wait for more than one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import psycopg
import structlog
from psycopg import sql

from circuit_script.db.pool import Connection, Pool
from circuit_script.events.chores import MAINTENANCE, due_in, failed, succeeded
from circuit_script.events.journal import SWEEP
from circuit_script.events.reindex import reindex
from circuit_script.telemetry.keeping import build_indexes, forgetting, whole_days

log = structlog.get_logger()

EVERY = 3600.0
SOON = 600.0  # seconds after a round in which something failed
CHUNK = 5000
RECORDING_DAYS = 7  # for which it is kept what live executions were given and have read
REPLY_DAYS = 1  # for which a call's reply is kept after its event has left the queue
ROUND = 300.0  # seconds that one round spends on deleting from one table at most; the next one goes on
LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('circuit.maintenance'))"
# Whoever waits for a lock on a whole table makes others queue up behind: a long reader is not worth that.
PATIENCE = "SET LOCAL lock_timeout = '500ms'"

MISSING = """
SELECT parent, day FROM (
    SELECT c.relname::text AS parent FROM pg_class c
    WHERE c.relnamespace = to_regnamespace('circuit') AND c.relkind = 'p') AS p,
    LATERAL (SELECT (now() AT TIME ZONE 'UTC')::date + generate_series(-1, 7) AS day) AS days
WHERE to_regclass('circuit.' || parent || '_' || to_char(day, 'YYYYMMDD')) IS NULL ORDER BY day, parent
"""
MAKE = "SELECT circuit.make_partition(%s, %s)"
NOTHING: Mapping[str, int] = {}
LOG_LINES = True  # log lines have a retention of their own
OLD_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE p.relnamespace = to_regnamespace('circuit') AND (p.relname = 'circuit_logs') = %s
AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8)::date < (now() AT TIME ZONE 'UTC')::date - %s::integer
ORDER BY right(c.relname, 8), c.relname DESC  -- events before their deliveries: these cannot be put back any more
"""

_FLOOR = "circuit.uuid_floor(((now() AT TIME ZONE 'UTC')::date - %(days)s::integer)::timestamp AT TIME ZONE 'UTC')"
_WAITING = f"least({_FLOOR}, (SELECT delivery FROM circuit.queue ORDER BY delivery LIMIT 1))"


def _forget(table: str, old: str, order: str) -> str:
    """Delete at most a chunk of what is old. The condition is checked again: a row may change in between."""
    found = f"SELECT ctid FROM circuit.{table} WHERE {old} ORDER BY {order} LIMIT %(chunk)s"
    return f"DELETE FROM circuit.{table} WHERE ctid = ANY(ARRAY({found})) AND {old}"


# Each is run again while it deletes a whole chunk.
FORGET = {
    "seen": _forget("seen", "delivery < circuit.uuid_floor(now() - interval '7 days')", "delivery"),
    "latest": _forget("latest", "at < now() - interval '1 day'", "at"),
    "journal": SWEEP,
    "quota_leases": _forget("quota_leases", "at < now() - interval '2 days'", "at"),
    "quota_use": _forget("quota_use", "starts < now() - interval '62 days'", "starts"),
    "idempotency": _forget("idempotency", "at < now() - interval '1 day'", "at"),
    "effects": _forget(
        "effects", "status = 'delivered' AND settled_at < now() - make_interval(days => %(days)s)", "settled_at"
    ),
    "discarded effects": _forget(
        "effects", "status = 'discarded' AND settled_at < now() - make_interval(days => %(days)s)", "settled_at"
    ),
    "dead_letters": _forget(
        "dead_letters", "status <> 'open' AND closed_at < now() - make_interval(days => %(days)s)", "id"
    ),
    # Of what is live or was before, and of the latest hundred that may have run within the ledger's time.
    "release_sources": _forget(
        "release_sources",
        "release NOT IN (SELECT l.release FROM circuit.live l) "
        "AND NOT EXISTS (SELECT FROM (SELECT * FROM circuit.moves ORDER BY id DESC LIMIT 20) m "
        "WHERE circuit.release_sources.release IN (m.release, m.before)) "
        "AND release NOT IN (SELECT r.release FROM circuit.replays r WHERE r.release IS NOT NULL "
        "AND r.status NOT IN ('done', 'cancelled', 'failed')) AND ("
        "EXISTS (SELECT FROM circuit.releases n WHERE n.id > circuit.release_sources.release "
        "AND n.created_at < now() - make_interval(days => %(days)s)) "
        "OR release NOT IN (SELECT s.release FROM circuit.release_sources s ORDER BY s.release DESC LIMIT 100))",
        "release",
    ),
    "enrichments": _forget("enrichments", "expires_at < now() - interval '1 day'", "expires_at"),
    "reconciled": _forget("reconciled", "at < now() - interval '1 day'", "at"),
    "courier_waits": _forget("courier_waits", "until < now() - interval '1 day'", "until"),
    "mirrored": _forget("mirrored", "delivery < circuit.uuid_floor(now() - interval '7 days')", "delivery"),
    "refusals": _forget("refusals", "day < now() - interval '400 days'", "day"),
    "verdicts": _forget("verdicts", "day < now() - interval '400 days'", "day"),
    "effect_answers": _forget("effect_answers", "at < now() - make_interval(days => %(days)s)", "at"),
    "recordings": _forget(
        "recordings", "execution < circuit.uuid_floor(now() - make_interval(days => %(recordings)s))", "execution"
    ),
    "comparisons": _forget(
        "comparisons",
        "shadow IN (SELECT s.id FROM circuit.shadows s WHERE s.closed_at < now() - make_interval(days => %(days)s))",
        "shadow",
    ),
    # What came before its day's partition; what the queue still refers to is kept.
    "deliveries_other": _forget("deliveries_other", f"id < {_WAITING}", "id"),
    "events_other": _forget("events_other", f"delivery < {_WAITING}", "delivery"),
    "executions_other": _forget("executions_other", f"id < {_FLOOR}", "id"),
    "outcomes_other": _forget("outcomes_other", f"delivery < {_FLOOR}", "delivery"),
    "traces_other": _forget("traces_other", f"execution < {_FLOOR}", "execution"),
}
FORGET_LOGS = _forget("circuit_logs_other", f"execution < {_FLOOR}", "execution")


async def maintain(
    pool: Pool,
    retention_days: int = 30,
    log_days: int | None = None,
    *,
    reply_days: int = REPLY_DAYS,
    log_keep: Mapping[str, int] = NOTHING,
    recording_days: int = RECORDING_DAYS,
) -> None:
    """Once an hour, by one worker of all; what failed is logged, shown by `doctor`, and tried again after minutes."""
    await asyncio.sleep(EVERY / 60 * random.uniform(0, 1))  # a start has other things to do
    while True:
        try:
            if await _due(pool):
                await once(pool, retention_days, reply_days, log_days, log_keep, recording_days=recording_days)
                await build_indexes(pool)
                await reindex(pool)
        except Exception as error:  # whatever it is, tables must not grow for ever after
            log.warning("maintenance", error=repr(error), next="trying again in ten minutes")
        await asyncio.sleep(min(EVERY, SOON) * random.uniform(0.9, 1.1))  # spreads load, guards nothing


async def _due(pool: Pool) -> bool:
    """Whether no worker has done it within the hour."""
    async with pool.connection() as connection:
        return await due_in(connection, MAINTENANCE, every=EVERY, again=min(EVERY, SOON)) <= 0


async def prepare(pool: Pool) -> None:
    """Make today's partitions and those of the week to come, where they are missing.

    One that cannot be made now is left for later: the default partition takes its rows.
    """
    await _prepare(pool, [])


async def _prepare(pool: Pool, failures: list[str]) -> None:
    async with pool.connection() as connection:
        missing = await (await connection.execute(MISSING)).fetchall()
    for parent, day in missing:
        with _tolerant(f"make {parent} of {day}", failures):
            async with pool.connection() as connection, connection.transaction():
                await connection.execute(PATIENCE)
                await connection.execute(MAKE, [parent, day])


async def once(
    pool: Pool,
    retention_days: int,
    reply_days: int = REPLY_DAYS,
    log_days: int | None = None,
    log_keep: Mapping[str, int] = NOTHING,
    *,
    recording_days: int = RECORDING_DAYS,
) -> list[str]:
    """One round; returns the partitions that were dropped. How it went is remembered for `doctor`.

    A partition with events that still wait is kept, whatever its age; log lines are for ever without ``log_days``,
    unless ``log_keep`` says for how many days those of their level are kept.
    """
    failures: list[str] = []
    await _prepare(pool, failures)
    for table, statement in FORGET.items():
        with _tolerant(f"forget {table}", failures):
            days = {"days": retention_days, "replies": reply_days, "recordings": recording_days}
            await _repeat(pool, statement, {**days, "chunk": CHUNK})
    dropped = await _drop_old(pool, retention_days, not LOG_LINES, failures)
    log_days = whole_days(log_keep, log_days)
    if log_keep:
        async with pool.connection() as connection:
            statements = await forgetting(connection, log_keep)
        for words, statement in statements:
            with _tolerant(f"forget {words}", failures):
                await _repeat(pool, statement, {"chunk": CHUNK})
    if log_days is not None:
        with _tolerant("forget circuit_logs_other", failures):
            await _repeat(pool, FORGET_LOGS, {"days": log_days, "chunk": CHUNK})
        dropped += await _drop_old(pool, log_days, LOG_LINES, failures)
    async with pool.connection() as connection:
        if failures:
            await failed(connection, MAINTENANCE, "; ".join(failures))
        else:
            await succeeded(connection, MAINTENANCE, dropped=len(dropped))
    return dropped


async def _drop_old(pool: Pool, days: int, which: bool, failures: list[str]) -> list[str]:
    dropped: list[str] = []
    async with pool.connection() as connection:
        old = await (await connection.execute(OLD_PARTITIONS, [which, days])).fetchall()
    for (name,) in old:
        with _tolerant(f"drop {name}", failures):
            if await _drop(pool, name):
                dropped.append(name)
    return dropped


async def _repeat(pool: Pool, statement: str, values: Mapping[str, Any]) -> None:
    deleted, ends = CHUNK, time.monotonic() + ROUND
    while deleted >= CHUNK and time.monotonic() < ends:
        async with _turn(pool) as connection:
            if connection is None:
                return
            deleted = (await connection.execute(statement.encode(), values)).rowcount


async def _drop(pool: Pool, name: str) -> bool:
    async with _turn(pool) as connection:
        if connection is None:
            return False
        if name.startswith(("deliveries", "events")):
            if await _waits(connection, name[-8:]) or await _read_by_events(connection, name):
                return False
            # Who is putting an old event back on the queue reads it first: once nobody reads, what waits is seen.
            parent = sql.Identifier("circuit", name.partition("_")[0])
            await connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(parent))
            await connection.execute(
                sql.SQL("LOCK TABLE circuit.{} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(name))
            )
            if await _waits(connection, name[-8:]):
                return False
        await connection.execute(sql.SQL("DROP TABLE IF EXISTS circuit.{}").format(sql.Identifier(name)))
        return True


async def _read_by_events(connection: Connection, name: str) -> bool:
    """True for deliveries whose events are still there, and could be put back on the queue."""
    events = name.replace("deliveries", "circuit.events")
    row = await (await connection.execute("SELECT to_regclass(%s) IS NOT NULL", [events])).fetchone()
    return name.startswith("deliveries") and bool(row and row[0])


@contextlib.asynccontextmanager
async def _turn(pool: Pool) -> AsyncIterator[Connection | None]:
    """A short transaction; None while another worker is at it."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(PATIENCE)
        row = await (await connection.execute(LOCK)).fetchone()
        yield connection if row and row[0] else None


@contextlib.contextmanager
def _tolerant(step: str, failures: list[str]) -> Iterator[None]:
    """One step that fails, for a lock or otherwise, does not keep the others from being done."""
    try:
        yield
    except psycopg.Error as error:
        failures.append(f"{step}: {error}".strip())
        log.warning("maintenance", step=step, error=str(error), next="trying again in ten minutes")


async def _waits(connection: Connection, day: str) -> bool:
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
