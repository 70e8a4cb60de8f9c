"""Counts behind the objectives: executions and deliveries by minute and by hour, each counted once.

What is young may still be committed, so it is counted anew at each look; what is older is added to the stored counts,
and the mark behind which everything is counted moves in the same transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection
from circuit_script.telemetry.alerts.look import Counted
from circuit_script.telemetry.alerts.slo import BY_HOUR, SPANS

SLACK = timedelta(minutes=5)  # an execution that takes longer is not counted
INTAKE_SLACK = timedelta(seconds=15)  # from a delivery's id to its commit, at most
STRIDE = timedelta(minutes=15)  # that are added at one look at most, after a time in which nobody looked
BACK = timedelta(hours=1)  # that are added at the first look of all
LONGEST = timedelta(days=3)  # of all windows
AHEAD = timedelta(days=1)  # that a host's clock may be
KEPT_MINUTES = timedelta(hours=7)
KEPT_HOURS = timedelta(days=92)

_MARK = "SELECT counted, taken, refused FROM circuit.monitor"
_MOVE = "UPDATE circuit.monitor SET counted = %s, taken = %s, refused = %s"
_ADD = """
INSERT INTO circuit.slo_counts AS c (grain, at, slo, handler, total, bad)
SELECT g.grain, date_trunc(g.grain, r.at, 'UTC'), r.slo, r.handler, sum(r.total)::bigint, sum(r.bad)::bigint
FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]) AS r (at, slo, handler, total, bad)
CROSS JOIN (VALUES ('minute'), ('hour')) AS g (grain)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (grain, at, slo, handler) DO UPDATE SET total = c.total + excluded.total, bad = c.bad + excluded.bad
"""
_SUMS = """
SELECT c.slo, c.handler, w.span, sum(c.total)::bigint, sum(c.bad)::bigint
FROM unnest(%(spans)s::integer[], %(grains)s::text[]) AS w (span, grain)
JOIN circuit.slo_counts c ON c.grain = w.grain AND c.at > %(now)s - make_interval(secs => w.span) AND c.at <= %(now)s
GROUP BY 1, 2, 3
"""
_FORGET = """
DELETE FROM circuit.slo_counts WHERE (grain = 'minute' AND at < %s) OR (grain = 'hour' AND at < %s)
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """How an objective was kept in a minute."""

    at: datetime
    slo: str
    handler: str
    total: int
    bad: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Who reads what is counted: executions between two ids, deliveries between two ids, and how many refusals there
    have been that were our own fault."""

    executions: Callable[[Connection, UUID, UUID], Awaitable[Sequence[Minute]]]
    deliveries: Callable[[Connection, UUID, UUID], Awaitable[Sequence[Minute]]]
    refused: Callable[[Connection], Awaitable[int]]
    availability: Sequence[str] = ()  # the names of objectives about deliveries


async def advance(connection: Connection, sources: Sources, now: datetime) -> list[Minute]:
    """Add what is settled, in the transaction of the caller, who holds the lease. Returns what is young."""
    row = await (await connection.execute(_MARK)).fetchone()
    counted, taken, refused = row if row else (None, None, None)
    present = await sources.refused(connection)
    low, high = _stride(counted, now, SLACK)
    first, last = _stride(taken, now, INTAKE_SLACK)
    settled = [*await sources.executions(connection, low, high), *await sources.deliveries(connection, first, last)]
    if refused is not None and present > refused:
        settled += [Minute(now, name, "", present - refused, present - refused) for name in sources.availability]
    if settled:
        await _add(connection, settled)
    await connection.execute(_MOVE, [high, last, present])
    return list(await sources.executions(connection, max(high, floor_of(now - SLACK)), floor_of(now + AHEAD)))


def _stride(mark: UUID | None, now: datetime, slack: timedelta) -> tuple[UUID, UUID]:
    """What is to be added now: from the mark on, a stride at most, and nothing that may still be committed."""
    if mark is not None and mark > floor_of(now):  # made by a clock that was ahead: nothing would count until then
        mark = floor_of(now - slack)
    low = floor_of(now - BACK) if mark is None else max(mark, floor_of(now - LONGEST))
    return low, max(low, min(floor_of(time_of(low) + STRIDE), floor_of(now - slack)))


def floor_of(moment: datetime) -> UUID:
    """The least version 7 UUID of that moment."""
    return UUID(int=round(moment.timestamp() * 1000) << 80)


async def windows(connection: Connection, young: Iterable[Minute], now: datetime) -> list[Counted]:
    """How each objective was kept over each window, with what is young."""
    values = {"spans": list(SPANS), "grains": ["hour" if span > BY_HOUR else "minute" for span in SPANS], "now": now}
    found: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for slo, handler, length, total, bad in await (await connection.execute(_SUMS, values)).fetchall():
        found.setdefault((slo, handler), {})[length] = (total, bad)
    for each in young:
        sums = found.setdefault((each.slo, each.handler), {})
        for length in SPANS:
            total, bad = sums.get(length, (0, 0))
            sums[length] = (total + each.total, bad + each.bad)
    return [Counted(slo, handler, sums) for (slo, handler), sums in found.items()]


async def forget_counts(connection: Connection, now: datetime) -> None:
    """Delete counts that no window reaches any more."""
    await connection.execute(_FORGET, [now - KEPT_MINUTES, now - KEPT_HOURS])


async def _add(connection: Connection, rows: Sequence[Minute]) -> None:
    await connection.execute(
        _ADD,
        [
            [each.at for each in rows],
            [each.slo for each in rows],
            [each.handler for each in rows],
            [each.total for each in rows],
            [each.bad for each in rows],
        ],
    )
