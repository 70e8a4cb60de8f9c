"""Events that wait for money or a quota, on the real queue: waiting is no attempt."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.errors import QuotaExceeded
from circuit_script.events.status import StatusReader
from circuit_script.execution.broker import model_calls, outside
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Outcome, Succeeded, Work
from circuit_script.llm.models import TenantMoney
from circuit_script.telemetry.reader import LogQuery, LogReader
from circuit_script.tenants.entitlement import Unlimited
from tests.road import Road, contact, open_road

ASKS = HandlerSpec("asks", (("Contact", "afterInsert"),), batch_size=1, at_ceiling="defer", budget=1.0)
SPENT = "UPDATE circuit.budgets SET spent = %s WHERE scope = 'trigger'"
PROMPT = {"request": {"model": "big", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}}


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(ASKS)
        await made.run(
            "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent) "
            "VALUES ('trigger', '', 'asks', circuit.budget_day(), 1000000000)"
        )
        yield made


async def asks(work: Work, broker: ExecutionBroker) -> Outcome:
    """As a handler that lets BudgetDeferred through."""
    answer = await broker.request("llm", {**PROMPT, "record": 0})
    if (full := answer.get("full")) is not None:
        return Succeeded(broker.usage, {0: full["said"]}, {0: full["after"]})
    return Succeeded(broker.usage)


def soon(after: float) -> float:
    assert after > 1, "the seconds until a midnight"
    return random.uniform(0.01, 0.02)


async def test_who_waits_for_money_has_its_attempts_left_when_it_comes(
    open_bench: Any, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_calls, "spread", soon)
    async with open_bench(day=None, tenant=TenantMoney()) as bench:
        await road.start(asks, attempts=1, models=bench.models)
        await road.take_in(contact("c1"))
        await road.until("SELECT count(*) >= 3 FROM circuit.outcomes WHERE status = 'deferred'", [True])
        assert await road.rows("SELECT attempts FROM circuit.queue") == [0]
        assert bench.provider.asked == []

        await road.run(SPENT, 0)
        await road.done()
        assert len(bench.provider.asked) == 1
    ends = "SELECT DISTINCT status FROM circuit.{} ORDER BY 1"
    assert await road.rows(ends.format("outcomes")) == ["deferred", "succeeded"]
    assert await road.rows(ends.format("executions")) == ["deferred", "succeeded"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_it_is_told_how_many_wait_until_when_and_why_and_nothing_of_it_is_an_error(
    open_bench: Any, road: Road
) -> None:
    async with open_bench(day=None, tenant=TenantMoney()) as bench:
        await road.start(asks, models=bench.models)
        await road.take_in(contact("c1"), contact("c2"))
        await road.until("SELECT count(*) FROM circuit.queue WHERE waits_for IS NOT NULL", [2])
    status = await StatusReader(road.pool).read()
    (waits,) = status.put_off
    assert (waits["tenant"], waits["handler"], waits["n"]) == ("acme", "asks", 2)
    assert "a day's budget of asks is $1.00" in waits["reason"]
    assert status.at < waits["first"] <= waits["last"]
    assert status.errors == []
    async with road.pool.connection() as connection:
        lines = await LogReader(connection, LogQuery()).latest()
    assert {line.level for line in lines} == {"info"}
    assert lines[0].message.startswith("deferred: a day's budget of asks")


async def test_an_authors_own_retry_counts_also_beside_a_call_that_was_put_off(open_bench: Any, road: Road) -> None:
    async def copes(work: Work, broker: ExecutionBroker) -> Outcome:
        assert "full" in await broker.request("llm", {**PROMPT, "record": 0})
        return Succeeded(broker.usage, {0: "later"}, {0: 0.01})

    async with open_bench(day=None, tenant=TenantMoney()) as bench:
        await road.start(copes, attempts=2, models=bench.models)
        await road.take_in(contact("c1"))
        await road.done()
    assert await road.rows("SELECT attempts, reason FROM circuit.dead_letters") == [(2, "later")]
    assert await road.rows("SELECT status FROM circuit.outcomes ORDER BY at") == ["retry", "dead"]


class UsedUp(Unlimited):
    """A tenant's quota of callouts, used up for the first two."""

    left = 2

    async def spend(self, tenant: str, what: str, amount: int = 1) -> None:
        if self.left:
            self.left -= 1
            error = QuotaExceeded("5 of 5 are used.", retry_after=600.0)
            error.defer = True
            raise error


async def test_who_waits_for_a_quota_has_its_attempts_left_too(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "spread", soon)

    async def calls(work: Work, broker: ExecutionBroker) -> Outcome:
        asked = {"method": "GET", "url": "http://127.0.0.1:9/", "headers": [], "body": None, "record": 0}
        answer = await broker.request("http", asked)
        if (refused := answer.get("refused")) is not None:
            assert answer["defer"]
            return Succeeded(broker.usage, {0: refused[0]}, {0: refused[3]})
        return Succeeded(broker.usage)

    await road.start(calls, attempts=1, quotas=UsedUp())
    await road.take_in(contact("c1"))
    await road.done()
    ends = "SELECT status FROM circuit.outcomes ORDER BY at"
    assert await road.rows(ends) == ["deferred", "deferred", "succeeded"]
