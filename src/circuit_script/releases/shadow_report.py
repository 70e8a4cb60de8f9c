"""What a shadow has shown so far: how many records were the same, what differs, and what both took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.releases.shadows import Shadow

FIRST = 20  # differences that are shown

TOTALS = """
SELECT count(*) FILTER (WHERE state <> 'taken'), count(*) FILTER (WHERE state = 'taken'),
    coalesce(sum(records) FILTER (WHERE state <> 'taken'), 0), coalesce(sum(different), 0),
    coalesce(sum(incomparable), 0),
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY live_ms),
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY shadow_ms),
    coalesce(sum(live_cost), 0)::float8, coalesce(sum(shadow_cost), 0)::float8,
    coalesce(sum(live_calls), 0), coalesce(sum(shadow_calls), 0)
FROM circuit.comparisons WHERE shadow = %s
"""
HANDLERS = """
SELECT handler, count(*), sum(records), sum(different), sum(incomparable)
FROM circuit.comparisons WHERE shadow = %s AND state <> 'taken' GROUP BY handler ORDER BY handler
"""
FIRSTS = """
SELECT execution, handler, tenant, state, differences FROM circuit.comparisons
WHERE shadow = %s AND state = ANY(%s) ORDER BY execution LIMIT %s
"""
ONE = """
SELECT execution, handler, tenant, state, differences FROM circuit.comparisons WHERE shadow = %s AND execution = %s
"""
MANIFESTS = """
SELECT ARRAY(SELECT h ->> 'name' FROM jsonb_array_elements(r.manifest) h),
       ARRAY(SELECT h ->> 'name' FROM jsonb_array_elements(a.manifest) h)
FROM circuit.releases r, circuit.releases a WHERE r.id = %s AND a.id = %s
"""
WAITING = """
SELECT count(*) FROM circuit.recordings r WHERE r.release = %(against)s
  AND r.execution >= circuit.uuid_floor(%(opened)s)
  AND NOT EXISTS (SELECT FROM circuit.comparisons c WHERE c.shadow = %(shadow)s AND c.execution = r.execution)
"""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that differs, or that was asked and could not be answered. ``record`` is None for the execution as a
    whole; ``state`` is "different" or "incomparable"."""

    execution: UUID
    handler: str
    tenant: str | None
    state: str
    record: str | None
    what: str
    field: str
    live: Any
    candidate: Any


@dataclass(frozen=True, slots=True)
class HandlerShare:
    """One handler's part."""

    name: str
    executions: int
    records: int
    different: int
    incomparable: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of the median and of the slowest twentieth, dollars of models, and calls."""

    p50: float | None
    p95: float | None
    cost: float
    calls: int


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """``waiting`` recordings are not compared yet. ``only_there`` are handlers of the candidate that the live release
    does not have, so that they are not compared; ``only_live`` those that it lacks, whose records are incomparable."""

    shadow: Shadow
    executions: int
    waiting: int
    records: int
    different: int
    incomparable: int
    live: Figures
    candidate: Figures
    handlers: Sequence[HandlerShare]
    only_there: Sequence[str]
    only_live: Sequence[str]
    differences: Sequence[Found]
    unanswered: Sequence[Found]

    @property
    def same(self) -> int:
        return self.records - self.different - self.incomparable

    @property
    def share(self) -> float:
        """Of the records, those that are not the same; 0 where nothing was compared."""
        return (self.different + self.incomparable) / self.records if self.records else 0.0

    @property
    def skipped(self) -> Mapping[str, int]:
        """Executions that were not recorded, by why."""
        shadow = self.shadow
        return {"sample": shadow.skipped_sample, "rate": shadow.skipped_rate, "size": shadow.skipped_size}

    @property
    def doubt(self) -> str:
        """Why it is not promoted by itself; empty where nothing speaks against that."""
        allowed = self.shadow.promote_below or 0.0
        if self.records < self.shadow.least:
            return f"{self.records:,} records were compared, fewer than {self.shadow.least:,}"
        if self.share > allowed:
            not_same = self.different + self.incomparable
            return (
                f"{not_same:,} of {self.records:,} records are not the same ({self.share:.2%}, allowed {allowed:.2%})"
            )
        return ""


async def report_of(connection: Connection, shadow: Shadow, first: int = FIRST) -> ShadowReport:
    """What it has shown so far. Raises psycopg.Error."""
    row = await (await connection.execute(TOTALS, [shadow.id])).fetchone()
    assert row is not None
    executions, taken, records, different, incomparable, live_ms, shadow_ms, *money = row
    handlers = [HandlerShare(*each) for each in await (await connection.execute(HANDLERS, [shadow.id])).fetchall()]
    manifests = await (await connection.execute(MANIFESTS, [shadow.release, shadow.against])).fetchone()
    theirs, ours = (set(each) for each in manifests) if manifests is not None else (set[str](), set[str]())
    waiting = taken if shadow.closed is not None else await _waiting(connection, shadow) + taken
    live_cost, shadow_cost, live_calls, shadow_calls = money
    return ShadowReport(
        shadow=shadow,
        executions=executions,
        waiting=waiting,
        records=int(records),
        different=int(different),
        incomparable=int(incomparable),
        live=_figures(live_ms, live_cost, live_calls),
        candidate=_figures(shadow_ms, shadow_cost, shadow_calls),
        handlers=handlers,
        only_there=sorted(theirs - ours),
        only_live=sorted(ours - theirs),
        differences=await _firsts(connection, shadow, "different", first),
        unanswered=await _firsts(connection, shadow, "incomparable", first),
    )


async def comparison_of(connection: Connection, shadow: Shadow, execution: UUID) -> tuple[str, list[Found]] | None:
    """What came of one execution: its state, and all that was kept of it; None where it was not compared."""
    row = await (await connection.execute(ONE, [shadow.id, execution])).fetchone()
    return None if row is None else (row[3], _found(*row))


def _figures(percentiles: Sequence[float | None] | None, cost: float, calls: int) -> Figures:
    p50, p95 = percentiles or (None, None)
    return Figures(p50, p95, cost, int(calls))


async def _waiting(connection: Connection, shadow: Shadow) -> int:
    values = {"against": shadow.against, "opened": shadow.opened, "shadow": shadow.id}
    row = await (await connection.execute(WAITING, values)).fetchone()
    return row[0] if row else 0


async def _firsts(connection: Connection, shadow: Shadow, state: str, first: int) -> list[Found]:
    rows = await (await connection.execute(FIRSTS, [shadow.id, [state], first])).fetchall()
    return [each for row in rows for each in _found(*row)][:first]


def _found(
    execution: UUID, handler: str, tenant: str | None, state: str, differences: Sequence[Sequence[Any]]
) -> list[Found]:
    return [Found(execution, handler, tenant, state, *each) for each in differences]
