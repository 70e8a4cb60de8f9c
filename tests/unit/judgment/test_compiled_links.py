"""Compiled loops over links say what Python says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.judgment import exfil
from circuit_script.judgment.compiled import LINKS

pytestmark = pytest.mark.skipif(LINKS is None, reason="it is not compiled")
_PARTS = (
    *("http", "https", "HTTP", "ws", "wss", "ldap", "gopher", "smb", "zz", "script", "data", "file", "mailto", "php"),
    *("://", ":", "/", "?", "#", "@", ".", "=", "&", "\\", "%", "%7b%7b", "%7D%7d", "%7B%7Ba%7d%7d", "{{", "}}", "{"),
    *("}", "$", "[", "]", "](", "<", ">", "(", ")", "a", "Z", "key", "a b", "_", "-", "0", "7", " ", "\n", "\x0b"),
    *("\t", "é", "\u017f", "\u212a", "\u3000", "\x1f", '"', "'", "`", "|", "a" * 61, "b" * 30, "<user name>", "{q}"),
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(_PARTS), max_size=40).map("".join)
LABELS = st.text("abeiou0123-=_/+Q\u017f\u212aé", min_size=36, max_size=66)


@given(TEXTS)
def test_what_a_text_has_is_the_same(said: str) -> None:
    assert LINKS is not None
    assert LINKS.signs(said) == exfil._signs_of(said)
    assert LINKS.flat(said) == exfil._in_ascii(said)


@given(TEXTS, st.integers(3, 90))
def test_each_link_is_the_same(said: str, longest: int) -> None:
    assert LINKS is not None
    at = said.find("://")
    while at >= 0:
        assert LINKS.link(said, at, longest) == exfil._link_here(said, at, longest), at
        at = said.find("://", at + 1)


@given(TEXTS, st.integers(1, 9), st.integers(3, 90))
def test_what_stands_before_places_for_data_is_the_same(said: str, most: int, longest: int) -> None:
    assert LINKS is not None
    flat = exfil._in_ascii(said)
    assert LINKS.before_slots(said, flat, most, longest) == [*exfil._before_slots(said, flat, most, longest)]


@given(TEXTS, st.integers(0, 40))
def test_where_a_link_follows_is_the_same(said: str, start: int) -> None:
    assert LINKS is not None
    assert LINKS.begun(said, start) == exfil._begun(said, start)


@given(LABELS)
def test_what_is_random_is_the_same(label: str) -> None:
    assert LINKS is not None
    assert LINKS.random(label) == exfil._is_random(label)
