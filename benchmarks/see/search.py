"""How long a search of the log takes among ten million lines, as an operator and as a tenant.

The lines are made once, by COPY, in a PostgreSQL of its own under .bench: spread over 30 days, of two hundred tenants.
Each further run searches what is there; another schema or another maker makes them anew.

    python -m benchmarks.see.search [ROWS]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.processes import ROOT
from benchmarks.see.kept import kept_database
from circuit_script.db.migrate import migrate
from circuit_script.db.pool import open_connection
from circuit_script.telemetry import LogQuery, LogReader

FULL = 10_000_000
CACHE = ROOT / ".bench" / "log"
DAYS = 30
TENANTS = 200
QUERIES = 200
FAILED = 100  # one of so many lines has an execution that failed
SEED = 6
_PARTITIONS = """
SELECT circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date - n)
FROM unnest(ARRAY['circuit_logs', 'executions']) AS parent, generate_series(0, 31) AS n
"""
_INDEX = "SELECT pg_get_indexdef('circuit.circuit_logs_words'::regclass)"
_BUILD = "SELECT build, attach FROM circuit.indexes_to_build()"
_LINES = (
    'COPY circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record, "user", release) '
    "FROM STDIN"
)
_EXECUTIONS = (
    "COPY circuit.executions (id, tenant, release, handler, object, event, records, status, reason, detail, "
    "started_at, ended_at, usage) FROM STDIN"
)
_LEVELS = ["debug"] * 10 + ["info"] * 79 + ["warning"] * 7 + ["error"] * 3 + ["critical"]
_CITIES = ["Austin", "Dallas", "Plano", "Waco", "New York", "El Paso", "Tulsa", "Reno"]
_SAID = (
    "scored the lead",
    "enriched from census",
    "skipped: consent is missing",
    "wrote back to the CRM",
    "asked the model for a summary",
    "rate limit of the vendor, trying again",
    "phone number does not look right",
    "matched an earlier contact",
)
_SYLLABLES = ("ka", "lo", "mi", "ter", "vo", "ran", "su", "bel", "nor", "fi", "gra", "dun", "pe", "sha", "wix", "zor")


async def measure(rows: int, kept: Path = CACHE) -> dict[str, Any]:
    """The 95th percentile of 200 mixed searches, in milliseconds, and among how many lines they were made."""
    async with kept_database(kept, rows, Path(__file__), _make) as url:
        return await _measured(url, rows)


# What is searched ---------------------------------------------------------------------------------


async def _make(url: str, superuser: str, rows: int) -> None:
    await migrate(url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_PARTITIONS)
        row = await (await connection.execute(_INDEX)).fetchone()
        await connection.execute("DROP INDEX circuit.circuit_logs_words")
    database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    owner = psycopg.conninfo.make_conninfo(superuser, dbname=str(database))
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:  # row security refuses COPY
        await connection.execute("SET synchronous_commit = off")
        for statement, lines in ((_LINES, _lines(rows)), (_EXECUTIONS, _executions(rows))):
            async with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for chunk in lines:
                    await copy.write(chunk)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute(row[0] if row else "")
        for build, attach in await (
            await connection.execute(_BUILD)
        ).fetchall():  # as maintenance does, but nobody waits
            await connection.execute(build.replace(" CONCURRENTLY ", " "))
            await connection.execute(attach)
        await connection.execute("SELECT circuit.count_no_words()")
        await connection.execute("VACUUM ANALYZE circuit.circuit_logs, circuit.executions")


def _lines(rows: int) -> Iterator[bytes]:
    chance, words = random.Random(SEED), _vocabulary()
    tenants, shares = [f"tenant{n}" for n in range(TENANTS)], [1 / (n + 1) for n in range(TENANTS)]
    chosen = chance.choices(tenants, shares, k=100_000)
    chunk: list[str] = []
    for n, (at, execution) in enumerate(_moments(rows, chance)):
        lead, handler = chance.randrange(1_000_000), chance.randrange(40)
        level, pick = _LEVELS[chance.randrange(100)], chance.randrange(5000)
        said = f"{_SAID[n % 8]} {words[pick]} {words[int(5000 * chance.random() ** 3)]}"
        context = (
            f'{{"lead": {lead}, "score": {n % 100}, "city": "{_CITIES[lead % 8]}", "took": {chance.random():.3f}, '
            f'"request": "{chance.getrandbits(48):012x}"'
            + (f', "model": {{"name": "m{n % 5}", "tokens": {pick}}}}}' if n % 10 == 0 else "}")
        )
        record = f"c{lead}" if n % 5 < 3 else "\\N"
        user = f"ann{pick}" if n % 10 == 1 else "\\N"
        tenant = chosen[chance.randrange(100_000)]
        chunk.append(
            f"{at}\t{level}\t{said}\t{context}\t{execution}\tApp.handler{handler}\t{tenant}\t{record}\t{user}\t1\n"
        )
        if len(chunk) == 2000:
            yield "".join(chunk).encode()
            chunk.clear()
    yield "".join(chunk).encode()


def _executions(rows: int) -> Iterator[bytes]:
    chance, words = random.Random(SEED + 1), _vocabulary()
    for at, execution in _moments(rows // FAILED, chance):
        tenant = f"tenant{int(TENANTS * chance.random() ** 3)}"
        reason = f"ValueError: no {words[chance.randrange(5000)]} for this lead"
        yield (
            f"{execution}\t{tenant}\t1\t1\tContact\tafterInsert\t1\tfailed\t{reason}\tTraceback\t{at}\t{at}\t{{}}\n"
        ).encode()


def _moments(rows: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Times of lines and the executions that they belong to, in order."""
    ends = datetime.now(UTC) - timedelta(minutes=5)
    first = ends - timedelta(days=DAYS)
    for n in range(rows):
        at = first + timedelta(days=DAYS) * (n / rows)
        head = int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62
        yield at.isoformat(), str(UUID(int=head | (n & 0xFFFFFFF) << 32 | chance.getrandbits(32)))


