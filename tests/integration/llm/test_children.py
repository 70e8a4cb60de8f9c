"""Models as handlers call them: real children, a real broker, a provider over real HTTP, real accounts."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.unit import UnitOfWork
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import SPREAD, Breached, Failed, Outcome, Succeeded, Work
from circuit_script.governor import MB, Limits
from circuit_script.governor.money import NANO
from circuit_script.llm.models import TenantMoney
from tests.integration.llm.conftest import Bench, Kept
from tests.openai_provider import IN, OUT, Do
from tests.road import eventually

pytestmark = pytest.mark.evasion

APP = """
import asyncio
from pydantic import BaseModel
from pydantic_ai import Agent
from circuit_script import BudgetExceeded, GovernedModel, LimitExceeded, llm, log, run, trigger

class Lead(BaseModel):
    name: str
    score: int

agent = Agent(GovernedModel("big"))
typed = Agent(GovernedModel(), output_type=Lead)

@agent.tool_plain
def weather(city: str) -> str:
    return f"it rains in {city}"

@trigger("Contact", ["afterInsert"])
async def asks(context):
    log.info(await llm.complete("hi", model="big", system="be short", max_tokens=50, temperature=0.5))

@trigger("Contact", ["afterInsert"])
async def asks_for_a_type(context):
    lead = await llm.complete("who?", Lead)
    log.info(f"{type(lead).__name__} {lead.name} {lead.score}")

@trigger("Contact", ["afterInsert"])
async def uses_a_tool(context):
    result = await agent.run("what is the weather in Bonn?")
    log.info(f"{result.output} {result.usage.total_tokens}")

@trigger("Contact", ["afterInsert"])
async def streams(context):
    async with agent.run_stream("hi") as result:
        log.info("|".join([piece async for piece in result.stream_text(delta=True, debounce_by=None)]))

@trigger("Contact", ["afterInsert"])
async def streams_a_little(context):
    async with agent.run_stream("hi") as result:
        async for piece in result.stream_text(delta=True, debounce_by=None):
            log.info(piece)
            break

@trigger("Contact", ["afterInsert"])
def asks_in_plain_code(context):
    log.info(run(llm.complete("hi")))
    log.info(agent.run_sync("hi again").output)

@trigger("Contact", ["afterInsert"])
async def copes(context):
    try:
        await llm.complete("hi")
    except BudgetExceeded as full:
        log.info(f"{full.scope} {full.ceiling} {full.spent} {full.reserved} {full.resets_at > 0}")

@trigger("Contact", ["afterInsert"])
async def agent_copes(context):
    try:
        await agent.run("hi")
    except BudgetExceeded as full:
        log.info(f"{type(full).__name__} {full.scope}")

@trigger("Contact", ["afterInsert"])
async def defers(context):
    for record in context.new_records:
        async with context.record(record):
            if record["ask"]:
                await llm.complete("hi")

@trigger("Contact", ["afterInsert"])
async def many(context):
    async def one(number):
        try:
            await llm.complete(f"number {number}", max_tokens=2000)
            return 1
        except BudgetExceeded:
            return 0
    log.info(str(sum(await asyncio.gather(*(one(n) for n in range(25))))))
"""


class Run:
    """Executions of the app's handlers."""

    def __init__(self, bench: Bench, children: Children, client: httpx.AsyncClient) -> None:
        self.bench = bench
        self.children = children
        self.client = client
        self.lines: list[str] = []
        self.put_off: set[float] = set()

    async def __call__(
        self, handler: str, *records: dict[str, Any], tenant: str = "acme", at_ceiling: str | None = None, **limits: Any
    ) -> Outcome:
        given = list(records) or [{"id": "1"}]
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant=tenant,
            object="Contact",
            event="afterInsert",
            records=given,
            old=[None] * len(given),
            events=[{} for _ in given],
            limits=Limits(memory=512 * MB, **limits),
            started_at=time.time(),
            at_ceiling=at_ceiling,
        )
        ends = time.monotonic() + work.limits.wall_time
        models = self.bench.models
        broker = ExecutionBroker(
            work,
            BrokerParts(crm=LocalCRM(self.bench.pool), client=self.client, knows=lambda *_: False, models=models),
            held=UnitOfWork("Contact", [each["id"] for each in given]),
            journal=Kept(),
            log=lambda line: self.lines.append(line["message"]),
            remaining=lambda: ends - time.monotonic(),
        )
        self.lines.clear()
        self.put_off = broker.put_off
        try:
            outcome = await self.children.run(work, broker)
        finally:
            broker.close()
        assert outcome is not None
        return outcome


@contextlib.asynccontextmanager
async def running(bench: Bench, folder: Path, *, size: int = 2) -> AsyncIterator[Run]:
    (folder / "app.py").write_text(textwrap.dedent(APP))
    async with httpx.AsyncClient() as client:
        children = Children(app_folder=folder, app="app", size=size, on_change=lambda: None)
        await children.start()
        try:
            yield Run(bench, children, client)
        finally:
            await children.stop()


def answering(asked: dict[str, Any]) -> Do:
    """What a model would say."""
    tools = [each["function"]["name"] for each in asked.get("tools", ())]
    if "final_result" in tools:
        return Do(tool=("final_result", {"name": "Ada", "score": 7}))
    if "Bonn" in str(asked["messages"][0]) and len(asked["messages"]) == 1:
        return Do(tool=("weather", {"city": "Bonn"}))
    if asked["messages"][-1]["role"] == "tool":
        return Do(text=f"They say {asked['messages'][-1]['content']}.")
    return Do()


