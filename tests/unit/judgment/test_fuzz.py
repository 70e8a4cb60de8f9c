"""No text breaks the protocol: mixed alphabets, halves of everything, and what is made to take long."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_script.judgment import JudgmentProtocol
from circuit_script.judgment.reading import read, scores
from tests.unit.judgment.costly import COSTLY, costly
from tests.unit.judgment.evasions import ATTACKS, TRICKS
from tests.unit.judgment.hostile import DECOYS, decoys, hostile

ODD = (
    "\x00", "\b", "\x1b[2J", "\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\ufffd", "\ud800", "\udfff",
    "\U000e0041", "\ufe0f", "\U000e0100", "😀", "\U0001f1e6", "é", "ß", "ſ", "İ", "ı", "ﬁ", "Ａ", "а", "ο", "ʇ", "⠊",
    "أ", "ש", "日本語", "가", "ก็", "\u0300" * 9, "<!--", "-->", "<p style='display:none'>", "</p>", "<", ">", "](",
    "![", "]: ", "{{x}}", "{", "}", "&#", "&#x41;", "&amp", "%4", "%41", "\\u00", "\\u{110000}", "\\x4", "=3D", "=",
    "<~87cURD]~>", "<~", "://", "https://[::1", "https://a@b", "https://{", "mailto:", "mailto:?body={x}",
    "javascript:",
    "data:text/html,", "---\n", '{"_a": "', '"', "'", "“", "`", ": ", "a = 'b' + ", "join ", "0x41 ", "01000001 ",
    "65, 66, ", ".- -... ", "alpha bravo ", "aWdub3Jl", "IGlnbm9yZQ==", "H4sIAAAA", "i g n o r e ", "1gn0r3 ", "\n\n",
    "\r", "\t", " " * 70, "\n" * 40, "User: ", "ignore ", "all previous instructions", "system: ",
)  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(ATTACKS),
    st.text(st.characters(), max_size=12),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789 .,:;/=+-_<>[](){}\"'\\%&#@!|~`", max_size=40),
    st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()),
    st.binary(max_size=40).map(lambda data: data.decode("latin-1")),
    st.tuples(st.sampled_from(ODD), st.integers(2, 200)).map(
        lambda pair: pair[0] * min(pair[1], 2_000 // len(pair[0]))
    ),
)
MIXED = st.lists(PIECES, max_size=14).map("".join)
DRESSED: st.SearchStrategy[Callable[[str], str]] = st.sampled_from([TRICKS[name] for name in sorted(TRICKS)])


def is_sound(text: str) -> None:
    score, findings = found = read(text)
    assert 0 <= score <= 1
    for each in findings:
        assert 0 <= each.score <= 1
        assert 0 <= each.span[0] <= each.span[1] <= len(text), each
        assert all(type(place) is int for place in each.span)
        assert each.level
        each.evidence.encode("utf-8", "surrogatepass")
    assert read(text) == found


@settings(deadline=None, max_examples=250)
@given(MIXED)
def test_any_mixture_is_read(text: str) -> None:
    is_sound(text)


@settings(deadline=None, max_examples=60)
@given(MIXED, DRESSED, DRESSED)
def test_any_mixture_in_disguise_is_read(text: str, first: Callable[[str], str], second: Callable[[str], str]) -> None:
    dressed = text.encode("ascii", "ignore").decode()
    is_sound(second(first(dressed).encode("ascii", "ignore").decode()))


@settings(deadline=None, max_examples=30)
@given(MIXED, st.sampled_from(sorted(DECOYS)), st.integers(7_000, 11_000), st.floats(0, 1))
def test_any_mixture_in_a_long_text_is_read(text: str, name: str, size: int, share: float) -> None:
    around = decoys(name, size)
    place = int(share * len(around))
    is_sound(around[:place] + text + around[place:])


@pytest.mark.parametrize("name", sorted(DECOYS))
def test_what_takes_long_is_read(name: str) -> None:
    is_sound(hostile(name, 20_000))


@pytest.mark.parametrize("name", sorted(COSTLY))
def test_what_takes_one_step_long_is_read(name: str) -> None:
    is_sound(costly(name, 20_000))


@settings(deadline=None, max_examples=60)
@given(st.lists(MIXED, max_size=4))
def test_any_mixtures_score_together_as_alone(texts: list[str]) -> None:
    assert scores(texts) == pytest.approx([read(text)[0] for text in texts], abs=1e-12)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20) | MIXED,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=40) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_any_value_is_judged(value: object) -> None:
    for verdict in JudgmentProtocol().judge_value(value).values():
        assert 0 <= verdict.score <= 1
