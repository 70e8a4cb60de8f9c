"""What the road is doing now, for the status page: counts, depth, delay, the latest trouble.

Reads across tenants, for the operator. Watching stays cheap however large the ledger is: totals are counted
once and then only from where the last count could still change.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection, Pool
from circuit_script.effects.waits import Waiting as EffectsWaiting
from circuit_script.effects.waits import effects_waiting
from circuit_script.events.why import SUM

Row = dict[str, Any]

SHOWN = 15  # rows in each list
DEEPEST = 100_000  # the queue is counted up to here
FRESH = 0.9  # seconds for which an answer is given again
SHARE = 10  # an answer that took 1 s is given again for 10 s, so that watchers use at most a tenth of a core
_INTAKE_SLACK = 15.0  # seconds from a delivery's id to its commit, at most
_EXECUTION_SLACK = 90.0

_DELIVERIES = """
    SELECT CASE WHEN tenant IS NULL THEN 'unassigned' ELSE 'received' END,
           count(*) FILTER (WHERE id < %(settled)s), count(*) FILTER (WHERE id >= %(settled)s)
    FROM circuit.deliveries WHERE id >= %(counted)s GROUP BY 1
"""
_EVENTS = """
    SELECT CASE WHEN handled = 0 THEN 'unrouted' ELSE 'routed' END,
           count(*) FILTER (WHERE delivery < %(settled)s), count(*) FILTER (WHERE delivery >= %(settled)s)
    FROM circuit.events WHERE delivery >= %(counted)s GROUP BY 1
"""
_EXECUTIONS = """
    SELECT status, count(*) FILTER (WHERE id < %(settled)s), count(*) FILTER (WHERE id >= %(settled)s)
    FROM circuit.executions WHERE id >= %(counted)s GROUP BY 1
"""
_REFUSED = """
    SELECT source, reason, sum(n)::bigint AS n FROM circuit.refusals GROUP BY 1, 2 ORDER BY 3 DESC
"""
_QUEUE = f"""
    WITH waiting AS MATERIALIZED (
        SELECT delivery FROM circuit.queue
        WHERE id >= (SELECT min(low_water) FROM circuit.lanes) ORDER BY id LIMIT {DEEPEST}
    )
    SELECT count(*) AS depth, (SELECT delivery FROM waiting LIMIT 1) AS oldest FROM waiting
"""
# The first 48 bits of a delivery's id are its millisecond.
_DELAY = """
    SELECT count(*) AS n, percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(ms, 0)) AS ms
    FROM (
        SELECT extract(epoch FROM at)::float8 * 1000
               - ('x' || left(replace(delivery::text, '-', ''), 12))::bit(48)::bigint AS ms
        FROM circuit.outcomes WHERE delivery >= %s AND status NOT IN ('retry', 'deferred')
        ORDER BY delivery DESC LIMIT 5000
    ) latest
"""
_WORKERS = """
    SELECT host, pid, started_at, asleep FROM circuit.workers WHERE expires_at > now() ORDER BY started_at
"""
_LIVE = """
    SELECT r.id, r.content_hash, l.since FROM circuit.live l JOIN circuit.releases r ON r.id = l.release
"""
_EFFECTS = f"""
    SELECT count(*) AS n FROM (SELECT 1 FROM circuit.effects WHERE status = 'pending' LIMIT {DEEPEST}) p
"""
_RECENT = """
    SELECT x.id, x.tenant, h.name AS handler, x.object, x.event, x.records, x.status, x.reason,
           left(x.detail, 500) AS detail, x.ended_at AS at,
           round(extract(epoch FROM x.ended_at - x.started_at) * 1000)::bigint AS ms
    FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
"""
# Rows that wait for money or a quota; one that is due waits for a place like any other.
_PUT_OFF = f"""
    SELECT q.tenant, coalesce(h.name, '') AS handler, count(*) AS n, min(q.not_before) AS first,
           max(q.not_before) AS last, left(max(q.waits_for), 500) AS reason
    FROM circuit.queue q LEFT JOIN circuit.handlers h ON h.id = q.handler
    WHERE q.waits_for IS NOT NULL AND q.not_before > now()
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {SHOWN}
"""
_LATEST = f"{_RECENT} ORDER BY x.id DESC LIMIT {SHOWN}"
_TROUBLE = (
    f"{_RECENT} WHERE x.status NOT IN ('succeeded', 'echo', 'cancelled', 'deferred') ORDER BY x.id DESC LIMIT {SHOWN}"
)
# What a person has to look at: letters that are open, by their cause, and effects in doubt, whose letters are left out.
_NOT_IN_DOUBT = "(d.effect = ANY(ARRAY(SELECT e.id FROM circuit.effects e WHERE e.status = 'in_doubt'))) IS NOT TRUE"
_OPEN = f"""
    SELECT d.cause AS reason, count(*) AS n, (sum(count(*)) OVER ())::bigint AS of
    FROM circuit.dead_letters d WHERE d.status = 'open' AND {_NOT_IN_DOUBT}
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {SHOWN}
"""
_IN_DOUBT = "SELECT count(*) AS n FROM circuit.effects WHERE status = 'in_doubt'"
_DEAD = f"""
    SELECT d.id, d.kind, d.tenant, h.name AS handler, d.record, d.attempts, left(d.reason, 500) AS reason, d.at
    FROM circuit.dead_letters d LEFT JOIN circuit.handlers h ON h.id = d.handler
    WHERE d.status = 'open' AND {_NOT_IN_DOUBT} ORDER BY d.id DESC LIMIT {SHOWN}
