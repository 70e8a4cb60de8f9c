"""How much telemetry each worker could not store: in the database, so that every gateway can tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

import psycopg
import structlog
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection, Pool

log = structlog.get_logger()

CHORE = "telemetry"  # its row of circuit.upkeep, which is there once something was dropped
EVERY = 5.0  # seconds between two tellings, at least
PATIENCE = 3.0  # seconds that one may take
KINDS = ("logs", "traces")

# A worker that ended a day ago is forgotten: by then everybody has counted what it dropped.
_TELL = f"""
    INSERT INTO circuit.upkeep AS u (chore, succeeded_at, detail)
    VALUES ('{CHORE}', now(), jsonb_build_object(%(worker)s::text, %(counts)s || jsonb_build_object(
        'at', extract(epoch FROM now()))))
    ON CONFLICT (chore) DO UPDATE SET succeeded_at = excluded.succeeded_at, detail = coalesce((
        SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(u.detail) e
        WHERE (e.value ->> 'at')::float8 > extract(epoch FROM now()) - 86400), '{{}}') || excluded.detail
"""
_TOLD = f"""
    SELECT e.key, k.kind, coalesce((e.value ->> k.kind)::bigint, 0)
    FROM circuit.upkeep u, jsonb_each(u.detail) e, unnest(%s::text[]) AS k (kind) WHERE u.chore = '{CHORE}'
"""


async def tell_dropped(pool: Pool, counts: Callable[[], Mapping[str, int]]) -> None:
    """Tell what this worker has dropped, by kind, whenever it is more than before; until it is cancelled."""
    worker, told = uuid7(), dict.fromkeys(KINDS, 0)
    while True:
        await asyncio.sleep(EVERY)
        found = dict(counts())
        if found == told:
            continue
        try:
            await tell(pool, worker, found)
        except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
            log.warning("dropped.database", error=repr(error), next="it is told later")
        else:
            told = found


async def tell(pool: Pool, worker: UUID, counts: Mapping[str, int]) -> None:
    """Tell it once. Raises psycopg.Error, TimeoutError."""
    async with asyncio.timeout(PATIENCE), pool.connection(timeout=PATIENCE) as connection:
        await connection.execute(_TELL.encode(), {"worker": str(worker), "counts": Jsonb(dict(counts))})


async def dropped(connection: Connection) -> dict[tuple[str, str], int]:
    """What was dropped, by worker and kind."""
    rows = await (await connection.execute(_TOLD.encode(), [list(KINDS)])).fetchall()
    return {(worker, kind): n for worker, kind, n in rows}
