"""What is compiled of codes says what is said without, of any text."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.judgment import escapes, parts, pieces, wholes
from circuit_script.judgment.compiled import CODES
from tests.unit.judgment.hostile import DECOYS, hostile

pytestmark = pytest.mark.skipif(CODES is None, reason="Nothing is compiled here.")

SIGNS = [
    "%",
    "%4",
    "%41",
    "%e2%82%ac",
    "&",
    "&#",
    "&#1",
    "&#65",
    "&#65;",
    "&#x41",
    "&#X4g",
    "&#xq",
    "&#1a;",
    "&#128;",
    "&#xD800;",
    "&#x110000;",
    "&lt",
    "&lt;",
    "&notit;",
    "&amp",
    "&;",
    "&é;",
    ";",
    "\\",
    "\\n",
    "\\x",
    "\\x41",
    "\\xc3\\xa9",
    "\\101",
    "\\377",
    "\\38",
    "\\u0041",
    "\\ud83d",
    "\\u{41}",
    "\\u{}",
    "\\u{fffffff}",
    "\\u{41",
    "\\u00_1",
    "\\u١٢٣٤",
    "\\U0001F600",
    "\\U00110000",
    "\\u0x41",
    "\\u{0x41}",
    "=",
    "=41",
    "=e2=82=ac",
    "=C3",
    "é",
    "a",
    "7",
    "x",
]
LONG = [f"&#{'0' * size}65;" for size in (30, 31, 32, 33)] + [f"&{'a' * size};" for size in (31, 33, 34, 35)]
ESCAPED = st.lists(st.sampled_from([*SIGNS, *LONG, " ", "\n", "=\n", "& a;"]), max_size=40).map("".join)
IMAGES = st.sampled_from(sorted(wholes._images()))
DRESSED = st.sampled_from(["", ".", "(", "-<", "é", "ſ", "ß", "x", "日", "\ud800"])
WORDS = st.one_of(
    st.builds("{1}{0}{2}".format, IMAGES, DRESSED, DRESSED),
    IMAGES.map(str.upper),
    IMAGES.map(lambda word: word.replace("s", "ſ").replace("k", "\u212a").replace("ff", "ﬀ")),
    st.sampled_from(["...", "ß", "ok"]),
)
SPACES = st.sampled_from([" ", "\n", "  ", "\u2003", "\x1c", "\x85", "\u3000"])
IMAGED = st.lists(st.one_of(WORDS, SPACES), max_size=40).map("".join)


def same_escapes(text: str) -> None:
    assert escapes.percent(text) == escapes._percent(text)
    assert escapes.entities(text) == escapes._entities(text)
    assert escapes.backslashes(text) == escapes._backslashes(text)
    assert escapes.printable(text) == escapes._printable(text)


@given(ESCAPED)
def test_escapes_are_the_same(text: str) -> None:
    same_escapes(text)


@given(st.text(max_size=60))
def test_escapes_of_any_text_are_the_same(text: str) -> None:
    same_escapes(text)


@pytest.mark.parametrize("name", DECOYS)
def test_codes_of_long_texts_are_the_same(name: str) -> None:
    text = hostile(name)
    same_escapes(text)
    assert wholes._found(text).tolist() == wholes._found_by_word(text).tolist()


@pytest.mark.parametrize("unit", [*SIGNS, *LONG, "=\n", "&#x41g"])
def test_no_more_escapes_are_read_than_without(unit: str) -> None:
    same_escapes(unit * (escapes.ESCAPES + 7))


@given(IMAGED)
def test_the_same_words_are_known(text: str) -> None:
    assert wholes._found(text).tolist() == wholes._found_by_word(text).tolist()


def test_all_that_is_folded_to_ascii_is_listed() -> None:
    assert set(wholes._FOLDED) == {chr(code) for code in range(128, 0x110000) if chr(code).casefold().isascii()}


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 9), st.sampled_from(["", "said"])), max_size=8))
def test_parts_are_put_in_the_same_place(gaps: list[tuple[int, int, str]]) -> None:
    found: list[parts.Part] = []
    end = 0
    for gap, size, said in gaps:
        found.append((said, end + gap, end + gap + size))
        end += gap + size
    for more in (0, 3, 500):
        text = ("a text of so many characters " * 400)[: end + more]
        assert parts.in_place(text, found) == parts._in_place(text, found)


@given(
    st.one_of(
        st.binary(max_size=30).map(lambda data: base64.a85encode(data, adobe=True)),
        st.text('!"5AZsuz \t\n\v\fvx~', max_size=24).map(lambda said: f"<~{said}~>".encode()),
    )
)
def test_ascii85_is_the_same(piece: bytes) -> None:
    assert CODES is not None
    assert CODES.ascii85(piece) == pieces._of_ascii85(piece)
