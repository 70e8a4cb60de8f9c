"""A million executions to look at: made once, by COPY, in a PostgreSQL of its own under .bench."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from uuid import UUID

import psycopg

from benchmarks.see.kept import kept_database
from circuit_script.db.migrate import migrate
from circuit_script.db.pool import Connection

DAYS = 30
TENANTS = ("acme", "bolt", *(f"tenant{n}" for n in range(8)))
SHARES = (60, 15, *(25 / 8 for _ in range(8)))  # of a hundred executions
HANDLERS = 12
RECORDS = 200_000
SEED = 11

_PARTITIONS = """
SELECT circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date - n)
FROM unnest(ARRAY['deliveries', 'events', 'executions', 'outcomes', 'circuit_logs', 'traces']) AS parent,
     generate_series(0, 31) AS n
"""
_TABLES = {
    "deliveries (id, received_at, source, account, tenant, headers, body)": "_delivery",
    "events (delivery, ordinal, id, tenant, object, event, record, order_key, handled)": "_event",
    "executions (id, tenant, release, handler, object, event, records, status, reason, detail, started_at, ended_at, "
    "usage)": "_execution",
    "outcomes (delivery, ordinal, handler, execution, tenant, status, reason, at)": "_outcome",
    "circuit_logs (at, level, message, context, execution, handler, tenant, record, release)": "_line",
}  # fmt: skip
_TROUBLE = """
INSERT INTO circuit.dead_letters (kind, tenant, delivery, ordinal, handler, execution, record, attempts, reason,
                                  event_id, object, event, at)
SELECT 'event', o.tenant, o.delivery, o.ordinal, o.handler, o.execution, e.record, 5, o.reason, e.id, e.object, e.event,
       o.at
FROM circuit.outcomes o JOIN circuit.events e USING (delivery, ordinal)
WHERE o.status = 'dead' ORDER BY o.at DESC LIMIT 2000
"""


class Row:
    """One execution of one record, and all that is stored of it."""

    def __init__(self, n: int, at: datetime, chance: random.Random) -> None:
        self.n = n
        self.at = at
        self.tenant = chance.choices(TENANTS, SHARES)[0]
        self.handler = min(int(chance.expovariate(0.5)), HANDLERS - 1) + 1
        self.record = f"c{chance.randrange(RECORDS)}"
        self.status = chance.choices(("succeeded", "failed", "breached", "echo"), (95, 2, 1, 2))[0]
        self.took = chance.expovariate(8.0)
        self.delivery = _uuid7(at, chance)
        self.execution = _uuid7(at + timedelta(milliseconds=30), chance)
        self.reason = "ValueError: no score for Nobody" if self.status in ("failed", "breached") else "\\N"

    @property
    def _delivery(self) -> str:
        body = json.dumps({"type": "ContactCreate", "id": self.record, "locationId": self.tenant}).encode().hex()
        return f"{self.delivery}\t{self.at}\tgohighlevel\tloc\t{self.tenant}\t{{}}\t\\\\x{body}\n"

    @property
    def _event(self) -> str:
        return f"{self.delivery}\t0\t{self.n}\t{self.tenant}\tContact\tafterUpdate\t{self.record}\t{self.record}\t1\n"

    @property
    def _execution(self) -> str:
        ended = self.at + timedelta(seconds=self.took)
        usage = '{"wall_time": 0.2, "cpu_time": 0.05, "callouts": 2, "db_queries": 3}'
        return (
            f"{self.execution}\t{self.tenant}\t1\t{self.handler}\tContact\tafterUpdate\t1\t{self.status}\t{self.reason}\t\\N"
            f"\t{self.at}\t{ended}\t{usage}\n"
        )

    @property
    def _outcome(self) -> str:
        status = {"failed": "dead", "breached": "dead"}.get(self.status, self.status)
        return (
            f"{self.delivery}\t0\t{self.handler}\t{self.execution}\t{self.tenant}\t{status}\t{self.reason}\t{self.at}\n"
        )

    @property
    def _line(self) -> str:
        level = "error" if self.reason != "\\N" else "info"
        said = f'{{"lead": "{self.record}", "score": {self.n % 100}}}'
        return (
            f"{self.at}\t{level}\tscored the lead\t{said}\t{self.execution}\tLeads.handler{self.handler}\t{self.tenant}"
            f"\t{self.record}\t1\n"
        )


def _uuid7(at: datetime, chance: random.Random) -> UUID:
    tail = chance.getrandbits(74)
    return UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & (1 << 62) - 1)


@asynccontextmanager
async def ground(rows: int, kept: Path) -> AsyncIterator[str]:
    """The URL of a database with so many executions, the newest of now."""
    async with kept_database(kept, rows, Path(__file__), _make) as url:
        yield url


async def _make(url: str, superuser: str, rows: int) -> None:
    await migrate(url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_PARTITIONS)
        await _release(connection)
    owner = psycopg.conninfo.make_conninfo(superuser, dbname=str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:  # row security refuses COPY
        await connection.execute("SET synchronous_commit = off")
        for table, part in _TABLES.items():
            async with connection.cursor() as cursor, cursor.copy(f"COPY circuit.{table} FROM STDIN".encode()) as copy:
                for chunk in _chunks(rows, attrgetter(part)):
                    await copy.write(chunk)
        await connection.execute("SELECT setval('circuit.event_ids', %s)", [rows + 1])
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_TROUBLE.encode())
        found = await (await connection.execute("SELECT build, attach FROM circuit.indexes_to_build()")).fetchall()
        for build, attach in found:  # as maintenance does, but nobody waits
            await connection.execute(build.replace(" CONCURRENTLY ", " ").encode())
            await connection.execute(attach.encode())
        await connection.execute("VACUUM ANALYZE")


async def _release(connection: Connection) -> None:
    manifest = [{"name": f"Leads.handler{n}", "limits": {"callouts": 50}} for n in range(1, HANDLERS + 1)]
    await connection.execute(
        "INSERT INTO circuit.releases (content_hash, platform, manifest) VALUES ('bench', 'bench', %s)",
        [json.dumps(manifest)],
    )
    await connection.execute("INSERT INTO circuit.live (release) SELECT id FROM circuit.releases")
    for each in manifest:
        await connection.execute("INSERT INTO circuit.handlers (name) VALUES (%s)", [each["name"]])


def _chunks(rows: int, part: Callable[[Row], str]) -> Iterator[bytes]:
    """One table's lines. Each table makes the same rows anew: a million of them need not stand in memory."""
    chance = random.Random(SEED)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)  # each table within the same hour
    step = timedelta(days=DAYS) / rows
    chunk: list[str] = []
    for n in range(rows):
        chunk.append(part(Row(n + 1, now - step * (rows - n), chance)))
        if len(chunk) == 2000:
            yield "".join(chunk).encode()
            chunk.clear()
    yield "".join(chunk).encode()
