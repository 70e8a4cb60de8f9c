"""Models of a trial, answered with what was said beforehand: whole, or as a stream where the handler asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from circuit_script.config import Settings
from circuit_script.wiring.callouts import Callout, Callouts, Mock

PER_TOKEN = 4  # characters, about
Answer = str | Mapping[str, Any] | Callable[[Mapping[str, Any]], str | Mapping[str, Any]]


def mock_models(callouts: Callouts, settings: Settings, answers: Sequence[Answer]) -> Mock:
    """Let the models of every provider give these answers in turn, and the last one from then on: a text, a message
    (with ``tool_calls``, say), or a function of the request that gives one of these."""
    urls = {each.url.rstrip("/") for each in settings.llm.providers.values()}
    calls: list[Callout] = []

    def answer(callout: Callout) -> httpx.Response:
        asked = callout.json()
        given = answers[min(len(calls), len(answers)) - 1]
        said = given(asked) if callable(given) else given
        message = {"role": "assistant", "content": said} if isinstance(said, str) else {"role": "assistant", **said}
        return _response(asked, message, len(callout.body))

    mocks = [callouts.answer_by("POST", f"{url}/chat/completions", answer, calls) for url in sorted(urls)]
    return mocks[0]


def _response(asked: Mapping[str, Any], message: Mapping[str, Any], size: int) -> httpx.Response:
    """As the wire of OpenAI has it."""
    ends = "tool_calls" if message.get("tool_calls") else "stop"
    read, made = max(1, size // PER_TOKEN), max(1, len(msgspec.json.encode(message)) // PER_TOKEN)
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    usual = {"id": "mocked", "created": 1, "model": asked.get("model")}
    if not asked.get("stream"):
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ends}
        whole = {**usual, "object": "chat.completion", "choices": [choice], "usage": usage}
        return httpx.Response(200, headers={"content-type": "application/json"}, content=msgspec.json.encode(whole))
    calls = message.get("tool_calls") or ()
    delta = {**message, "tool_calls": [{"index": place, **each} for place, each in enumerate(calls)]}
    parts: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta if calls else message, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": ends}]},
        {"choices": [], "usage": usage},
    ]
    events = [msgspec.json.encode({**usual, "object": "chat.completion.chunk", **part}) for part in parts]
    body = b"".join(b"data: " + event + b"\n\n" for event in (*events, b"[DONE]"))
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
