"""Small tables whose rows come and go all day get large indexes that are nearly empty: now and then one is made anew.

Not a lock is held meanwhile that anybody would wait for; readers and writers go on.
"""

from __future__ import annotations

import asyncio

import psycopg
import structlog
from psycopg import sql

from circuit_script.db.pool import Connection, Pool
from circuit_script.events.chores import REINDEX, due_in, failed, succeeded

log = structlog.get_logger()

LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('circuit.reindex'))"
RARELY = 86400.0  # seconds between two of them at least
TOOK = 600.0  # seconds after which one is given up: it waits for whoever reads for long
LARGE = 32 * 1024 * 1024  # bytes below which an index is left alone
FULL = 64  # bytes of an entry in an index that is not bloated, generously
BLOATED = 8  # times that

_WORST = """
SELECT x.relname::text, pg_relation_size(x.oid) FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = 'circuit'::regnamespace AND i.indisvalid AND x.reltuples >= 0
AND t.relname IN ('queue', 'lanes', 'workers', 'effects', 'journal', 'budgets', 'quota_use', 'quota_leases', 'latest')
AND pg_relation_size(x.oid) > %(large)s AND pg_relation_size(x.oid) > %(times)s * %(full)s * x.reltuples
ORDER BY 2 DESC LIMIT 1
"""
# What one that was cut short has left.
_LEFT = """
SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
WHERE x.relnamespace = 'circuit'::regnamespace AND NOT i.indisvalid AND x.relname ~ '_cc(new|old)[0-9]*$'
"""


async def reindex(pool: Pool) -> str | None:
    """Make the most bloated index anew, if one is worth it and none was made today; its name."""
    async with pool.connection() as lock, lock.transaction():
        row = await (await lock.execute(LOCK)).fetchone()
        if not row or not row[0]:
            return None
        async with pool.connection() as connection:
            if await due_in(connection, REINDEX, every=RARELY, again=RARELY) > 0:
                return None
            return await _worst(connection)


async def _worst(connection: Connection) -> str | None:
    for (name,) in await (await connection.execute(_LEFT)).fetchall():
        await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier("circuit", name)))
    row = await (await connection.execute(_WORST, {"large": LARGE, "times": BLOATED, "full": FULL})).fetchone()
    if row is None:
        return None
    name, before = row
    try:
        async with asyncio.timeout(TOOK):
            await connection.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier("circuit", name)))
    except (TimeoutError, psycopg.Error) as error:
        await failed(connection, REINDEX, f"{name}: {error!r}")
        log.warning("reindex", index=name, error=repr(error), next="trying again in a day")
        return None
    await succeeded(connection, REINDEX, index=name, before=before)
    return str(name)
