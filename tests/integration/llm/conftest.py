"""`bench`: calls of models for one execution, against a provider on a port of this host and the database's accounts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.db.pool import Pool, open_pool
from circuit_script.execution.broker.model_calls import ModelCalls
from circuit_script.execution.outcome import Work
from circuit_script.governor import Limits, Meter
from circuit_script.governor.budget import Budget, Money
from circuit_script.governor.money import NANO, nanos
from circuit_script.llm import Models, Price, Prices
from circuit_script.llm import Provider as Address
from circuit_script.llm.models import ModelOptions, TenantMoney
from tests.loopback import NOBODY
from tests.openai_provider import Do, Provider, providing

PRICE = Price.plain(Decimal(1), Decimal(10))
CHEAP = Price.plain(Decimal("0.1"), Decimal(1))


@dataclass
class Kept:
    """A journal in memory."""

    replies: dict[tuple[int | None, bytes], bytes] = field(default_factory=dict)

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return self.replies.get((owner, key))

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self.replies[owner, key] = reply


@dataclass
class Bench:
    """What a test asks, and looks at."""

    provider: Provider
    pool: Pool
    models: Models
    client: httpx.AsyncClient
    made: list[ModelCalls] = field(default_factory=list)

    def calls(
        self,
        *,
        journal: Kept | None = None,
        remaining: float = 20.0,
        tenant: str = "acme",
        handler: str = "h",
        budget: float | None = None,
        at_ceiling: str | None = None,
        **limits: Any,
    ) -> ModelCalls:
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant=tenant,
            object="Contact",
            event="afterInsert",
            records=[{"id": "a"}],
            old=[None],
            events=[{}],
            limits=Limits(**limits),
            budget=budget,
            at_ceiling=at_ceiling,
        )
        ends = time.monotonic() + remaining
        self.meter = Meter(work.limits, 1)
        found = ModelCalls(
            work,
            meter=self.meter,
            journal=journal or Kept(),
            models=self.models,
            remaining=lambda: ends - time.monotonic(),
        )
        self.made.append(found)
        return found

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.pool.connection() as connection:
            found = await (await connection.execute(query.encode(), values)).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    async def ledger(self) -> list[Any]:
        """(status, cost, worst) of each call."""
        return await self.rows("SELECT status, cost, worst FROM circuit.llm_calls ORDER BY id")

    async def scopes(self) -> dict[str, tuple[int, int]]:
        """Spent and reserved of each scope."""
        found = await self.rows("SELECT scope, spent, reserved FROM circuit.budgets")
        return {scope: (spent, reserved) for scope, spent, reserved in found}


def prompt(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"request": {"model": "big", "messages": [{"role": "user", "content": text}], **more}, "record": None}


def worst(tokens_in: int, tokens_out: int) -> int:
    return PRICE.worst(tokens_in, tokens_out)


OpenBench = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@pytest.fixture
def open_bench(database: str, pooler: bool) -> OpenBench:
    @contextlib.asynccontextmanager
    async def opened(
        behave: Callable[[dict[str, Any]], Do] = lambda asked: Do(),
        *,
        day: float | None = 20.0,
        tenant: TenantMoney | None = None,
        at_ceiling: str = "refuse",
        money: Callable[[Pool], Money] = Budget,
        key: str | None = "sk-secret",
    ) -> AsyncIterator[Bench]:
        tenant = tenant or TenantMoney(day=5 * NANO)
        async with providing(behave) as provider, httpx.AsyncClient(verify=NOBODY) as client:
            pool = await open_pool(database, min_size=1, max_size=8, name="test", pooler=pooler)
            address = Address("openai", provider.url, ("big", "small"), client, key=key, openai=True)
            options = ModelOptions(
                "big", "small", 1000, None if day is None else nanos(day), at_ceiling, lambda _: tenant
            )
            models = Models(
                options, providers=[address], prices=Prices({"big": PRICE, "small": CHEAP}), money=money(pool)
            )
            bench = Bench(provider, pool, models, client)
            try:
                yield bench
            finally:
                for calls in bench.made:
                    calls.close()
                await models.settling.close(5.0)
                await pool.close()

    return opened
