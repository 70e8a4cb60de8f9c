"""What the monitor watches of the road: executions, dead letters, what waits, deliveries that were not taken."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.events.sources import Reason
from circuit_script.telemetry.alerts.counts import Minute, floor_of
from circuit_script.telemetry.alerts.look import Aged, Letters, Rate
from circuit_script.telemetry.alerts.slo import Objective

RECENT = timedelta(minutes=5)
DEEPEST = 20_000  # rows of the queue that are looked at, the oldest
MOST = 2000  # groups
OURS = (Reason.OVERLOADED, Reason.DATABASE_AWAY)  # refusals that are no fault of who sent

_FAILED = "x.status IN ('failed', 'breached', 'partial')"
_COUNTS = "x.status NOT IN ('held', 'cancelled', 'deferred', 'echo')"
_RATES = f"""
SELECT h.name, a.tenant, a.n, a.failed, a.slow
FROM (SELECT x.handler, x.tenant, grouping(x.tenant) AS whole, count(*) AS n,
             count(*) FILTER (WHERE {_FAILED}) AS failed,
             count(*) FILTER (WHERE x.ended_at - x.started_at > make_interval(secs => %s)) AS slow
      FROM circuit.executions x WHERE x.id >= %s AND {_COUNTS}
      GROUP BY GROUPING SETS ((x.handler), (x.handler, x.tenant))) a
JOIN circuit.handlers h ON h.id = a.handler ORDER BY a.whole DESC, a.failed DESC, a.slow DESC, a.n DESC LIMIT {MOST}
"""
_KEPT = f"""
SELECT date_trunc('minute', x.started_at), s.slo, s.name, count(*),
       count(*) FILTER (WHERE CASE WHEN s.p95 IS NULL THEN {_FAILED}
                              ELSE x.ended_at - x.started_at > make_interval(secs => s.p95) END)
FROM circuit.executions x
JOIN unnest(%(slos)s::text[], %(handlers)s::smallint[], %(names)s::text[], %(p95s)s::float8[])
     AS s (slo, handler, name, p95) ON s.handler = x.handler
WHERE x.id >= %(low)s AND x.id < %(high)s AND {_COUNTS} GROUP BY 1, 2, 3
"""
_TAKEN = """
SELECT date_trunc('minute', d.received_at), count(*) FROM circuit.deliveries d WHERE d.id >= %s AND d.id < %s GROUP BY 1
"""
_REFUSED = "SELECT coalesce(sum(n), 0)::bigint FROM circuit.refusals WHERE reason = ANY(%s)"
_HANDLERS = "SELECT id, name FROM circuit.handlers"
# Those of effects in doubt are told as such.
_LETTERS = f"""
SELECT CASE d.kind WHEN 'event' THEN coalesce(h.name, '') ELSE coalesce(
           (SELECT e.connector || '/' || e.operation FROM circuit.effects e WHERE e.id = max(d.effect::text)::uuid), '')
       END, d.tenant, count(*), left(min(d.cause), 200), d.kind = 'effect'
FROM (SELECT * FROM circuit.dead_letters WHERE status = 'open' LIMIT {DEEPEST}) d
LEFT JOIN circuit.handlers h ON h.id = d.handler
WHERE (d.effect = ANY(ARRAY(SELECT e.id FROM circuit.effects e WHERE e.status = 'in_doubt'))) IS NOT TRUE
GROUP BY d.kind, h.name, d.tenant, CASE d.kind WHEN 'effect' THEN d.cause END ORDER BY 3 DESC LIMIT {MOST}
"""
# What could run: it is not put off, nothing before it in its order is, and nobody has paused it.
_AGED = f"""
WITH waiting AS MATERIALIZED (
    SELECT q.id, q.handler, q.tenant, q.record, q.order_hash, q.delivery, q.not_before, q.held_until, q.event_age
    FROM (SELECT *, greatest(
              to_timestamp(('x' || left(replace(delivery::text, '-', ''), 12))::bit(48)::bigint / 1000.0),
              not_before) AS event_age FROM circuit.queue
          WHERE id >= (SELECT min(low_water) FROM circuit.lanes) ORDER BY id LIMIT {DEEPEST}) q
), placed AS (
    SELECT w.*, coalesce(bool_or(w.not_before > %(now)s AND coalesce(w.held_until > %(now)s, true)) OVER (
        PARTITION BY w.handler, w.tenant, w.order_hash ORDER BY w.id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS behind
    FROM waiting w
)
SELECT h.name, p.tenant, count(*), extract(epoch FROM %(now)s - min(p.event_age))::float8
FROM placed p JOIN circuit.handlers h ON h.id = p.handler
WHERE NOT p.behind AND (p.not_before IS NULL OR p.not_before <= %(now)s) AND p.event_age < %(now)s
  AND NOT EXISTS (
    SELECT 1 FROM circuit.pauses s WHERE (s.tenant IS NULL OR s.tenant = p.tenant OR s.kind = 'tenant') AND (
        s.kind = 'everything' OR (s.kind = 'trigger' AND s.value = h.name) OR (s.kind = 'tenant' AND s.value = p.tenant)
        OR (s.kind = 'record' AND s.value = p.record)))
GROUP BY 1, 2 ORDER BY 4 DESC LIMIT {MOST}
"""


async def rates(connection: Connection, now: datetime, slow: float) -> list[Rate]:
    """Executions of the last 5 minutes, by handler, and by handler and tenant; slow are those over so many seconds."""
    rows = await (await connection.execute(_RATES.encode(), [slow, floor_of(now - RECENT)])).fetchall()
    return [Rate(*row) for row in rows]


async def kept(connection: Connection, promises: Sequence[Objective], low: UUID, high: UUID) -> list[Minute]:
    """How executions between two ids kept the objectives about executions."""
    if low >= high:
        return []
    handlers = await (await connection.execute(_HANDLERS)).fetchall()
    of = [(each, id_, name) for each in promises for id_, name in handlers if each.covers(name)]
    if not of:
        return []
    values = {
        "slos": [each.name for each, _, _ in of],
        "handlers": [id_ for _, id_, _ in of],
        "names": [name for _, _, name in of],
        "p95s": [each.p95 for each, _, _ in of],
        "low": low,
        "high": high,
    }
    return [Minute(*row) for row in await (await connection.execute(_KEPT.encode(), values)).fetchall()]


async def taken(connection: Connection, promises: Sequence[Objective], low: UUID, high: UUID) -> list[Minute]:
    """Deliveries that were taken, for the objectives about them."""
    names = [each.name for each in promises if each.deliveries]
    if not names or low >= high:
        return []
    rows = await (await connection.execute(_TAKEN.encode(), [low, high])).fetchall()
    return [Minute(at, name, "", n, 0) for at, n in rows for name in names]


async def refused_by_us(connection: Connection) -> int:
    """How many deliveries were ever refused that should have been taken."""
    row = await (await connection.execute(_REFUSED, [list(OURS)])).fetchone()
    return int(row[0]) if row else 0


async def open_letters(connection: Connection) -> list[Letters]:
    """Open dead letters by handler and tenant, the most first."""
    return [Letters(*row) for row in await (await connection.execute(_LETTERS.encode())).fetchall()]


async def aged(connection: Connection, now: datetime) -> list[Aged]:
    """Events that could run and wait, by handler and tenant, the oldest first."""
    rows = await (await connection.execute(_AGED.encode(), {"now": now})).fetchall()
    return [Aged(*row) for row in rows]