async def test_models_answer_handlers_and_agents(open_bench: Any, tmp_path: Path) -> None:
    async with open_bench(answering) as bench, running(bench, tmp_path) as app:
        outcome = await app("asks")
        assert isinstance(outcome, Succeeded), outcome
        assert app.lines == ["Hello there, friend!"]
        (sent,) = bench.provider.asked
        assert sent["messages"] == [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}]
        assert (sent["max_completion_tokens"], sent["temperature"]) == (50, 0.5)
        assert bench.provider.keys == ["Bearer sk-secret"]
        usage = outcome.usage
        assert (usage.llm_calls, usage.llm_tokens, usage.callouts) == (1, 15, 0)
        assert usage.llm_cost == (10 * IN + 5 * OUT) / NANO
        assert await bench.rows("SELECT record, tenant, handler, model FROM circuit.llm_calls") == [
            ("1", "acme", "asks", "big")
        ]

        assert isinstance(await app("asks_for_a_type"), Succeeded)
        assert app.lines == ["Lead Ada 7"]
        assert isinstance(await app("uses_a_tool"), Succeeded)
        assert app.lines == ["They say it rains in Bonn. 30"]
        outcome = await app("asks_in_plain_code")
        assert isinstance(outcome, Succeeded), outcome
        assert app.lines == ["Hello there, friend!"] * 2
        assert outcome.usage.llm_calls == 2

        outcome = await app("streams")
        assert isinstance(outcome, Succeeded), outcome
        assert app.lines == ["Hello |there, |friend! "]
        assert outcome.usage.llm_cost == (10 * IN + 5 * OUT) / NANO
        assert bench.provider.billed == sum(await bench.rows("SELECT cost FROM circuit.llm_calls"))


async def test_what_is_cut_short_counts_at_its_worst_case(open_bench: Any, tmp_path: Path) -> None:
    async with open_bench(lambda asked: Do(text="word " * 500)) as bench, running(bench, tmp_path) as app:

        async def settled() -> bool:
            return {(status, cost == worst) for status, cost, worst in await bench.ledger()} == {("unknown", True)}

        stopped = await app("streams_a_little")
        assert isinstance(stopped, Succeeded), stopped
        await eventually(settled, "a stream that nobody reads to its end is settled")

        bench.provider.behave = lambda asked: Do(wait=asyncio.Event())
        killed = await app("asks", wall_time=1.5)
        assert isinstance(killed, Breached | Failed), killed
        await eventually(settled, "a call of an execution that is killed is settled")
        assert len(await bench.ledger()) == 2
        spent, reserved = (await bench.scopes())["day"]
        assert (spent, reserved) == (round((stopped.usage.llm_cost + killed.usage.llm_cost) * NANO), 0)


async def test_a_handler_may_catch_that_there_is_no_money(open_bench: Any, tmp_path: Path) -> None:
    async with open_bench(tenant=TenantMoney(day=NANO)) as bench, running(bench, tmp_path) as app:
        await spend_nearly_all(bench)
        assert isinstance(await app("copes"), Succeeded)
        assert app.lines == ["tenant day 1.0 0.99999 0.0 True"]
        assert isinstance(await app("agent_copes"), Succeeded)
        assert app.lines == ["BudgetExceeded tenant day"]
        outcome = await app("asks")
        assert isinstance(outcome, Failed)
        assert "BudgetExceeded: The money for model calls is used up. a day's budget of tenant" in outcome.reason

        outcome = await app("defers", {"id": "1", "ask": False}, {"id": "2", "ask": True}, at_ceiling="defer")
        assert isinstance(outcome, Succeeded), outcome
        assert list(outcome.errors) == [1]
        assert "there is no money for a model call: a day's budget of tenant" in outcome.errors[1]
        assert 0 < (outcome.decided[1] or 0) <= 86_400 + SPREAD
        assert outcome.decided[1] in app.put_off, "by this the road knows what it waits for"
        assert bench.provider.asked == []


async def spend_nearly_all(bench: Bench) -> None:
    """Of a tenant's dollar a thousandth of a cent is left."""
    async with bench.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent) "
            "VALUES ('tenant day', 'acme', '', circuit.budget_day(), 999990000)"
        )


async def test_a_hundred_calls_at_once_against_a_dollar_never_spend_more(open_bench: Any, tmp_path: Path) -> None:
    def behave(asked: dict[str, Any]) -> Do:
        number = len(bench.provider.asked)
        match number % 10:
            case 3:
                return Do(status=429, headers={"retry_after": "0.01"})
            case 5:
                return Do(cut=0)
            case 7:
                return Do(usage=False, tokens_out=2000)
            case _:
                return Do(tokens_out=1700)

    async with open_bench(behave, day=1.0, tenant=TenantMoney()) as bench, running(bench, tmp_path, size=4) as app:
        outcomes = await asyncio.gather(
            *(app("many", tenant=f"tenant {number % 3}", llm_calls=200, llm_tokens=10**6) for number in range(4))
        )
        await bench.models.settling.close(5.0)
        spent, reserved = (await bench.rows("SELECT spent, reserved FROM circuit.budgets WHERE scope = 'day'"))[0]
        assert reserved == 0
        assert bench.provider.billed <= spent <= NANO, outcomes
        assert spent > 0.5 * NANO
        assert spent == sum(await bench.rows("SELECT cost FROM circuit.llm_calls"))
        assert bench.provider.billed > 0.4 * NANO
