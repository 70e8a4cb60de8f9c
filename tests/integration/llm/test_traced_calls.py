"""What a trace says of a model's call: who answered, in how many tokens, for how much; never what was said."""

from __future__ import annotations

from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.execution.broker.model_calls import VERBS
from circuit_script.execution.broker.traced import traced
from circuit_script.governor.money import NANO
from circuit_script.telemetry.spans import Recorder
from tests.integration.llm.conftest import prompt
from tests.openai_provider import IN, OUT, Do

COST = (10 * IN + 5 * OUT) / NANO


@pytest.mark.parametrize("stream", [False, True])
async def test_a_calls_tokens_and_cost_are_its_own_also_where_it_streams(open_bench: Any, stream: bool) -> None:
    async with open_bench() as bench:
        calls, recorder = bench.calls(), Recorder(uuid7())

        async def serve(verb: str, arguments: dict[str, Any]) -> Any:
            return await VERBS[verb](calls, arguments)

        for text in ("first", "second"):
            answer = await traced(recorder, serve, "llm", prompt(text, stream=stream))
            while stream and not (await serve("llm_next", {"stream": answer["stream"]}))["over"]:
                """It is read to its end."""

        assert [mark.name for mark in recorder.marks] == ["model", "model"]
        for mark in recorder.marks:
            said = mark.attributes
            assert (said["provider"], said["tokens_in"], said["tokens_out"], said["cost"]) == ("openai", 10, 5, COST)
            assert said["model"]
            assert mark.duration > 0
            assert "Hello" not in str(mark.row())
            assert "first" not in str(mark.row())


async def test_a_call_that_fails_says_so(open_bench: Any) -> None:
    async with open_bench(lambda asked: Do(status=400)) as bench:
        calls, recorder = bench.calls(), Recorder(uuid7())

        async def serve(verb: str, arguments: dict[str, Any]) -> Any:
            return await VERBS[verb](calls, arguments)

        await traced(recorder, serve, "llm", prompt())
        (mark,) = recorder.marks
        assert mark.status == "refused"
        assert "model big" in mark.attributes["error"]
        assert "cost" not in mark.attributes
