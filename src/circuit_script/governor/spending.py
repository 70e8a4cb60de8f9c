"""What model calls have cost, which ones are not settled, and a person's word about one of these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.errors import SettleRefused
from circuit_script.governor.money import dollars

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
SELECT id, status, extract(epoch FROM clock_timestamp() - at)::float8, worst FROM circuit.llm_calls
WHERE starts_with(id::text, %s) ORDER BY status = 'settled', id LIMIT 2
"""
_SETTLE = "SELECT circuit.settle_money(%s, %s, 'settled', NULL, NULL, NULL, NULL, %s, %s)"
_SETTLED = """
SELECT c.id, c.day, c.tenant, c.handler, c.model, c.worst, c.cost, c.settled_at, c.settled_by,
       b.was, b.was_cost, b.was_by, b.was_at
FROM circuit.llm_calls c
CROSS JOIN LATERAL (SELECT * FROM circuit.llm_corrections WHERE call = c.id ORDER BY at DESC LIMIT 1) b
WHERE c.id = %s
"""
_BUDGETS = """
SELECT s.scope, b.tenant, b.handler, b.spent, b.reserved, s.resets_on::timestamp AT TIME ZONE 'UTC'
FROM circuit.budget_scopes('', '', circuit.budget_day()) AS s
JOIN circuit.budgets AS b ON b.scope = s.scope AND b.period = s.period
ORDER BY array_position(ARRAY['day', 'tenant day', 'tenant month', 'trigger'], s.scope), b.tenant, b.handler
"""
# Of a busy day as many as can be counted at once.
_ANSWERING = """
SELECT provider, model, count(*), count(*) FILTER (WHERE status = 'unknown'),
       coalesce(sum(coalesce(cost, worst)), 0)::bigint, max(at)
FROM (SELECT provider, model, status, cost, worst, at FROM circuit.llm_calls
      WHERE day = circuit.budget_day() LIMIT 100000) c
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 50
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
    """A call that a person has settled. Amounts in nano-dollars; ``was`` is its status before, with the cost that it
    had then, who had said so (None: the platform) and when."""

    id: UUID
    day: date
    tenant: str
    handler: str
    model: str
    worst: int
    cost: int
    at: datetime
    by: str
    was: str
    was_cost: int | None
    was_by: str | None
    was_at: datetime | None


@dataclass(frozen=True, slots=True)
class Account:
    """What a scope ("day", "tenant day", "tenant month", "trigger") has used of its period. In nano-dollars."""

    scope: str
    tenant: str
    handler: str
    spent: int
    reserved: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Answering:
    """Calls of one model of one provider today. ``unknown`` are those that ended without a cost; ``cost`` is in
    nano-dollars, of what is not settled at its worst case."""

    provider: str
    model: str
    calls: int
    unknown: int
    cost: int
    last: datetime


async def providers_of(connection: Connection) -> list[Answering]:
    """Who answered model calls today, the most asked first."""
    rows = await (await connection.execute(_ANSWERING)).fetchall()
    return [Answering(*row) for row in rows]


async def accounts(connection: Connection) -> list[Account]:
    """Every scope that has been used in its day or month."""
    rows = await (await connection.execute(_BUDGETS)).fetchall()
    return [Account(*row) for row in rows]


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
    ``by`` is who says so. Raises SettleRefused, and unless ``force`` is given also for one that may be under way, or is
    settled already, and for a cost over its worst case."""
    found = await (await connection.execute(_MEANT, [which.lower()])).fetchall() if which else []
    if not found:
        raise SettleRefused(
            f"There is no call {which!r}.", cure="circuit-script spend lists those that are not settled."
        )
    if len(found) > 1 and (found[0][1] == "settled" or found[1][1] != "settled"):
        raise SettleRefused(f"Several calls begin with {which!r}.", cure="Give more of the id.")
    call, status, age, worst = found[0]
    if status == "reserved" and age < UNDER_WAY and not force:
        raise SettleRefused(
            f"The call is {age:.0f} s old: it may still be under way, and will settle itself.",
            cure="If its worker is gone, say --force.",
        )
    if status == "settled" and not force:
        raise SettleRefused(
            f"The call {call} is settled already.", cure="To correct it, say --force: what it was before is kept."
        )
    if cost is not None and cost > worst and not force:
        raise SettleRefused(
            f"It could cost {dollars(worst)} at worst, and {dollars(cost)} is more.",
            cure="If the provider's bill says so, say --force.",
        )
    said = f"reconciled by {by}"
    row = await (await connection.execute(_SETTLE, [call, cost, said, by])).fetchone()
    if row is None or row[0] != "settled":
        raise SettleRefused(f"There is no call {call} any more.")
    settled = await (await connection.execute(_SETTLED, [call])).fetchone()
    assert settled is not None  # it was there a moment ago, and calls are not deleted
    return Reconciled(*settled)