"""
_UPKEEP = "SELECT chore, succeeded_at, failed_at, failure, detail FROM circuit.upkeep ORDER BY chore"


@dataclass(frozen=True, slots=True)
class Status:
    """One look at the road. Delays in milliseconds from delivery to outcome, over the last 5 minutes. ``dead_letters``
    are those that are open; effects ``in_doubt`` wait for a person's word."""

    at: datetime
    received: int
    unassigned: int
    refused: int
    refusals: list[Row]
    events: int
    unrouted: int
    queue_depth: int
    queue_age_s: float
    executions: dict[str, int]
    dead_letters: int
    dead_reasons: list[Row]
    in_doubt: int
    effects_pending: int
    delay_p50_ms: float | None
    delay_p95_ms: float | None
    delay_of: int
    workers: list[Row]
    live: Row | None
    latest: list[Row]
    errors: list[Row]
    dead: list[Row]
    put_off: list[Row]
    upkeep: list[Row]
    waits: list[Row]
    effects_waiting: list[EffectsWaiting]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many rows of a tenant and a handler wait for money or a quota: the first of them until ``first``, the last
    until ``last``."""

    tenant: str
    handler: str
    n: int
    first: datetime
    last: datetime
    reason: str


async def waiting(connection: Connection) -> list[Waiting]:
    """What waits for money or a quota, the most first."""
    return [Waiting(**row) for row in await _rows(connection, _PUT_OFF)]


class _Tally:
    """A total over a table whose ids are times. Rows younger than ``slack`` are counted again each time."""

    def __init__(self, statement: str, slack: float) -> None:
        self._statement = statement
        self._slack = slack
        self._settled: Counter[str] = Counter()
        self._counted = UUID(int=0)

    async def read(self, connection: Connection) -> Counter[str]:
        boundary = max(_floor(time.time() - self._slack), self._counted)
        cursor = await connection.execute(
            self._statement, {"settled": boundary, "counted": self._counted}, prepare=False
        )
        rows = await cursor.fetchall()
        young: Counter[str] = Counter()
        for key, old, new in rows:
            self._settled[key] += old
            young[key] += new
        self._counted = boundary
        return self._settled + young


class StatusReader:
    """Answers from a short memory, however many ask."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._deliveries = _Tally(_DELIVERIES, _INTAKE_SLACK)
        self._events = _Tally(_EVENTS, _INTAKE_SLACK)
        self._executions = _Tally(_EXECUTIONS, _EXECUTION_SLACK)
        self._turn = asyncio.Lock()
        self._latest: Status | None = None
        self._good_until = 0.0

    async def read(self) -> Status:
        """Raises psycopg.Error while the database is away."""
        async with self._turn:
            if self._latest is None or time.monotonic() >= self._good_until:
                began = time.monotonic()
                async with self._pool.connection(timeout=3) as connection:
                    self._latest = await self._look(connection)
                ended = time.monotonic()
                self._good_until = ended + max(FRESH, SHARE * (ended - began))
            return self._latest

    async def ready(self) -> None:
        """Raises psycopg.Error unless the ledger can be reached."""
        async with self._pool.connection(timeout=3) as connection:
            await connection.execute("SELECT 1 FROM circuit.lanes LIMIT 1")

    async def _look(self, connection: Connection) -> Status:
        deliveries = await self._deliveries.read(connection)
        events = await self._events.read(connection)
        executions = await self._executions.read(connection)
        refusals = await _rows(connection, _REFUSED)
        (queue,) = await _rows(connection, _QUEUE)
        (delay,) = await _rows(connection, _DELAY, (_floor(time.time() - 300),))
        dead = await _rows(connection, _OPEN)
        p50, p95 = delay["ms"] or (None, None)
        now = datetime.now(UTC)
        age = (now - time_of(queue["oldest"])).total_seconds() if queue["oldest"] else 0.0
        return Status(
            at=now,
            received=deliveries.total(),
            unassigned=deliveries["unassigned"],
            refused=sum(row["n"] for row in refusals),
            refusals=refusals,
            events=events.total(),
            unrouted=events["unrouted"],
            queue_depth=queue["depth"],
            queue_age_s=max(age, 0.0),
            executions=dict(executions),
            dead_letters=dead[0]["of"] if dead else 0,
            dead_reasons=[{"reason": row["reason"], "n": row["n"]} for row in dead],
            in_doubt=(await _rows(connection, _IN_DOUBT))[0]["n"],
            effects_pending=(await _rows(connection, _EFFECTS))[0]["n"],
            delay_p50_ms=p50,
            delay_p95_ms=p95,
            delay_of=delay["n"],
            workers=await _rows(connection, _WORKERS),
            live=next(iter(await _rows(connection, _LIVE)), None),
            latest=await _rows(connection, _LATEST),
            errors=await _rows(connection, _TROUBLE),
            dead=await _rows(connection, _DEAD),
            put_off=await _rows(connection, _PUT_OFF),
            upkeep=await _rows(connection, _UPKEEP),
            effects_waiting=await effects_waiting(connection),
            waits=await _rows(connection, SUM) if queue["depth"] else [],
        )


async def _rows(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters or None)
        return await cursor.fetchall()


def _floor(seconds: float) -> UUID:
    """The least version 7 UUID of that moment."""
    return UUID(int=int(seconds * 1000) << 80)
