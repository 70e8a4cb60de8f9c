"""Level 15: what must not leave."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.judgment.residue import CLASSES, class_of, masked, residue
from circuit_script.judgment.rules import rules
from circuit_script.telemetry.redact import REDACTED, Known, Redactor

RULES = rules("residue")
CANARY = "canary-7f3k2m"


def whole(text: str) -> str:
    return text.replace("~", "")


@pytest.mark.parametrize(("rule", "text"), [(each.id, whole(text)) for each in RULES.values() for text in each.attacks])
def test_what_must_not_leave_is_found_where_it_stands(rule: str, text: str) -> None:
    found = [each for each in residue(text, [CANARY]) if each.pattern == rule]
    assert found, "nothing found"
    for each in found:
        start, end = each.span
        assert 0 <= start < end <= len(text)
        assert each.evidence.rstrip("…") in " ".join(text[start:end].split())


@pytest.mark.parametrize(("rule", "text"), [(each.id, text) for each in RULES.values() for text in each.benign])
def test_what_only_looks_like_it_is_not_found(rule: str, text: str) -> None:
    assert [each for each in residue(text, [CANARY]) if each.pattern == rule] == []


def test_each_rule_has_examples_and_a_class() -> None:
    assert all(len(each.attacks) >= 2 and len(each.benign) >= 2 for each in RULES.values())
    assert set(CLASSES.values()) == {"secret", "personal", "active", "leak"}
    assert class_of(residue("call +49 30 901820 now")[0]) == "personal"


@pytest.mark.parametrize("lead", ["", "a", "ab", "abc: "])
def test_a_canary_is_found_within_a_longer_encoding(lead: str) -> None:
    told = base64.b64encode(f"{lead}{CANARY} and more".encode()).decode()
    found = residue(f"here: {told}", [CANARY])
    assert "residue.canary" in {each.pattern for each in found}


def test_a_short_canary_is_not_looked_for() -> None:
    assert residue("a cat sat", ["cat"]) == []


def test_what_was_found_is_masked() -> None:
    text = "Card 4111 1111 1111 1111, mail a@b.example, key: none."
    assert masked(text, residue(text)) == "Card [masked], mail [masked], key: none."
    assert masked("nothing here", []) == "nothing here"


def test_places_that_touch_are_masked_once() -> None:
    text = "password: https://x:abc12345@db.example/z"
    out = masked(text, residue(text))
    assert "abc12345" not in out
    assert out.count("[masked]") == 1


@pytest.mark.parametrize(
    "text",
    [
        "postgres://app:hunter22@db.example/crm",
        "authorization: Bearer abcdefgh12345678ijkl",
        "mail bob@example.com today",
        "call +1 (555) 010-2000",
        "card 4111111111111111",
        "219-09-9999",
        "api_key=9f8e7d6c5b4a3",
        "AK" + "IAIOSFODNN7EXAMPLE",
        "gh" + "p_abcdefghijklmnopqrstuvwxyz012345",
    ],
)
def test_what_logs_leave_out_is_found_here_too(text: str) -> None:
    assert REDACTED in Redactor(known=Known()).text(text)
    assert residue(text) != []


def test_plain_answers_have_no_residue() -> None:
    assert residue("Your viewing is on Monday at ten. The agent, Ms Lee, has the keys; ask her about the lease.") == []


@given(st.text(st.characters(codec=None), max_size=300), st.text(max_size=12))
def test_any_text_is_read(text: str, canary: str) -> None:
    found = residue(text, [canary])
    assert all(0 <= each.span[0] < each.span[1] <= len(text) for each in found)
    masked(text, found)


PARTS = [
    "-----BEGIN PRIVATE KEY-----",
    "-----END",
    "4111 1111 ",
    "DE89 3704 ",
    "@",
    "a.b",
    "+1",
    "<",
    ">",
    "=",
    "password: ",
    "'",
    "on",
    "\n",
    "\ud800",
    "İ",
    "http://",
    "x:y@",
    "|",
    "١٢٣",
    "eyJ",
    ".",
    "[",
    "](",
    "AB12 ",
]


@given(st.lists(st.sampled_from(PARTS), max_size=60))
def test_any_pieces_are_read(parts: list[str]) -> None:
    text = "".join(parts)
    found = residue(text, [text[:9]])
    assert all(0 <= each.span[0] < each.span[1] <= len(text) for each in found)
    assert re.sub(r"\[masked\]", "", masked(text, found)) is not None
