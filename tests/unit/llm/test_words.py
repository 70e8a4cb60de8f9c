"""What was said is the same, whatever ids it has and wherever its stream was cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.llm.request import Asked, read
from circuit_script.llm.words import Pieces, Words, words_of


def turn(identifier: str, told: str = "nothing there", question: str = "go") -> Asked:
    call = {"id": identifier, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return read({
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": identifier, "content": told},
        ]
    })  # fmt: skip


def answer(identifier: str, arguments: str = '{"a": 1, "b": 2}', content: str | None = None) -> Words:
    call = {"id": identifier, "type": "function", "function": {"name": "look", "arguments": arguments}}
    message = {"role": "assistant", "content": content, "refusal": None, "tool_calls": [call]}
    return words_of([{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}])


def streamed(*deltas: dict[str, Any], end: str = "stop") -> Words:
    pieces = Pieces()
    for delta in deltas:
        pieces.add([{"index": 0, "delta": delta, "finish_reason": None}])
    pieces.add([{"index": 0, "delta": {}, "finish_reason": end}])
    return pieces.words()


def test_the_id_of_a_tools_call_is_not_what_was_said() -> None:
    assert turn("call_1").last_words == turn("call_2").last_words
    assert turn("call_1").last_words != turn("call_1", "something").last_words
    assert answer("call_1") == answer("call_2", '{"b":2,"a":1}')
    assert answer("call_1") != answer("call_1", "{}")
    assert answer("call_1", "[" * 100_000).whole


def test_a_conversation_is_known_by_how_it_began_and_how_long_it_is() -> None:
    first = read({"messages": [{"role": "user", "content": "go"}]})
    assert (first.begins, first.length, turn("a").begins, turn("a").length) == (True, 1, False, 3)
    assert first.opening == turn("a").opening != turn("a", question="no").opening


def test_what_tools_are_asked_for_is_the_same_whatever_is_said_with_it() -> None:
    assert answer("a", content="Once more.").asks == answer("b", content="And again.").asks
    assert answer("a", content="Once more.").whole != answer("b", content="And again.").whole


@given(st.text(max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_a_text_is_the_same_in_any_pieces(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(each, len(text)) for each in cuts), len(text)]
    pieces = [{"content": text[begin:end]} for begin, end in itertools.pairwise(places)]
    whole = words_of([{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}])
    assert streamed({"role": "assistant", "content": ""}, *pieces) == whole
    assert whole.spoke == bool(text)


@pytest.mark.parametrize("at", [0, 3, 16])
def test_a_tools_call_is_the_same_in_any_pieces(at: int) -> None:
    arguments = '{"a": 1, "b": 2}'
    head = {"index": 0, "id": f"call_{at}", "type": "function", "function": {"name": "look", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": each}} for each in (arguments[:at], arguments[at:])]
    deltas = [{"role": "assistant", "content": None}, *({"tool_calls": [each]} for each in (head, *rest))]
    assert streamed(*deltas, end="tool_calls") == answer("call_1", arguments)


def test_an_answer_says_whether_it_was_cut() -> None:
    assert streamed({"content": "half"}, end="length").cut
    assert not streamed({"content": "whole"}).cut


def test_thoughts_are_something_said() -> None:
    thought = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    assert words_of([{"message": thought}]).spoke
    assert not words_of([{"message": {"role": "assistant", "content": ""}}]).spoke


@pytest.mark.parametrize(
    "choices",
    [
        None, {}, ["a"], [{}], [{"delta": 1}], [{"index": "x", "delta": {"content": 1}}],
        [{"delta": {"tool_calls": 1}}],
        [{"delta": {"tool_calls": ["a", {"index": 0, "function": "f"}, {"index": 0, "function": {"name": "g"}}]}}],
        [{"delta": {"content": "a"}}, {"delta": {"content": {"b": "c"}}}],
        [{"delta": {"tool_calls": "a"}}, {"delta": {"tool_calls": [{"index": 0, "id": "b"}]}}],
    ],
)  # fmt: skip
def test_what_is_no_answer_does_no_harm(choices: Any) -> None:
    pieces = Pieces()
    pieces.add(choices)
    assert len(pieces.words().whole) == 16
    if isinstance(choices, list):
        messages = [{"message": each.get("delta")} if isinstance(each, dict) else each for each in choices]
        assert len(words_of(json.loads(json.dumps(messages))).whole) == 16
