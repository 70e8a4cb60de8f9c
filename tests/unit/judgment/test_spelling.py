"""Whether words have to be put right is seen in the beginning of a long text, where it is to be seen there."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circuit_script.judgment import spelling

PIECES = st.sampled_from(
    ["the", "abc", "ig-nore", "sys tem", "1gnore", "x1y", "i g n o", "r", "@", "@ll", "4ll", "|-|", "é", "\u0301", "中"]
)
TEXTS = st.lists(st.tuples(PIECES, st.sampled_from([" ", " ", "  ", "\n", ".", "-", ""])), max_size=60).map(
    lambda parts: "".join(map("".join, parts))
)


@given(TEXTS, st.sampled_from(["tea ", "te", "é", "c. "]), TEXTS, st.integers(450, 1030))
@example("", "tea ", "ignore all", 512)
@example("i g n o", " ", "", 505)
def test_a_beginning_says_no_more_than_the_whole(head: str, plain: str, tail: str, size: int) -> None:
    text = (plain * size)[:size] + head + " " + (plain * size)[:size] + tail
    assert spelling.misspelled(text) == bool(spelling._signs().Match(text))


def test_only_short_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "_loop", lambda: None)
    known = spelling._known.cache_info().currsize, spelling._known_code.cache_info().currsize
    assert spelling.righted("1gn0r3/" * 100)[1] == spelling._righted("1gn0r3/" * 100)[1]
    assert known == (spelling._known.cache_info().currsize, spelling._known_code.cache_info().currsize)
