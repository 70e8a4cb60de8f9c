"""Money: the worst case of a call is reserved before it, and its cost is settled after it.

A reservation counts in four scopes at once: the handler's day, the tenant's day and month, and the day of all tenants.
It is refused as a whole when it does not fit into one of them. Days and months are UTC, by the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from circuit_script.db.pool import Pool
from circuit_script.governor.money import dollars

RESERVE = """
SELECT scope, ceiling, spent, reserved, resets_at, resets_in
FROM circuit.reserve_money(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
SETTLE = "SELECT circuit.settle_money(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
VOID = "SELECT circuit.void_money(%s, %s, %s, %s, %s, %s, %s, %s)"

Verdict = Literal["settled", "before", "missing"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """One call that is to be made. ``worst`` in nano-dollars, ``tokens`` of its input and output together."""

    id: UUID
    execution: UUID
    tenant: str
    handler: str
    record: str | None
    provider: str
    model: str
    requested: str
    tokens: int
    worst: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What may be spent, in nano-dollars; None is without bound."""

    handler_day: int | None = None
    tenant_day: int | None = None
    tenant_month: int | None = None
    day: int | None = None


@dataclass(frozen=True, slots=True)
class Full:
    """A scope into which a reservation does not fit. Amounts in nano-dollars; ``resets_in`` are seconds by the clock of
    the database, whatever this host's says."""

    scope: str
    ceiling: int
    spent: int
    reserved: int
    resets_at: datetime
    resets_in: float

    @property
    def left(self) -> int:
        """What could still be reserved."""
        return max(0, self.ceiling - self.spent - self.reserved)

    def said(self, tenant: str, handler: str) -> str:
        """Which budget it is and how it stands, for a person."""
        name = {
            "trigger": f"a day's budget of {handler}",
            "tenant day": f"a day's budget of tenant {tenant!r}",
            "tenant month": f"a month's budget of tenant {tenant!r}",
            "day": "a day's budget of all tenants",
        }[self.scope]
        return (
            f"{name} is {dollars(self.ceiling)}, of which {dollars(self.spent)} are spent and {dollars(self.reserved)} "
            f"reserved; it resets at {self.resets_at:%Y-%m-%d %H:%M} UTC"
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """How a call ended. ``cost`` in nano-dollars; None: nobody knows, so its worst case counts and its status is
    unknown. ``answered`` is the model that the provider says has answered."""

    cost: int | None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    answered: str | None = None
    reason: str | None = None


class Money(Protocol):
    """Who keeps the accounts."""

    async def reserve(self, asked: Reservation, ceilings: Ceilings) -> list[Full]: ...

    async def settle(self, call: UUID, how: Settled) -> Verdict: ...

    async def void(self, asked: Reservation, reason: str) -> None: ...


class Budget:
    """The accounts in the database. Every method is one statement, and so one transaction; raises psycopg.Error."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve(self, asked: Reservation, ceilings: Ceilings) -> list[Full]:
        """Reserve the worst case in all scopes. Returns the scopes that are full: then nothing was reserved."""
        values = (
            asked.id, asked.execution, asked.tenant, asked.handler, asked.record, asked.provider, asked.model,
            asked.requested, asked.tokens, asked.worst, ceilings.handler_day, ceilings.tenant_day,
            ceilings.tenant_month, ceilings.day,
        )  # fmt: skip
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(RESERVE, values)).fetchall()
        return [Full(*row) for row in rows]

    async def settle(self, call: UUID, how: Settled) -> Verdict:
        """Put the cost in the place of the reservation, on the day of the reservation. A second time changes nothing
        ("before")."""
        status = "unknown" if how.cost is None else "settled"
        values = (
            call, how.cost, status, how.tokens_in, how.tokens_out, how.tokens_cached, how.answered, how.reason, None,
        )  # fmt: skip
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SETTLE, values)).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        verdict: Verdict = row[0]
        return verdict

    async def void(self, asked: Reservation, reason: str) -> None:
        """Give back what was reserved for a call that was not made, also when the reservation is still on its way:
        then it will fail."""
        values = (
            asked.id, asked.execution, asked.tenant, asked.handler, asked.provider, asked.model, asked.requested,
            reason,
        )  # fmt: skip
        async with self._pool.connection() as connection:
            await connection.execute(VOID, values)


class Unkept:
    """No accounts: for a dry run, of which nothing must be stored."""

    async def reserve(self, asked: Reservation, ceilings: Ceilings) -> list[Full]:
        return []

    async def settle(self, call: UUID, how: Settled) -> Verdict:
        return "settled"

    async def void(self, asked: Reservation, reason: str) -> None:
        return None
