"""Entities of a page."""

from __future__ import annotations

import html
from html.entities import html5

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circuit_script.judgment.entities import unescaped


@pytest.mark.parametrize("behind", ["", ";", "x", "x;", " x", "lt;", "\u00e9;"])
def test_names_say_what_they_say_in_a_page(behind: str) -> None:
    names = {name.rstrip(";") for name in html5} | {name[:-1] for name in html5} | {"", "a", "amp", "zz", "no" * 20}
    entities = [f"&{name}{behind}" for name in names if ";" not in name]
    assert [*map(unescaped, entities)] == [*map(html.unescape, entities)]


def test_every_number_says_what_it_says_in_a_page() -> None:
    numbers = [*range(0x3000), *range(0xD700, 0xE100), *range(0xF900, 0x10100)]
    numbers += [plane << 16 | low for plane in range(1, 18) for low in (0, 1, 0xFDD0, 0xFFFD, 0xFFFE, 0xFFFF)]
    entities = [f"&#{number};" for number in numbers] + [f"&#x{number:x}" for number in numbers]
    assert [*map(unescaped, entities)] == [*map(html.unescape, entities)]


@given(st.text(st.sampled_from("#xX0019aAfFgzlt\u0663_+- \n<"), max_size=20), st.sampled_from(["", ";"]))
@example("#", ";")
@example("#x", ";")
@example("#" + "0" * 30 + "65", "")
@example("#\u0661\u0662", ";")
@example("# 1", ";")
@example("#1_0", ";")
@example("#+1", ";")
def test_what_is_almost_an_entity_says_the_same(name: str, end: str) -> None:
    assert unescaped(f"&{name}{end}") == html.unescape(f"&{name}{end}")