def _vocabulary() -> list[str]:
    chance = random.Random(SEED)
    return ["".join(chance.choices(_SYLLABLES, k=chance.randrange(2, 5))) for _ in range(5000)]


# The searches -------------------------------------------------------------------------------------


def _questions(sample: list[tuple[Any, ...]]) -> Iterator[tuple[str, LogQuery]]:
    """Kinds of questions, each about something else that is there."""
    chance, words = random.Random(SEED + 2), _vocabulary()
    kinds = (
        "execution:{execution}",
        "record:{record}",
        "lead={lead}",
        "request={request}",
        "user:ann{n}",
        "level:error",
        "level:critical handler:handler{handler}",
        "{word}",
        "{word} {other}",
        '"{said} {word}"',
        "level:error {word} since:7d",
        "handler:App.handler{handler} consent",
        "city=Waco score={score} level:warning",
        "model.tokens={n}",
        "nobodywrotethis",
        "{request}",
        "since:20d until:19d {word}",
        "since:2h",
        "census {prefix}",
        "score={score} {word} level:error",
    )
    for number in range(QUERIES):
        execution, message, context, record, tenant = sample[number % len(sample)]
        values = {
            "execution": execution,
            "record": record or f"c{context['lead']}",
            "lead": context["lead"],
            "request": context["request"],
            "n": chance.randrange(5000),
            "handler": chance.randrange(40),
            "word": words[chance.randrange(5000)],
            "other": message.split()[-1],
            "said": _SAID[number % 8],
            "score": chance.randrange(100),
            "prefix": words[chance.randrange(5000)][:4],
        }
        kind = kinds[number % len(kinds)]
        query = LogQuery.parse(kind.format(**values))
        yield kind, replace(query, tenant=tenant) if (number // len(kinds)) % 2 else query


_SAMPLE = """
    SELECT execution, message, context, record, tenant FROM circuit.circuit_logs TABLESAMPLE SYSTEM (1)
    WHERE context ? 'lead' LIMIT 2000
"""


async def _measured(url: str, rows: int) -> dict[str, Any]:
    took: dict[str, list[float]] = defaultdict(list)
    found = unfinished = 0
    connection = await open_connection(url)
    async with connection:
        sample = await (await connection.execute(_SAMPLE)).fetchall()
        random.Random(SEED).shuffle(sample)
        await LogReader(connection, LogQuery(text="warm")).page()
        for kind, query in _questions(sample):
            began = time.perf_counter()
            page = await LogReader(connection, query).page()
            took[f"{kind}{' (tenant)' if query.tenant else ''}"].append((time.perf_counter() - began) * 1000)
            found += len(page.lines)
            unfinished += page.looked_back_to is not None
        size = await (
            await connection.execute(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits "
                "WHERE inhparent = 'circuit.circuit_logs'::regclass"
            )
        ).fetchone()
    whole = sorted(each for times in took.values() for each in times)
    return {
        "log_search_p95_ms": round(whole[int(len(whole) * 0.95)], 1),
        "log_rows": rows,
        "log_search_p50_ms": round(whole[len(whole) // 2], 1),
        "log_search_worst_ms": round(whole[-1], 1),
        "log_lines_found": found,
        "log_pages_unfinished": unfinished,
        "log_bytes_per_row": round(int(size[0]) / rows) if size else 0,
        "by_kind": {kind: round(max(times), 1) for kind, times in took.items()},
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)), indent=2))
