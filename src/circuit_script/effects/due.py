"""Which effects may leave: the courier's reads.

First the groups in which something waits, then of each the oldest effects that are due, so that what may not leave now
costs nothing, however much of it there is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from circuit_script.clock import now
from circuit_script.connectors.connector import Effect
from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import JOBS
from circuit_script.telemetry.w3c import span_id, traceparent

# A lap over the groups, so many at a time: one probe of the index for each, which finds what is due first. Those that a
# vendor asked to leave alone are left alone by every worker.
GROUPS = """
WITH RECURSIVE waiting AS (
    (SELECT e.tenant, e.connector, e.operation, e.target, e.next_at, 1 AS nth FROM circuit.effects e
     WHERE e.status = 'pending' AND e.needs IS NULL
     AND (e.tenant, e.connector, e.operation, e.target) > (%s::text, %s::text, %s::text, %s::text)
     ORDER BY e.tenant, e.connector, e.operation, e.target, e.next_at LIMIT 1)
    UNION ALL
    SELECT n.*, w.nth + 1 FROM waiting w CROSS JOIN LATERAL (
        SELECT e.tenant, e.connector, e.operation, e.target, e.next_at FROM circuit.effects e
        WHERE e.status = 'pending' AND e.needs IS NULL
        AND (e.tenant, e.connector, e.operation, e.target) > (w.tenant, w.connector, w.operation, w.target)
        ORDER BY e.tenant, e.connector, e.operation, e.target, e.next_at LIMIT 1) n
    WHERE w.nth < %s
)
SELECT w.tenant, w.connector, w.operation, w.target, extract(epoch FROM greatest(w.next_at, (
    SELECT max(a.until) FROM circuit.courier_waits a WHERE a.tenant = w.tenant AND a.connector = w.connector
    AND a.target = w.target AND a.kind = 'asked')) - now())::float8
FROM waiting w
"""

# Of each group at most so many: the oldest effect of each order key, if it is due and not on its way; later ones wait
# behind it. Those of paused records stay, but for jobs: these wait in our own queue. Tenants take turns. Payloads are
# read last, of those that leave.
DUE = f"""
WITH first AS (
    SELECT h.id, h.seq, row_number() OVER (PARTITION BY g.tenant ORDER BY h.next_at, h.seq) AS turn
    FROM unnest(%(tenants)s::text[], %(connectors)s::text[], %(operations)s::text[], %(targets)s::text[],
                %(most)s::int[]) AS g (tenant, connector, operation, target, most)
    CROSS JOIN LATERAL (
        SELECT e.id, e.seq, e.next_at FROM circuit.effects e
        WHERE e.status = 'pending' AND e.needs IS NULL AND e.tenant = g.tenant AND e.connector = g.connector
        AND e.operation = g.operation AND e.target = g.target
        AND e.next_at <= now() AND e.lane = ANY(%(lanes)s::smallint[]) AND e.id <> ALL(%(flying)s::uuid[])
        AND (e.record IS NULL OR e.connector = '{JOBS}' OR (e.record <> ALL(%(records)s::text[])
             AND e.tenant || E'\\n' || e.record <> ALL(%(own_records)s::text[])))
        AND e.seq = (
            SELECT p.seq FROM circuit.effects p WHERE p.status = 'pending'
            AND p.tenant = e.tenant AND p.order_hash = e.order_hash ORDER BY p.seq LIMIT 1)
        ORDER BY e.next_at LIMIT g.most) h
    ORDER BY turn, h.seq LIMIT %(bulk)s
)
SELECT e.id, e.tenant, e.operation, e.target, e.record, e.payload, e.attempts, e.depth, e.if_version,
       e.execution, coalesce(e.trace, e.execution), e.was IS NOT NULL, e.connector, e.lane, e.left_at
FROM first JOIN circuit.effects e ON e.id = first.id ORDER BY first.turn, first.seq
"""


class Group(NamedTuple):
    """What leaves together: one tenant's effects of one operation to one target."""

    tenant: str
    connector: str
    operation: str
    target: str

    @property
    def place(self) -> tuple[str, str]:
        """Who gets them, whatever is to be done."""
        return self.connector, self.target


@dataclass(frozen=True, slots=True)
class Due:
    """An effect that may leave. ``left_at`` is when a request for it has left of which nobody heard what came; ``mark``
    is what this worker puts there when one leaves that must not be repeated blindly. ``trace`` is the one that it
    belongs to, ``execution`` who made it; ``homed``: it writes a record that lives outside, with a mirror here."""

    effect: Effect
    group: Group
    lane: int
    epoch: int
    left_at: datetime | None = None
    mark: datetime = field(default_factory=now)
    execution: UUID | None = None
    trace: UUID | None = None
    homed: bool = False

    @property
    def doubtful(self) -> bool:
        return self.left_at is not None


_FIRST = Group("", "", "", "")


class Lap:
    """Goes round the groups in which something waits, at most ``most`` at a time. ``soonest`` is in how many seconds
    the next of those waits is over that end at a known time, among the groups that this lap has come by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._after = _FIRST
        self.soonest = math.inf

    async def next(self, connection: Connection) -> tuple[list[Group], bool]:
        """Of the next groups those that may be asked for what is due; and whether the lap goes on behind them."""
        if self._after == _FIRST:
            self.soonest = math.inf
        rows = await (await connection.execute(GROUPS, [*self._after, self._most])).fetchall()
        goes_on = len(rows) >= self._most
        self._after = Group(*rows[-1][:4]) if goes_on else _FIRST
        self.soonest = min([self.soonest, *(wait for *_, wait in rows if wait > 0)])
        return [Group(*group) for *group, wait in rows if wait <= 0], goes_on


async def read_due(
    connection: Connection,
    most: Mapping[Group, int],
    epochs: Mapping[int, int],
    flying: Collection[UUID],
    bulk: int,
    paused: Collection[tuple[str | None, str]] = (),
) -> list[Due]:
    """What is due: of each group at most so many effects, of all at most ``bulk``, of the lanes ``epochs`` only, and
    nothing of ``paused`` records: (tenant, or None for each; id)."""
    values = {
        "tenants": [group.tenant for group in most],
        "connectors": [group.connector for group in most],
        "operations": [group.operation for group in most],
        "targets": [group.target for group in most],
        "most": list(most.values()),
        "lanes": list(epochs),
        "flying": list(flying),
        "bulk": bulk,
        "records": [record for tenant, record in paused if tenant is None],
        "own_records": [f"{tenant}\n{record}" for tenant, record in paused if tenant is not None],
    }
    rows = await (await connection.execute(DUE, values)).fetchall()
    found = []
    for *effect, execution, trace, homed, connector, lane, left_at in rows:
        made = Effect(*effect)
        made = replace(made, traceparent=traceparent(trace, span_id(made.id, made.attempts)))
        group = Group(made.tenant, connector, made.operation, made.target)
        found.append(Due(made, group, lane, epochs[lane], left_at, execution=execution, trace=trace, homed=homed))
    return found
