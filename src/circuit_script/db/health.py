"""How the server itself is doing: what fills up, what hangs, what is behind."""

from __future__ import annotations

import time
from dataclasses import dataclass

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection

DEAD_ROWS = 200_000  # of one table, below which nobody worries

_SEEN = """
SELECT clock_timestamp() AS moment, pg_is_in_recovery() AS standby,
       pg_database_size(current_database()) AS bytes,
       current_setting('max_connections')::int AS max_connections,
       (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT max(age(datfrozenxid))::bigint FROM pg_database) AS ids_used,
       current_setting('autovacuum')::boolean AS autovacuum
"""
_MOMENT = "SELECT extract(epoch FROM clock_timestamp())::float8"
# A transaction that only sleeps holds back as much as one that works.
_OLDEST = """
SELECT pid, coalesce(application_name, '') AS name, extract(epoch FROM now() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
AND datname = current_database() ORDER BY xact_start LIMIT 1
"""
_UNTIDY = f"""
SELECT relname::text FROM pg_stat_user_tables
WHERE schemaname = 'circuit' AND n_dead_tup > {DEAD_ROWS} AND n_dead_tup > n_live_tup ORDER BY n_dead_tup DESC LIMIT 5
"""
_SLOT = """
SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
WHERE restart_lsn IS NOT NULL ORDER BY 2 DESC LIMIT 1
"""
_STANDBY = "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_stat_replication"


@dataclass(frozen=True, slots=True)
class Health:
    """Bytes and seconds. ``slot`` and ``kept_log`` are of the replication slot that holds back most; who may not see
    the activity of others sees none."""

    answered_in: float
    bytes: int
    connections: int
    max_connections: int
    oldest_transaction: float = 0.0
    oldest_pid: int = 0
    oldest_name: str = ""
    ids_used: int = 0
    autovacuum: bool = True
    untidy: tuple[str, ...] = ()
    slot: str = ""
    kept_log: int = 0
    standby_behind: float = 0.0


async def read_health(connection: Connection) -> Health:
    """Ask the server how it is doing; a few small questions."""
    began = time.monotonic()
    await connection.execute("SELECT 1", prepare=False)
    answered_in = time.monotonic() - began
    async with connection.cursor(row_factory=dict_row) as cursor:
        seen = await (await cursor.execute(_SEEN)).fetchone() or {}
        oldest = await (await cursor.execute(_OLDEST)).fetchone() or {}
    untidy = await (await connection.execute(_UNTIDY)).fetchall()
    slot = None if seen["standby"] else await (await connection.execute(_SLOT)).fetchone()
    behind = await (await connection.execute(_STANDBY)).fetchone()
    return Health(
        answered_in=answered_in,
        bytes=seen["bytes"],
        connections=seen["connections"],
        max_connections=seen["max_connections"],
        oldest_transaction=oldest.get("seconds") or 0.0,
        oldest_pid=oldest.get("pid") or 0,
        oldest_name=oldest.get("name") or "",
        ids_used=seen["ids_used"] or 0,
        autovacuum=seen["autovacuum"],
        untidy=tuple(name for (name,) in untidy),
        slot=slot[0] if slot else "",
        kept_log=max(0, slot[1]) if slot else 0,
        standby_behind=behind[0] if behind else 0.0,
    )


async def clock_apart(connection: Connection) -> float:
    """Seconds by which this host's clock is surely ahead of the database's (less than 0: behind it)."""
    asked = time.time()
    row = await (await connection.execute(_MOMENT)).fetchone()
    heard = time.time()
    moment: float = row[0] if row else (asked + heard) / 2
    return asked - moment if moment < asked else heard - moment if moment > heard else 0.0
