"""Calls of models for one execution, over real HTTP and with real accounts."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from circuit_script.execution.broker.model_calls import ModelCalls
from circuit_script.execution.outcome import SPREAD
from circuit_script.governor import LimitExceeded, LoopFound
from circuit_script.governor.budget import Budget, Ceilings, Full, Reservation
from circuit_script.governor.money import NANO
from circuit_script.llm.models import TenantMoney
from tests.integration.llm.conftest import Kept, prompt
from tests.openai_provider import IN, OUT, Do
from tests.road import eventually, happens

COST = 10 * IN + 5 * OUT  # of the provider's usual answer


@pytest.mark.every_server
async def test_a_call_is_reserved_at_its_worst_case_and_settled_at_its_cost(open_bench: Any) -> None:
    gate = asyncio.Event()
    async with open_bench(lambda asked: Do(wait=gate)) as bench:
        calls = bench.calls()
        asking = asyncio.create_task(calls.llm(prompt()))
        await happens(lambda: bool(bench.provider.asked), "the provider is asked")
        ((status, cost, worst),) = await bench.ledger()
        assert (status, cost) == ("reserved", None)
        assert set((await bench.scopes()).values()) == {(0, worst)}
        assert bench.meter.usage.llm_cost == worst / NANO
        gate.set()
        answer = await asking
        assert json.loads(answer["body"])["choices"][0]["message"]["content"] == "Hello there, friend!"
        assert await bench.ledger() == [("settled", COST, worst)]
        assert await bench.scopes() == dict.fromkeys(("trigger", "tenant day", "tenant month", "day"), (COST, 0))
        usage = bench.meter.usage
        assert (usage.llm_calls, usage.llm_tokens, usage.llm_cost) == (1, 15, COST / NANO)
        assert bench.provider.billed == COST
        assert bench.provider.keys == ["Bearer sk-secret"]
        (sent,) = bench.provider.asked
        assert (sent["max_completion_tokens"], sent["service_tier"]) == (1000, "default")


async def test_a_record_that_is_tried_again_does_not_pay_twice(open_bench: Any) -> None:
    async with open_bench() as bench:
        journal = Kept()
        first = await bench.calls(journal=journal).llm(prompt())
        again = bench.calls(journal=journal)
        assert await again.llm(prompt()) == first
        assert bench.meter.usage.llm_cost == 0
        await again.llm(prompt())  # the second equal call of this attempt is a new one
        assert len(bench.provider.asked) == 2


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (Do(status=400, error={"message": "wrong sk-secret schema"}), "openai answered 400: wrong … schema"),
        (Do(status=429, error={"message": "pay", "code": "insufficient_quota"}), "openai answered 429: pay"),
        (Do(status=500), "openai answered 500: it is too much"),
    ],
)
async def test_what_the_provider_refuses_costs_nothing(open_bench: Any, do: Do, reason: str) -> None:
    async with open_bench(lambda asked: do) as bench:
        answer = await bench.calls(remaining=1.0).llm(prompt())
        assert answer["refused"][0] == f"model big: {reason}."
        ((status, cost, _),) = await bench.ledger()
        assert (status, cost) == ("settled", 0)
        assert bench.meter.usage.llm_cost == 0


@pytest.mark.parametrize("do", [Do(cut=0), Do(cut=20), Do(usage=False), Do(status=504), Do(raw=b"no json")])
async def test_what_may_have_been_billed_counts_at_its_worst_case(open_bench: Any, do: Do) -> None:
    async with open_bench(lambda asked: do) as bench:
        answer = await bench.calls(remaining=5.0).llm(prompt())
        assert ("body" in answer) == (do == Do(usage=False))
        ((status, cost, worst),) = await bench.ledger()
        assert (status, cost) == ("unknown", worst)
        assert set((await bench.scopes()).values()) == {(worst, 0)}
        assert len(bench.provider.asked) == 1
        assert bench.provider.billed <= worst


async def test_a_provider_that_is_busy_is_asked_again_after_the_time_that_it_wants(open_bench: Any) -> None:
    said = iter([Do(status=429, headers={"retry_after": "0.6"}), Do(status=503), Do()])
    async with open_bench(lambda asked: next(said)) as bench:
        began = time.monotonic()
        assert "body" in await bench.calls().llm(prompt())
        assert time.monotonic() - began >= 0.6 + 1.0
        assert [cost for _, cost, _ in await bench.ledger()] == [0, 0, COST]
        assert bench.meter.usage.llm_calls == 1


async def test_nobody_waits_longer_than_the_execution_has(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(status=429, headers={"retry_after": "30"})) as bench:
        answer = await bench.calls(remaining=10.0).llm(prompt())
        assert answer["refused"][0].endswith("It asks to wait 30 s.")
        assert len(bench.provider.asked) == 1


async def test_a_provider_that_cannot_be_reached_costs_nothing(open_bench: Any) -> None:
    async with open_bench() as bench:
        port = (server := await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)).sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        (address,) = bench.models._providers
        object.__setattr__(address, "url", f"http://127.0.0.1:{port}/v1")
        answer = await bench.calls(remaining=0.9).llm(prompt())
        assert "openai cannot be reached: ConnectError" in answer["refused"][0]
        assert [cost for _, cost, _ in await bench.ledger()] == [0]


async def test_a_call_that_is_killed_counts_at_its_worst_case(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(wait=asyncio.Event())) as bench:
        asking = asyncio.create_task(bench.calls().llm(prompt()))
        await happens(lambda: bool(bench.provider.asked), "the provider is asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await bench.models.settling.close(5.0)
        ((status, cost, worst),) = await bench.ledger()
        assert (status, cost) == ("unknown", worst)
        (reason,) = await bench.rows("SELECT reason FROM circuit.llm_calls")
        assert reason == "the execution ended while the call was under way (CancelledError)"


class Halting(Budget):
    """Accounts whose reservations are committed, and whose answers wait."""

    gate: asyncio.Event
    reserved: asyncio.Event

    async def reserve(self, asked: Reservation, ceilings: Ceilings) -> list[Full]:
        full = await super().reserve(asked, ceilings)
        self.reserved.set()
        await self.gate.wait()
        return full


async def test_a_reservation_whose_execution_is_killed_meanwhile_is_given_back(open_bench: Any) -> None:
    async with open_bench(money=Halting) as bench:
        bench.models.money.gate, bench.models.money.reserved = asyncio.Event(), asyncio.Event()
        asking = asyncio.create_task(bench.calls().llm(prompt()))
        await bench.models.money.reserved.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        bench.models.money.gate.set()
        await bench.models.settling.close(5.0)
        ((status, cost, _),) = await bench.ledger()
        assert (status, cost) == ("settled", 0)
        assert bench.provider.asked == []
        assert set((await bench.scopes()).values()) == {(0, 0)}


async def test_a_settlement_waits_for_a_database_that_is_away(open_bench: Any) -> None:
    class Away(Budget):
        tries = 0

        async def settle(self, *asked: Any) -> Any:
            self.tries += 1
            if self.tries < 3:
                raise psycopg.OperationalError("it is away")
            return await super().settle(*asked)

    async with open_bench(money=Away) as bench:
        assert "body" in await bench.calls().llm(prompt())

        async def settled() -> bool:
            return [status for status, _, _ in await bench.ledger()] == ["settled"]

        await eventually(settled, "it is settled")
        assert bench.models.money.tries == 3


async def test_a_full_budget_names_its_scope_its_ceiling_and_when_it_resets(open_bench: Any) -> None:
    async with open_bench(tenant=TenantMoney(day=20_000_000)) as bench:  # two cents
        assert "body" in await bench.calls().llm(prompt())
        answer = await bench.calls().llm(prompt(max_tokens=3000))
        full = answer["full"]
        assert full["scope"] == "tenant day"
        assert (full["ceiling"], full["spent"], full["reserved"], full["after"]) == (0.02, COST / NANO, 0, None)
        assert full["said"].startswith(
            "a day's budget of tenant 'acme' is $0.02, of which $0.00006 are spent and $0.00"
        )
        assert full["said"].endswith("00:00 UTC.")
        assert full["resets_at"] % 86_400 == 0
        assert 0 < full["resets_at"] - time.time() <= 86_400
        assert len(bench.provider.asked) == 1
        assert bench.meter.usage.llm_cost == 0


@pytest.mark.parametrize(
    ("scope", "more", "budget"),
    [
        ("trigger", {}, 0.005),
        ("tenant day", {"tenant": TenantMoney(day=5_000_000)}, None),
        ("tenant month", {"tenant": TenantMoney(month=5_000_000)}, None),
        ("day", {"day": 0.005}, None),
    ],
)
async def test_each_scope_is_held(open_bench: Any, scope: str, more: Any, budget: float | None) -> None:
    async with open_bench(**more) as bench:
        answer = await bench.calls(budget=budget).llm(prompt(max_tokens=1000))
        assert answer["full"]["scope"] == scope


async def test_an_answer_that_nobody_bounded_is_cut_to_what_is_left(open_bench: Any) -> None:
    async with open_bench(tenant=TenantMoney(day=6_000_000)) as bench:
        assert "body" in await bench.calls().llm(prompt())
        (sent,) = bench.provider.asked
        assert 256 <= sent["max_completion_tokens"] < 600
        ((_, _, worst),) = await bench.ledger()
        assert 5_900_000 < worst <= 6_000_000


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_we_cut_and_that_is_longer_is_not_taken_for_a_whole_one(
    open_bench: Any, stream: bool
) -> None:
    async with open_bench(lambda asked: Do(tokens_out=900), tenant=TenantMoney(day=6_000_000)) as bench:
        calls = bench.calls()
        answer = await calls.llm(prompt(stream=stream))
        while stream and not answer.get("over"):
            answer = await calls.llm_next({"stream": 1})
        detail, _, _ = (answer["over"] if stream else answer)["refused"]
        assert re.search(r"no more than \d+ tokens were left for the answer, and it is longer", detail)
        ((status, cost, _),) = await bench.ledger()
        assert (status, cost) == ("settled", bench.provider.billed)


async def test_who_may_wait_for_money_is_not_given_a_shorter_answer_instead(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(tokens_out=900), day=0.014) as bench:
        assert "body" in await bench.calls().llm(prompt())
        assert (await bench.calls(at_ceiling="defer").llm(prompt()))["full"]["after"] > 0
        assert len(bench.provider.asked) == 1
        longer = await bench.calls(at_ceiling="refuse").llm(prompt())
        assert "it is longer" in longer["refused"][0]
        assert len(bench.provider.asked) == 2


async def test_who_would_wait_for_ever_is_given_a_shorter_answer(open_bench: Any) -> None:
    async with open_bench(day=0.006, at_ceiling="defer") as bench:
        assert "body" in await bench.calls().llm(prompt())
        assert bench.provider.asked[0]["max_completion_tokens"] < 600


async def test_an_answer_that_its_author_bounds_is_given_as_it_is(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(tokens_out=900)) as bench:
        for bound in ({"max_tokens": 300}, {}):
            answer = await bench.calls().llm(prompt(**bound))
            ended = json.loads(answer["body"])["choices"][0]["finish_reason"]
            assert ended == ("length" if bound else "stop")


async def test_a_deferred_call_says_when_to_come_back(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(tokens_out=900), day=0.015) as bench:
        calls = bench.calls(at_ceiling="defer")
        assert "body" in await calls.llm(prompt(max_tokens=1000))
        full = (await calls.llm(prompt(max_tokens=1000)))["full"]
        assert 0 < full["after"] <= 86_400 + SPREAD
        assert calls.deferred == full["after"]
        assert calls.put_off == {full["after"]}
        never = bench.calls(at_ceiling="defer")  # no reset makes room for what is dearer than a whole day
        assert (await never.llm(prompt(max_tokens=2000)))["full"]["after"] is None
        assert never.deferred is None


async def test_it_waits_by_the_clock_of_the_database_and_not_all_come_back_at_once(
    open_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_bench(tenant=TenantMoney(day=10_000_000)) as bench:
        left = "SELECT extract(epoch FROM (circuit.budget_day() + 1)::timestamp AT TIME ZONE 'UTC' - now())::float8"
        (begun,), real = await bench.rows(left), time.time
        monkeypatch.setattr(time, "time", lambda: real() + 172_800)  # this host is two days ahead
        cheap = prompt(max_tokens=1)
        await bench.rows(
            "INSERT INTO circuit.budgets (scope, tenant, handler, period, spent) VALUES "
            "('tenant day', 'acme', '', circuit.budget_day(), 10000000) RETURNING 1"
        )
        waits = [(await bench.calls(at_ceiling="defer").llm(cheap))["full"]["after"] for _ in range(4)]
        assert all(begun - 60 < wait < begun + SPREAD for wait in waits), (waits, begun)
        assert len(set(waits)) == 4


async def test_a_cheaper_model_answers_where_the_policy_says_so(open_bench: Any) -> None:
    async with open_bench(day=0.005, at_ceiling="cheaper") as bench:
        assert "body" in await bench.calls().llm(prompt())
        assert [each["model"] for each in bench.provider.asked] == ["small"]
        assert await bench.rows("SELECT requested, model FROM circuit.llm_calls") == [("big", "small")]
        answer = await bench.calls(llm_cost=5.0).llm(prompt(max_tokens=100_000))
        assert answer["full"]["scope"] == "day"


async def test_the_execution_has_its_own_limits(open_bench: Any) -> None:
    async with open_bench() as bench:
        with pytest.raises(LimitExceeded, match="llm_cost"):
            await bench.calls(llm_cost=0.001).llm(prompt(max_tokens=1000))
        with pytest.raises(LimitExceeded, match="llm_tokens"):
            await bench.calls(llm_tokens=1000).llm(prompt(max_tokens=1000))
        calls = bench.calls(llm_calls=1)
        await calls.llm(prompt("a"))
        with pytest.raises(LimitExceeded, match="llm_calls"):
            await calls.llm(prompt("b"))
        assert len(bench.provider.asked) == 1
        assert bench.meter.usage.llm_cost <= 1.0


async def test_the_same_call_again_and_again_ends_the_execution(open_bench: Any) -> None:
    async with open_bench() as bench:
        calls = bench.calls(llm_calls=100)
        for _ in range(10):
            await calls.llm(prompt())
        with pytest.raises(LimitExceeded, match="model big came round again"):
            await calls.llm(prompt())
        assert len(bench.provider.asked) == 10


async def agent(calls: ModelCalls, stream: bool, tells: Callable[[int], str], turns: int = 30) -> None:
    """An agent that does what the model says, and tells it so."""
    messages = [{"role": "user", "content": "go"}]
    for turn in range(turns):
        answer = await calls.llm({"request": {"model": "big", "messages": messages, "stream": stream}, "record": None})
        if stream:
            message = await read_through(calls, answer["stream"])
        else:
            message = json.loads(answer["body"])["choices"][0]["message"]
        identifier = message["tool_calls"][0]["id"]
        messages = [*messages, message, {"role": "tool", "tool_call_id": identifier, "content": tells(turn)}]


async def read_through(calls: ModelCalls, number: int) -> dict[str, Any]:
    name, arguments, identifier, over = "", "", "", None
    while not over:
        answer = await calls.llm_next({"stream": number})
        over = answer["over"]
        for chunk in answer["chunks"]:
            for choice in json.loads(chunk)["choices"]:
                for call in choice["delta"].get("tool_calls") or ():
                    identifier = call.get("id") or identifier
                    name += call["function"].get("name") or ""
                    arguments += call["function"]["arguments"]
    calls._meter.go_on()  # as the broker does before each request
    call = {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_that_calls_the_same_tool_for_ever_is_ended(open_bench: Any, stream: bool) -> None:
    async with open_bench(lambda asked: Do(tool=("look", {"where": "here", "deep": True}))) as bench:
        with pytest.raises(LoopFound, match="model big came round again and brought nothing new"):
            await agent(bench.calls(llm_calls=100), stream, lambda turn: "nothing there")
        assert len(bench.provider.asked) == 6  # the first is the question
        tools = [each["messages"][-1]["tool_call_id"] for each in bench.provider.asked[1:]]
        assert len(set(tools)) == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_and_so_is_one_whose_tool_tells_the_time(open_bench: Any, stream: bool) -> None:
    async with open_bench(lambda asked: Do(tool=("look", {}))) as bench:
        with pytest.raises(LoopFound, match="model big said the same again as its conversation grew"):
            await agent(bench.calls(llm_calls=100), stream, lambda turn: f"nothing there at {turn}")
        assert len(bench.provider.asked) == 12


async def test_an_agent_whose_work_gets_on_is_left_alone(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(tool=("next", {}))) as bench:
        calls = bench.calls(llm_calls=100, llm_tokens=2_000_000)

        def tells(turn: int) -> str:
            bench.meter.changed(f"line {turn}".encode())
            return "saved"

        await agent(calls, False, tells)
        assert len(bench.provider.asked) == 30


async def test_a_call_whose_key_is_not_there_says_which(open_bench: Any) -> None:
    async with open_bench() as bench:
        (address,) = bench.models._providers
        object.__setattr__(address, "missing", "OPENAI_API_KEY")
        detail, cure, page = (await bench.calls().llm(prompt()))["refused"]
        assert detail == "there is no key for openai: OPENAI_API_KEY is not set."
        assert cure.startswith("Set OPENAI_API_KEY in the environment of circuit-script")
        assert page == "llm-provider"
        assert (await bench.calls().llm({"request": {**prompt()["request"], "model": "other"}}))["refused"][0] == (
            "no provider serves model 'other'."
        )
