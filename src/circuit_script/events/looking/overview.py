"""How a tenant's road does, now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection
from circuit_script.events.looking.executions import TROUBLE, ExecutionQuery, Listed, list_executions

MINUTES = 60  # that are drawn
DEEPEST = 50_000  # executions, and rows of the queue, that one look goes through at most
NANO = Decimal(10) ** -9

# The newest, one row each; how far back that is may be less than an hour where there is very much.
_MINUTES = f"""
SELECT date_trunc('minute', ended_at) AS at, count(*), sum(records)::bigint,
       count(*) FILTER (WHERE status IN ('partial', 'failed', 'breached')),
       count(*) FILTER (WHERE status IN ('succeeded', 'partial', 'failed', 'breached'))
FROM (SELECT ended_at, records, status FROM circuit.executions
      WHERE id >= circuit.uuid_floor(%(now)s::timestamptz - interval '{MINUTES} minutes')
      ORDER BY id DESC LIMIT {DEEPEST}) newest
GROUP BY 1 ORDER BY 1
"""
_TOOK = """
SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(extract(epoch FROM ended_at - started_at), 0))
FROM (SELECT started_at, ended_at FROM circuit.executions
      WHERE id >= circuit.uuid_floor(%(now)s::timestamptz - interval '15 minutes')
        AND status IN ('succeeded', 'partial', 'failed', 'breached')
      ORDER BY id DESC LIMIT 5000) newest
"""
_QUEUE = f"""
SELECT count(*), (array_agg(delivery ORDER BY id))[1] FROM (
    SELECT id, delivery FROM circuit.queue WHERE id >= circuit.queue_floor() ORDER BY id LIMIT {DEEPEST}) waiting
"""
_SPENT = """
SELECT coalesce(sum(spent + reserved), 0)::bigint FROM circuit.budgets
WHERE scope = 'tenant day' AND period = circuit.budget_day()
"""
# Of what is open there is little, or somebody is about to look at it: counted up to what nobody tells apart.
_OPEN = """
SELECT (SELECT count(*) FROM (SELECT FROM circuit.dead_letters WHERE status = 'open' LIMIT 10001) d),
       (SELECT count(*) FROM (SELECT FROM circuit.effects WHERE status = 'in_doubt' LIMIT 10001) e),
       (SELECT count(*) FROM (SELECT FROM circuit.effects WHERE status = 'pending' LIMIT 10001) e)
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """What ended within a minute: executions, the records of their batches, those with trouble, those that ran."""

    at: datetime
    executions: int
    records: int
    trouble: int
    ran: int


@dataclass(frozen=True, slots=True)
class Overview:
    """One look. Times in seconds, of the last 15 minutes; ``spent`` is of today (UTC), in US dollars. ``minutes`` has
    one for each of the last hour, also where nothing ended; ``partly`` says that there was too much to count it all."""

    at: datetime
    minutes: list[Minute]
    partly: bool
    p50: float | None
    p95: float | None
    spent: Decimal
    queue_depth: int
    queue_age: float
    dead_letters: int
    in_doubt: int
    effects_pending: int
    latest: list[Listed]
    trouble: list[Listed]

    @property
    def per_minute(self) -> float:
        """Records of the last five whole minutes, for each of them."""
        whole = self.minutes[-6:-1]
        return sum(each.records for each in whole) / max(len(whole), 1)

    @property
    def errors(self) -> float | None:
        """The share of the hour's executions that had trouble; None where none ran."""
        ran = sum(each.ran for each in self.minutes)
        return sum(each.trouble for each in self.minutes) / ran if ran else None


async def overview(connection: Connection, *, shown: int = 8) -> Overview:
    """One look, within ``tenant_reading``."""
    now = datetime.now(UTC)
    counted = await _rows(connection, _MINUTES, now)
    (took,) = await _rows(connection, _TOOK, now)
    (queue,) = await _rows(connection, _QUEUE, now)
    (spent,) = await _rows(connection, _SPENT, now)
    (open_,) = await _rows(connection, _OPEN, now)
    p50, p95 = took[0] or (None, None)
    return Overview(
        at=now,
        minutes=_every(counted, now),
        partly=sum(row[1] for row in counted) >= DEEPEST,
        p50=p50,
        p95=p95,
        spent=Decimal(spent[0]) * NANO,
        queue_depth=queue[0],
        queue_age=max((now - time_of(queue[1])).total_seconds(), 0.0) if queue[1] else 0.0,
        dead_letters=open_[0],
        in_doubt=open_[1],
        effects_pending=open_[2],
        latest=(await list_executions(connection, ExecutionQuery(limit=shown))).rows,
        trouble=(await list_executions(connection, ExecutionQuery(status=TROUBLE, limit=shown))).rows,
    )


def _every(counted: list[tuple[Any, ...]], now: datetime) -> list[Minute]:
    found = {row[0].astimezone(UTC): row for row in counted}
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    moments = (first + timedelta(minutes=place) for place in range(MINUTES))
    return [Minute(at, *(found[at][1:] if at in found else (0, 0, 0, 0))) for at in moments]


async def _rows(connection: Connection, statement: str, now: datetime) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement.encode(), {"now": now})).fetchall()
