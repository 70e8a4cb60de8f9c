from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.errors import RequestRefused
from circuit_script.llm.request import IMAGE_TOKENS, PLAIN, read

HI = {"messages": [{"role": "user", "content": "hi"}]}


def test_a_request_is_read() -> None:
    asked = read({**HI, "model": "m", "max_tokens": 7, "n": 2, "temperature": 0.5, "stop": None, "stream": True})
    assert (asked.model, asked.max_tokens, asked.choices, asked.stream) == ("m", 7, 2, True)
    assert asked.body == {**HI, "temperature": 0.5, "n": 2}


def test_the_lower_of_two_bounds_counts() -> None:
    assert read({**HI, "max_tokens": 7, "max_completion_tokens": 9}).max_tokens == 7
    assert read(HI).max_tokens is None


@pytest.mark.parametrize(
    "more",
    [
        {"web_search_options": {}},
        {"audio": {"voice": "a", "format": "mp3"}},
        {"modalities": ["text", "audio"]},
        {"service_tier": "priority"},
        {"service_tier": "auto"},
        {"prediction": {"type": "content", "content": "x"}},
        {"functions": [{"name": "f"}]},
        {"moderation": {}},
        {"whatever": 1},
        {"n": 0},
        {"n": 1000},
        {"n": True},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"model": 7},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"role": "user", "content": ["hi"]}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": "all"},
    ],
)
def test_what_may_cost_more_than_tokens_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="model call: ") as refused:
        read({**HI, **more})
    assert refused.value.page == "model-request"
    assert refused.value.cure


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_what_costs_nothing_is_passed_on(name: str) -> None:
    assert read({**HI, name: "x"}).body[name] == "x"


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text()), min_size=1))
def test_the_input_is_never_thought_smaller_than_its_bytes(said: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in said]
    assert read({"messages": messages}).tokens_in >= sum(len(text.encode()) + 4 for _, text in said) + 3


def test_tools_and_schemas_are_input_too() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 1000, "parameters": {}}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"title": "t" * 500}}}
    plain, whole = read(HI), read({**HI, "tools": [tool], "response_format": schema})
    assert whole.tokens_in > plain.tokens_in + 1500


def test_an_image_counts_as_an_image_however_long_its_address_is() -> None:
    def of(*urls: str) -> int:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return read({"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, *parts]}]}).tokens_in

    assert of("https://a/b.png") == of("data:image/png;base64," + "A" * 1_000_000)
    assert of("a", "b") - of("a") == IMAGE_TOKENS


def test_the_last_words_are_those_behind_the_last_answer() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert read({"messages": turns}).last_words == read({"messages": turns[2:]}).last_words
    assert read(HI).last_words != read({"messages": turns[2:]}).last_words


def test_the_fingerprint_has_all_arguments() -> None:
    first = read({**HI, "max_tokens": 5}).fingerprint("m")
    assert read({"max_tokens": 5, **HI}).fingerprint("m") == first
    others = [read({**HI, "max_tokens": 6}), read({**HI, "max_tokens": 5, "seed": 1})]
    assert first not in [each.fingerprint("m") for each in others]
    assert read({**HI, "max_tokens": 5}).fingerprint("n") != first
