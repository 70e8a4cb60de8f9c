"""How much slower the road is with ten million events in the ledger.

They are made once, by generate_series, in a PostgreSQL of its own under .bench, spread over the last 29 days. Each
further run measures on what is there; another schema makes them anew.
"""

from __future__ import annotations

import os
import shutil
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import app, contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.postgres import execute, fresh_database, one
from benchmarks.processes import ROOT
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import migrate

FULL, QUICK = 10_000_000, 200_000
SLICE = 250_000  # rows that one statement makes
CACHE = Path(os.environ.get("CIRCUIT_BENCH_CACHE", ROOT / ".bench" / "ledger"))
PARTITIONS = """
SELECT circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date - n)
FROM unnest(ARRAY['deliveries', 'events', 'outcomes']) AS parent, generate_series(0, 29) AS n
"""
# The floor of a moment is the smallest id of its millisecond; what is added tells ids apart.
MADE = """
CREATE TEMP TABLE made AS
SELECT n, (substr(floor::text, 1, 24) || lpad(to_hex(n), 12, '0'))::uuid AS id, at
FROM (SELECT n, now() - interval '29 days' * (1 - n::float8 / {total}) AS at,
             circuit.uuid_floor(now() - interval '29 days' * (1 - n::float8 / {total})) AS floor
      FROM generate_series({first}, {last}) AS n) AS m
"""
DELIVERIES = """
INSERT INTO circuit.deliveries (id, received_at, source, account, tenant, vendor_id, headers, body)
SELECT id, at, 'standard', 'shop', 'tenant' || n % 100, 'old' || n, '{}',
       convert_to('{"type": "Contact.afterInsert", "data": {"id": "old' || n || '", "city": "Austin"}}', 'UTF8')
FROM made
"""
EVENTS = """
INSERT INTO circuit.events (delivery, ordinal, id, tenant, object, event, record, order_key, handled)
SELECT id, 0, nextval('circuit.event_ids'), 'tenant' || n % 100, 'Contact', 'afterInsert', 'old' || n, 'old' || n, 1
FROM made
"""
OUTCOMES = """
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, at)
SELECT id, 0, 1, id, 'tenant' || n % 100, 'succeeded', at FROM made
"""
SEEN = """
INSERT INTO circuit.seen (source, account, vendor_id, delivery)
SELECT 'standard', 'shop', 'old' || n, id FROM made WHERE at > now() - interval '7 days'
"""


async def measure(bench: Bench) -> list[Figure]:
    total = bench.size(FULL, QUICK)
    bench.says(f"a ledger of {total:,} events")
    folder = CACHE / str(total)
    postgres = EmbeddedPostgres(folder)
    folder.mkdir(parents=True, exist_ok=True)
    server = await postgres.start()
    try:
        await _allow(postgres)
        large, took = await _ledger(bench, postgres, server, total)
        rounds, size = bench.size(5, 2), bench.size(8000, 1500)
        empty = await fresh_database(server, "empty")
        rates = await _interleaved(bench, large, empty, rounds, size)
    finally:
        await postgres.stop()
        if bench.quick:
            shutil.rmtree(folder, ignore_errors=True)
    slower = (1 - median(mine / theirs for mine, theirs in rates)) * 100
    note = (
        f"{median(one for one, _ in rates):,.0f}/s on {total:,} events, {median(two for _, two in rates):,.0f}/s on "
        f"none; median of {rounds} interleaved pairs of {size}" + (f"; made in {took:.0f} s" if took else "; cached")
    )
    smaller = f"QUICK: {total:,} events instead of {FULL:,}; " if bench.quick else ""
    return [Figure("ledger_10m_slowdown_pct", round(slower, 1), "%", "< 10", smaller + note)]


async def _interleaved(bench: Bench, large: str, empty: str, rounds: int, size: int) -> list[tuple[float, float]]:
    key, triggers = bench.vendor.public_key, app.SCORING.format(batch=200)
    async with (
        contestants.ours(bench.place("large"), large, key, triggers=triggers) as one_,
        contestants.ours(bench.place("empty"), empty, key, triggers=triggers) as other,
    ):
        for warmed in (one_, other):
            await bench.road(warmed, bench.contacts(1000))
        return [
            (
                (await bench.road(one_, bench.contacts(size))).rate,
                (await bench.road(other, bench.contacts(size))).rate,
            )
            for _ in range(rounds)
        ]


async def _ledger(bench: Bench, postgres: EmbeddedPostgres, server: str, total: int) -> tuple[str, float]:
    """The URL of the large database, and the seconds that it took to make it (0 if it was there)."""
    name = f"ledger_{_schema()}"
    url = server.replace("@/circuit?", f"@/{name}?", 1)
    if await one(server, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", (f"{name}",)) and await one(
        url, "SELECT to_regclass('public.whole') IS NOT NULL"
    ):
        return url, 0.0
    began = time.perf_counter()
    await fresh_database(server, name)
    await migrate(url)
    await execute(url, PARTITIONS)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET synchronous_commit = off")
        for first in range(1, total + 1, SLICE):
            last = min(total, first + SLICE - 1)
            bench.says(f"making a ledger: {last:,} of {total:,}")
            made = MADE.format(total=total, first=first, last=last)
            for statement in (made, DELIVERIES, EVENTS, OUTCOMES, SEEN, "DROP TABLE made"):
                await connection.execute(statement.encode())
        await connection.execute("ANALYZE")
        await connection.execute("CREATE TABLE public.whole ()")
    return url, time.perf_counter() - began


async def _allow(postgres: EmbeddedPostgres) -> None:
    """What `postgres.one_postgres` also allows: databases by the login role, and commit timestamps."""
    async with await psycopg.AsyncConnection.connect(postgres.superuser_url, autocommit=True) as connection:
        await connection.execute("ALTER ROLE circuit CREATEDB")
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    await postgres.stop()
    await postgres.start()


def _schema() -> str:
    """Tells one schema from another, so that migrations make the ledger anew."""
    folder = ROOT / "src" / "circuit_script" / "db" / "migrations"
    return sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.sql")))).hexdigest()[:12]
