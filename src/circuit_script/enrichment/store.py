"""circuit.enrichments: what all workers know, and who of them asks for what now.

Who is to ask has a claim with a lease: it ends with the answer, or with its time when the claimant was killed. Every
statement locks its rows in the order of their keys, so that no two batches wait for each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from circuit_script.db.pool import Connection, Pool, unavailable

EVERYBODY = ""  # whose rows all tenants share

_READ = """
SELECT key, data, extract(epoch FROM fetched_at)::float8,
       CASE WHEN isfinite(expires_at) THEN extract(epoch FROM expires_at - now())::float8 END, records
FROM circuit.enrichments WHERE tenant = %s AND source = %s AND key = ANY(%s) AND expires_at > now()
"""
_ALSO_ABOUT = """
UPDATE circuit.enrichments e SET records = e.records || u.record
FROM unnest(%s::bytea[], %s::text[]) AS u (key, record)
WHERE e.tenant = %s AND e.source = %s AND e.key = u.key AND NOT e.records @> ARRAY[u.record]
"""
_CLAIM = """
INSERT INTO circuit.enrichments AS e (tenant, source, key, claimed_by, claimed_until)
SELECT %(tenant)s, %(source)s, k, %(by)s, clock_timestamp() + make_interval(secs => %(lease)s)
FROM unnest(%(keys)s::bytea[]) AS k ORDER BY k
ON CONFLICT (tenant, source, key) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE (e.expires_at IS NULL OR e.expires_at <= clock_timestamp())
AND (e.claimed_until IS NULL OR e.claimed_until <= clock_timestamp())
RETURNING e.key
"""
# No join of what is given: plans of a worker know nested loops only.
_KEEP = """
INSERT INTO circuit.enrichments AS e (tenant, source, key, data, fetched_at, expires_at, records, about)
SELECT %(tenant)s, %(source)s, g.key, g.data::jsonb, now(),
       coalesce(now() + make_interval(secs => g.seconds), 'infinity'),
       CASE WHEN g.record = '' THEN '{}' ELSE ARRAY[g.record] END, g.about
FROM unnest(%(keys)s::bytea[], %(data)s::text[], %(seconds)s::float8[], %(records)s::text[], %(about)s::text[])
    AS g (key, data, seconds, record, about) ORDER BY g.key
ON CONFLICT (tenant, source, key) DO UPDATE
SET data = excluded.data, fetched_at = excluded.fetched_at, expires_at = excluded.expires_at, about = excluded.about,
    records = excluded.records, claimed_by = NULL, claimed_until = NULL
WHERE e.claimed_by = %(by)s
"""
_PUT = """
INSERT INTO circuit.enrichments AS e (tenant, source, key, data, fetched_at, expires_at, records, about)
SELECT %(tenant)s, %(source)s, %(key)s, %(data)s::jsonb, now(),
       coalesce(now() + make_interval(secs => %(seconds)s::float8), 'infinity'),
       CASE WHEN %(record)s::text = '' THEN '{}' ELSE ARRAY[%(record)s::text] END, %(about)s
ON CONFLICT (tenant, source, key) DO UPDATE
SET data = excluded.data, fetched_at = excluded.fetched_at, expires_at = excluded.expires_at, about = excluded.about,
    records = excluded.records
"""
_LET_GO = """
WITH held AS MATERIALIZED (
    SELECT e.key FROM circuit.enrichments e
    WHERE e.tenant = %(tenant)s AND e.source = %(source)s AND e.key = ANY(%(keys)s) AND e.claimed_by = %(by)s
    ORDER BY e.key FOR UPDATE)
UPDATE circuit.enrichments e SET claimed_by = NULL, claimed_until = NULL
WHERE (SELECT count(*) FROM held) > 0 AND e.tenant = %(tenant)s AND e.source = %(source)s
AND e.key = ANY(%(keys)s) AND e.claimed_by = %(by)s
"""
_DROP = "DELETE FROM circuit.enrichments WHERE tenant = %s AND source = %s AND key = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where answers of one source lie: everybody's, or a tenant's own."""

    source: str
    tenant: str = EVERYBODY


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer: ``data`` None is that nothing is known there. ``seconds`` are left of its time, None is for ever;
    ``at`` is when it was fetched, in seconds since 1970; ``records`` are whom it is known to be about."""

    data: Any
    at: float
    seconds: float | None
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom an answer is about: the record, and the address by which a person is looked for. Of everybody's, nobody."""

    record: str = ""
    about: str = ""


class Store:
    """All methods raise DatabaseUnavailable."""

    def __init__(self, database: Pool) -> None:
        self._database = database

    async def read(self, shelf: Shelf, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Those that there are, and that still count."""
        async with self._connection() as connection:
            rows = await (await connection.execute(_READ, [shelf.tenant, shelf.source, list(keys)])).fetchall()
        return {bytes(key): Kept(data, at, seconds, tuple(records)) for key, data, at, seconds, records in rows}

    async def also_about(self, shelf: Shelf, records: Mapping[bytes, str]) -> None:
        """These answers are about these records, too."""
        async with self._connection() as connection:
            values = [list(records), list(records.values()), shelf.tenant, shelf.source]
            await connection.execute(_ALSO_ABOUT, values)

    async def claim(self, shelf: Shelf, keys: Sequence[bytes], by: UUID, lease: float) -> set[bytes]:
        """Those that nobody else asks for now, and nobody has got meanwhile: they are ours for ``lease`` seconds."""
        values = {"tenant": shelf.tenant, "source": shelf.source, "keys": list(keys), "by": by, "lease": lease}
        async with self._connection() as connection:
            rows = await (await connection.execute(_CLAIM, values)).fetchall()
        return {bytes(key) for (key,) in rows}

    async def keep(self, shelf: Shelf, answers: Mapping[bytes, Kept], whom: Mapping[bytes, Wanted], by: UUID) -> None:
        """Answers of what we have claimed; the claims end."""
        keys = list(answers)
        values = {
            "tenant": shelf.tenant,
            "source": shelf.source,
            "by": by,
            "keys": keys,
            "data": [_json(each.data) for each in answers.values()],
            "seconds": [each.seconds for each in answers.values()],
            "records": [whom.get(key, Wanted()).record for key in keys],
            "about": [whom.get(key, Wanted()).about for key in keys],
        }
        async with self._connection() as connection:
            await connection.execute(_KEEP, values)

    async def put(self, shelf: Shelf, key: bytes, answer: Kept, whom: Wanted) -> None:
        """An answer without a claim."""
        values = {
            "tenant": shelf.tenant,
            "source": shelf.source,
            "key": key,
            "data": _json(answer.data),
            "seconds": answer.seconds,
            "record": whom.record,
            "about": whom.about,
        }
        async with self._connection() as connection:
            await connection.execute(_PUT, values)

    async def let_go(self, shelf: Shelf, keys: Sequence[bytes], by: UUID) -> None:
        """Claims of ours that came to nothing."""
        values = {"tenant": shelf.tenant, "source": shelf.source, "keys": list(keys), "by": by}
        async with self._connection() as connection:
            await connection.execute(_LET_GO, values)

    async def drop(self, shelf: Shelf, keys: Sequence[bytes]) -> None:
        """Answers that turned out to be wrong."""
        async with self._connection() as connection:
            await connection.execute(_DROP, [shelf.tenant, shelf.source, list(keys)])

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._database.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise unavailable(error) from error


def _json(data: Any) -> str | None:
    return None if data is None else msgspec.json.encode(data).decode()
