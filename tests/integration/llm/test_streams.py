"""Answers that come piece by piece: pulled by the child, and settled whatever becomes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from circuit_script.execution.broker.model_calls import ModelCalls
from tests.integration.llm.conftest import prompt
from tests.openai_provider import IN, OUT, Do
from tests.road import happens

COST = 10 * IN + 5 * OUT


async def opened(calls: ModelCalls) -> int:
    answer = await calls.llm({"request": {**prompt()["request"], "stream": True}, "record": None})
    assert "stream" in answer, answer
    number: int = answer["stream"]
    return number


async def pulled(calls: ModelCalls, number: int) -> tuple[str, Any]:
    """The text, and how it was over."""
    text = ""
    while True:
        answer = await calls.llm_next({"stream": number})
        for each in answer["chunks"]:
            for choice in json.loads(each)["choices"]:
                text += choice["delta"].get("content") or ""
        if answer["over"]:
            return text, answer["over"]["refused"]


async def test_a_stream_is_settled_before_its_end_is_heard(open_bench: Any) -> None:
    async with open_bench() as bench:
        calls = bench.calls()
        assert await pulled(calls, await opened(calls)) == ("Hello there, friend! ", None)
        ((status, cost, _),) = await bench.ledger()
        assert (status, cost) == ("settled", COST)
        assert bench.meter.usage.llm_tokens == 15
        (sent,) = bench.provider.asked
        assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("do", "broken"),
    [
        (Do(usage=False), None),
        (Do(cut=2), "the model's answer broke off: the stream was cut off."),
    ],
)
async def test_a_stream_that_does_not_say_its_cost_counts_at_its_worst_case(
    open_bench: Any, do: Do, broken: str | None
) -> None:
    async with open_bench(lambda asked: do) as bench:
        calls = bench.calls()
        text, refused = await pulled(calls, await opened(calls))
        assert (refused and refused[0]) == broken
        assert "Hello" in text
        ((status, cost, worst),) = await bench.ledger()
        assert (status, cost) == ("unknown", worst)
        assert bench.meter.usage.llm_cost * 10**9 == pytest.approx(worst)


async def test_a_stream_that_is_cut_off_behind_its_usage_is_settled_at_its_cost(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(cut=6)) as bench:
        calls = bench.calls()
        _, refused = await pulled(calls, await opened(calls))
        assert refused is not None
        assert [(status, cost) for status, cost, _ in await bench.ledger()] == [("settled", COST)]


async def test_a_stream_begins_again_when_the_provider_was_busy(open_bench: Any) -> None:
    said = iter([Do(status=429, headers={"retry_after": "0.01"}), Do()])
    async with open_bench(lambda asked: next(said)) as bench:
        calls = bench.calls()
        assert (await pulled(calls, await opened(calls)))[1] is None
        assert [cost for _, cost, _ in await bench.ledger()] == [0, COST]


async def test_a_stream_that_the_child_closes_or_that_outlives_its_execution_is_settled(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(between=asyncio.Event())) as bench:
        calls = bench.calls()
        await calls.llm_close({"stream": await opened(calls)})
        await opened(calls)
        calls.close()
        async with asyncio.timeout(10):
            while [status for status, _, _ in await bench.ledger()] != ["unknown", "unknown"]:
                await asyncio.sleep(0.01)
        assert {reserved for _, reserved in (await bench.scopes()).values()} == {0}


async def test_a_provider_waits_for_a_child_that_does_not_pull(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(text="word " * 5000)) as bench:
        calls = bench.calls()
        number = await opened(calls)
        (stream,) = calls._streams.values()
        await happens(stream._queue.full, "the queue is full")
        assert (await bench.ledger())[0][0] == "reserved"
        text, refused = await pulled(calls, number)
        assert (text.count("word"), refused) == (5000, None)


@pytest.mark.parametrize("odd", [rb"\ud83d", b'", "score": NaN, "more": "'])
async def test_an_event_that_only_a_child_could_read_does_not_reach_it(open_bench: Any, odd: bytes) -> None:
    called = b'{"choices":[{"index":0,"delta":{"content":"' + odd + b'","tool_calls":[{"id":"1"}]}}]}'
    async with open_bench(lambda asked: Do(raw=called)) as bench:
        calls = bench.calls()
        text, refused = await pulled(calls, await opened(calls))
        assert (text, refused[0]) == ("", "the model's answer broke off: an event of it cannot be read.")
