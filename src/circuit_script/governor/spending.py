"""What model calls have cost, which ones are not settled, and a person's word about one of these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.errors import SettleRefused

UNDER_WAY = 900  # seconds for which a reserved call may still be under way; no execution lasts longer by default

_SPENT = """
SELECT day, tenant, handler, model, count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0),
       coalesce(sum(cost) FILTER (WHERE status = 'settled'), 0)::bigint,
       coalesce(sum(cost) FILTER (WHERE status = 'unknown'), 0)::bigint,
       coalesce(sum(worst) FILTER (WHERE status = 'reserved'), 0)::bigint
FROM circuit.llm_calls WHERE day > circuit.budget_day() - %s::int
GROUP BY 1, 2, 3, 4 ORDER BY 1 DESC, 8 DESC, 2, 3, 4
"""
_UNSETTLED = """
SELECT id, at, status, tenant, handler, execution, provider, model, worst, coalesce(reason, ''),
       extract(epoch FROM clock_timestamp() - at)::float8
FROM circuit.llm_calls WHERE status <> 'settled' ORDER BY id DESC LIMIT %s
"""
_MEANT = """
SELECT id, status, extract(epoch FROM clock_timestamp() - at)::float8 FROM circuit.llm_calls
WHERE id::text LIKE %s || '%%' ORDER BY status = 'settled', id LIMIT 2
"""
_SETTLE = "SELECT circuit.settle_money(%s, %s, 'settled', NULL, NULL, NULL, NULL, %s, %s)"
_SETTLED = """
SELECT id, day, tenant, handler, model, worst, cost, settled_at, settled_by FROM circuit.llm_calls WHERE id = %s
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls of one day, tenant, handler and model. Amounts in nano-dollars: what is settled; what is unknown, and what
    is reserved, both at their worst case."""

    day: date
    tenant: str
    handler: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    settled: int
    unknown: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A call whose cost nobody knows: "reserved" (under way, or its worker crashed) or "unknown". ``worst`` in
    nano-dollars, ``age`` in seconds."""

    id: UUID
    at: datetime
    status: str
    tenant: str
    handler: str
    execution: UUID
    provider: str
    model: str
    worst: int
    reason: str
    age: float


@dataclass(frozen=True, slots=True)
class Reconciled:
    """A call that a person has settled. Amounts in nano-dollars."""

    id: UUID
    day: date
    tenant: str
    handler: str
    model: str
    worst: int
    cost: int
    at: datetime
    by: str


async def spent(connection: Connection, days: int) -> list[Spent]:
    """What was spent today and on the days before, ``days`` in all; the latest and dearest first."""
    rows = await (await connection.execute(_SPENT, [days])).fetchall()
    return [Spent(*row) for row in rows]


async def unsettled(connection: Connection, most: int) -> list[Unsettled]:
    """Calls that count at their worst case, the latest first."""
    rows = await (await connection.execute(_UNSETTLED, [most])).fetchall()
    return [Unsettled(*row) for row in rows]


async def reconcile(
    connection: Connection, which: str, cost: int | None, by: str, *, force: bool = False
) -> Reconciled:
    """Settle a call that is not: at ``cost`` nano-dollars, or at its worst case. ``which`` is its id, or how it begins;
    ``by`` is who says so. Raises SettleRefused, also for one that may be under way, unless ``force`` is given."""
    found = await (await connection.execute(_MEANT, [which.lower().replace("%", "")])).fetchall()
    if not found:
        raise SettleRefused(
            f"There is no call {which!r}.", cure="circuit-script spend lists those that are not settled."
        )
    if len(found) > 1 and found[1][1] != "settled":
        raise SettleRefused(f"Several calls begin with {which!r}.", cure="Give more of the id.")
    call, status, age = found[0]
    if status == "reserved" and age < UNDER_WAY and not force:
        raise SettleRefused(
            f"The call is {age:.0f} s old: it may still be under way, and will settle itself.",
            cure="If its worker is gone, say --force.",
        )
    said = f"reconciled by {by}"
    row = await (await connection.execute(_SETTLE, [call, cost, said, by])).fetchone()
    if row is None or row[0] != "settled":
        raise SettleRefused(f"The call {call} is settled already.")
    settled = await (await connection.execute(_SETTLED, [call])).fetchone()
    assert settled is not None  # it was there a moment ago, and calls are not deleted
    return Reconciled(*settled)
