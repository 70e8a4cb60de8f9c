"""The provider of the tests answers as OpenAI's description of its API says; what is sent to it is right by it, too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator

from circuit_script.llm import Provider
from circuit_script.llm.request import read
from tests.loopback import NOBODY
from tests.openai_provider import Do, providing


def description() -> dict[str, Any]:
    root = os.environ.get("CIRCUIT_SHARED")
    if root is None:
        pytest.skip("CIRCUIT_SHARED does not name the vendors' contracts")
    found: dict[str, Any] = plain(json.loads(Path(root, "specs/openai/openai-core.openapi.json").read_text()))
    return found


def plain(schema: Any) -> Any:
    """Without discriminators, which name schemas by a value that no schema has as its name, and with null where
    ``nullable`` says so, as the version before had it."""
    match schema:
        case {"nullable": True, **rest}:
            return {"anyOf": [plain(rest), {"type": "null"}]}
        case dict():
            return {name: plain(each) for name, each in schema.items() if name != "discriminator"}
        case list():
            return [plain(each) for each in schema]
        case _:
            return schema


def faults(name: str, value: Any, components: dict[str, Any]) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    return [f"{list(each.path)}: {each.message[:200]}" for each in OAS31Validator(schema).iter_errors(value)]


async def test_it_speaks_as_the_vendor_says() -> None:
    components = description()["components"]
    said = {
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "temperature": 0.5,
        "max_tokens": 100,
    }
    does = iter([Do(), Do(tool=("f", {"a": 1})), Do(text="a b c")])
    async with providing(lambda asked: next(does)) as provider, httpx.AsyncClient(verify=NOBODY) as client:
        openai = Provider("openai", provider.url, (), client, key="k", openai=True)
        for stream in (False, False, True):
            asked = read({**said, "stream": stream})
            body = openai.body(asked.body, "gpt-4o-mini", 100, stream)
            if stream:
                async with openai.streamed(body, 5.0) as events:
                    assert [event async for event in events]
            else:
                assert (await openai.complete(body, 5.0)).tokens is not None
        assert [faults("CreateChatCompletionRequest", each, components) for each in provider.asked] == [[], [], []]
        assert [faults("CreateChatCompletionResponse", each, components) for each in provider.answers] == [[], []]
        assert len(provider.chunks) > 4
        for chunk in provider.chunks:
            assert faults("CreateChatCompletionStreamResponse", chunk, components) == []
        broken = {**provider.answers[0], "choices": "none"}
        assert faults("CreateChatCompletionResponse", broken, components)
