"""What an answer must not tell is masked, in one piece as in many, and nothing waits longer than it must."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.execution.broker import masking
from circuit_script.execution.broker.masking import HELD, LONGEST_RUN, StreamMask, Tail, in_whole
from circuit_script.judgment import Finding
from circuit_script.judgment.residue import class_of, residue
from circuit_script.telemetry.redact import Known

BODY = "\n".join(["MIIEpAIBAAKCAQEA7n2Zq0" * 3] * 40)
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
SECRETS = (
    "sk-proj-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 20 + ".dozjgNryP4J3jVmNHl0w5N",
    "AKIAIOSFODNN7EXAMPLE",
    "postgres://app:hunter2secret@db.example.com",
    KEY,
)
PROSE = ("The invoice is attached. ", "Bis morgen, Anna! ", "発送しました。", "https://example.com/orders/4711 ", "\n")


def find(text: str, words: bool) -> list[Finding]:
    return [each for each in residue(text) if words and class_of(each) == "secret" and each.score >= 0.85]


def pulled(pieces: list[str]) -> str:
    tail = Tail(find, True)
    return "".join([*(tail.add(each) for each in pieces), tail.rest()])


@given(st.lists(st.sampled_from((*SECRETS, *PROSE)), max_size=8), st.data())
def test_however_a_text_is_cut_it_is_masked_as_in_whole(parts: list[str], data: st.DataObject) -> None:
    text = " ".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=40)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert pulled(pieces) == in_whole({"content": text}, find)["content"]
    assert not any(each in pulled(pieces) for each in SECRETS)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_that_comes_letter_by_letter_is_masked(secret: str) -> None:
    said = pulled(list(f"Here it is: {secret} and that is all of it, no more."))
    assert said == "Here it is: [masked] and that is all of it, no more."


def test_what_is_known_is_masked_across_pieces_also_with_spaces_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    known.learn("correct horse battery staple")
    monkeypatch.setattr(masking, "KNOWN", known)
    said = pulled(["It is: corr", "ect horse", " battery st", "aple, and nothing else. ", "x " * 50])
    assert "horse" not in said
    assert "staple" not in said
    assert said.startswith("It is: ")


def test_words_leave_as_they_come_but_for_the_last_ones() -> None:
    tail = Tail(find, True)
    words = ["word "] * 200
    left = 0
    for number, each in enumerate(words, 1):
        left += len(tail.add(each))
        assert number * 5 - left <= HELD + 5
    tail = Tail(find, True)
    assert len(tail.add("語" * 1000)) == 1000 - HELD, "a language without spaces does not wait for one"
    tail = Tail(find, True)
    assert len(tail.add("x" * (LONGEST_RUN + 500))) == 500, "nor does a run without an end"


def test_a_run_without_an_end_or_a_key_is_not_read_anew_for_each_letter() -> None:
    read = 0

    def counted(text: str, words: bool) -> list[Finding]:
        nonlocal read
        read += len(text)
        return find(text, words)

    for text in ("x" * 20_000, f"{KEY} " * 8, "word " * 4_000):
        read = 0
        tail = Tail(counted, True)
        told = "".join([*(tail.add(each) for each in text), tail.rest()])
        assert told == in_whole({"content": text}, find)["content"]
        assert read < 150 * len(text)


def chunk(delta: dict[str, Any] | None, end: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"id": "c1", "model": "big", "choices": [{"index": index, "delta": delta, "finish_reason": end}]}


def through(mask: StreamMask, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    events = [event for each in chunks for event in mask.events(json.dumps(each).encode(), each)]
    return [json.loads(each) for each in [*events, *mask.rest()]]


def told(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for each in chunks for choice in each["choices"] if choice["index"] == index]
    return "".join((each["delta"] or {}).get("content") or "" for each in choices)


def test_the_rest_of_a_text_comes_before_its_end_and_before_a_tool() -> None:
    ended: list[bool] = []
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ": 1}"}}
    shown = through(
        StreamMask(find, lambda: ended.append(True)),
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Let me look."}),
            chunk({"tool_calls": [call]}),
            chunk({"tool_calls": [more]}),
            chunk({}, "tool_calls"),
            {"id": "c1", "model": "big", "choices": [], "usage": {"total_tokens": 3}},
        ],
    )
    assert ended == [True]
    names = [sorted(choice["delta"]) for each in shown for choice in each["choices"]]
    assert names.index(["tool_calls"]) > max(n for n, each in enumerate(names) if "content" in each)
    assert told(shown) == "Let me look."
    calls = [call for each in shown for c in each["choices"] for call in c["delta"].get("tool_calls", ())]
    assert "".join(each["function"]["arguments"] for each in calls) == '{"a": 1}'
    assert [each["id"] for each in calls if "id" in each] == ["t1"]
    assert [c["finish_reason"] for each in shown for c in each["choices"]][-1] == "tool_calls"
    assert shown[-1]["usage"] == {"total_tokens": 3}
    assert all((each["id"], each["model"]) == ("c1", "big") for each in shown)


def test_choices_do_not_mix_and_a_stream_that_breaks_off_gives_what_it_held() -> None:
    chunks = [chunk({"content": f"{n} words "}, index=n % 2) for n in range(30)]
    shown = through(StreamMask(find, lambda: None), chunks)
    assert told(shown, 0) == "".join(f"{n} words " for n in range(0, 30, 2))
    assert told(shown, 1) == "".join(f"{n} words " for n in range(1, 30, 2))


@pytest.mark.parametrize(
    "odd", [None, [], {"choices": None}, {"choices": [7, {"delta": None}, {"delta": {"tool_calls": 3}}]}]
)
def test_events_of_another_shape_pass(odd: Any) -> None:
    said = odd if isinstance(odd, dict) else {}
    mask = StreamMask(find, lambda: None)
    for event in mask.events(json.dumps(said).encode(), said):
        json.loads(event)
    assert mask.rest() == []
