"""Models of a trial: as on the road, and in a closed one nobody is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from circuit_script.config import Settings, load_settings
from circuit_script.execution.outcome import SPREAD
from circuit_script.wiring import Bench, Trial, open_bench
from circuit_script.wiring.callouts import Callouts
from tests.openai_provider import Do, providing

APP = """
from circuit_script import BudgetExceeded, endpoint, llm, log, trigger

@trigger("Contact", ["afterInsert"])
async def asks(context):
    log.info(await llm.complete("hi"))

@trigger("Contact", ["afterUpdate"], budget=0.00025, at_ceiling="defer")
async def puts_off(context):
    await llm.complete("hi")

@endpoint("lets_through", methods=["POST"], budget=0.00025, at_ceiling="defer")
async def lets_through() -> dict:
    await llm.complete("hi")
    await llm.complete("hi", temperature=0.5)
    return {}

@endpoint("chat", methods=["POST"], budget=0.000001)
async def chat() -> dict:
    try:
        return {"said": await llm.complete("hi")}
    except BudgetExceeded as full:
        return {"full": full.scope}
"""
COMPLETIONS = "https://api.openai.com/v1/chat/completions"


@pytest.fixture
def settings(app_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (app_folder / "app.py").write_text(APP)
    return load_settings(app_folder)


def calls(database: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT status, cost, provider, model, tenant FROM circuit.llm_calls").fetchall()


def mocked(callouts: Callouts) -> None:
    message = {"role": "assistant", "content": "mocked", "refusal": None}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
    callouts.mock("POST", COMPLETIONS, json=answer)


async def answered(settings: Settings, database: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open trial reaches the provider that is configured, with its key."""
    monkeypatch.setenv("MY_KEY", "sk-mine")
    async with providing(lambda asked: Do("real", tokens_in=100, tokens_out=200)) as provider:
        local = {"url": provider.url, "key_env": "MY_KEY"}
        llm = settings.llm.model_copy(
            update={"providers": {"openai": settings.llm.providers["openai"].model_copy(update=local)}}
        )
        async with Trial(settings.model_copy(update={"llm": llm}), database, bench=bench) as trial:
            result = await trial.run("asks", {"id": "c1"})
            assert [line.message for line in result.log] == ["real"]
            assert provider.keys == ["Bearer sk-mine"]
            first = await trial.run("puts_off", {"id": "c1"})
            assert first.status == "succeeded", first
            result = await trial.run("puts_off", {"id": "c1"})
            assert result.errors["c1"].startswith(
                "there is no money for a model call: a day's budget of puts_off is $0.00025"
            )
            assert 0 < (result.decided["c1"] or 0) <= 86_400 + SPREAD
            assert result.status == "deferred"
            said = await trial.call("lets_through")
            assert said.answer is not None
            assert said.answer.status == 429
            assert int(said.answer.headers["retry-after"]) > 0
            said = await trial.call("chat")
            assert said.answer is not None
            assert said.answer.body == b'{"full":"trigger"}'
    assert calls(database)[-1] == ("settled", 135_000, "openai", "gpt-4o-mini", "default")


async def test_models_in_trials(settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bench(settings) as bench:
        async with Trial(settings, database, bench=bench) as trial:
            result = await trial.run("asks", {"id": "c1"})
            assert "there is no key for openai: OPENAI_API_KEY is not set." in result.reason
            result = await trial.run("asks", {"id": "c1"}, commit=False)
            assert f"POST {COMPLETIONS} is refused: a dry run makes no callouts" in result.reason
        assert calls(database) == []

        callouts = Callouts("it is not mocked")
        async with Trial(settings, database, bench=bench, callouts=callouts) as trial:
            result = await trial.run("asks", {"id": "c1"})
            assert f"POST {COMPLETIONS} is refused: it is not mocked" in result.reason
            assert callouts.refused == [f"POST {COMPLETIONS}"]
            assert [row[:2] for row in calls(database)] == [("settled", 0)]
            mocked(callouts)
            result = await trial.run("asks", {"id": "c1"}, commit=False)
            assert [line.message for line in result.log] == ["mocked"]
            assert len(calls(database)) == 1
            result = await trial.run("asks", {"id": "c1"}, tenant="acme")
            assert [line.message for line in result.log] == ["mocked"]
            assert result.usage["llm_cost"] == (100 * 150 + 10 * 600) / 10**9
            assert calls(database)[-1] == ("settled", 21_000, "openai", "gpt-4o-mini", "acme")
            assert "sk-" not in str(callouts.made[-1].headers)

        await answered(settings, database, bench, monkeypatch)
