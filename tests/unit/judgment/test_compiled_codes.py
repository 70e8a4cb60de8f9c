"""What is compiled of codes says what is said without, of any text."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.judgment import escapes, parts, pieces, wholes
from circuit_script.judgment.canon import form_of
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
    "&lt%41;",
    "&lt=41\\n%41;%42",
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
    "=delete",
    "%ADd",
    "\\reveal",
    "\\nOT",
    "eveal",
    "&#10",
    "\\x31",
    "%3b",
    "\\u{31}",
    "\\u{3b}",
    "\\u٠٠٣١",
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
    """Of each kind, and of all at once."""
    for names in ([name] for name in escapes.DECODERS), [escapes.DECODERS]:
        for some in names:
            told, python = escapes.undone(text, some), escapes._undone(text, some)
            assert (told is None) == (python is None)
            if told is not None and python is not None:
                assert told[:2] == python[:2]
                assert [*told[2]()] == [*python[2]()]


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
        assert parts.text_in_place(text, found) == "".join([said for said, _, _ in parts._in_place(text, found)])


@given(
    st.one_of(
        st.binary(max_size=30).map(lambda data: base64.a85encode(data, adobe=True)),
        st.text('!"5AZsuz \t\n\v\fvx~', max_size=24).map(lambda said: f"<~{said}~>".encode()),
    )
)
def test_ascii85_is_the_same(piece: bytes) -> None:
    assert CODES is not None
    assert CODES.ascii85(piece) == pieces._of_ascii85(piece)


STARTS = [b"a", b"twelve letter", b"\0", b"\xff\xfe", b"\xfe\xff", b"x\x9c", b"x\xda", b"\x1f\x8b", b"\xc1\x80"]
STARTS += [
    b"\xc3\xa9",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xe2\x82\xac",
    b"\xe2\x82",
    b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80",
]
STARTS += [b"\xf0\x9f\x98\x80", b"\xf5", b"\x80"]
DATA = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda said: said.encode("utf-8", "surrogatepass")),
    st.text("ignore al.,!'\t\x00\x7fé", max_size=40).map(str.encode),
    st.text("ignore al", max_size=20).map(lambda said: said.encode("utf-16")),
    st.text("ignore alж", max_size=20).map(lambda said: said.encode("utf-16-le")),
    st.binary(max_size=20).map(zlib.compress),
    st.lists(st.sampled_from(STARTS), max_size=9).map(b"".join),
    st.sampled_from(
        [b"x\x01 all of them", b"x^ignore it", b"x\x9c", b"\x1f\x8bignore", b"ignore" * 700, b"\xffa" * 900]
    ),
)


@given(DATA)
def test_the_same_bytes_are_a_text(data: bytes) -> None:
    assert pieces._text_of(data) == pieces._said(data)


@given(st.text(max_size=40))
def test_the_same_text_is_readable(text: str) -> None:
    assert CODES is not None
    if len(text) > 3 and not text.isascii():
        counted = Counter(text)
        good = sum(count for each, count in counted.items() if each.isprintable() or each in pieces._PRINTED)
        solid = sum(count for each, count in counted.items() if each.isalnum() or pieces._is_mark(each))
        told = CODES.readable(text, pieces.LONG_PRINTED, pieces._is_mark)
        assert told == pieces._is_enough(len(text), good, solid)


ENCODED = st.one_of(
    DATA.map(base64.b64encode).map(bytes.decode),
    DATA.map(base64.urlsafe_b64encode).map(bytes.decode),
    st.text("aZ9+/=-_ \n", max_size=30),
    st.sampled_from(["abcdefgh", "Abcdefghijkl", "ABCDEFGH", "12345678", "abcdefghijklmnopqrst", "1234567890123456"]),
)


@given(st.lists(st.tuples(ENCODED, st.sampled_from([" ", "\n", "\r\n", "\n\n\n", "=", "é", ""])), max_size=8))
def test_base64_is_the_same(told: list[tuple[str, str]]) -> None:
    text = "".join(piece + gap for piece, gap in told)
    raw = pieces._ascii(text)
    assert pieces._of_runs(raw, text) == pieces._parts_of(raw.translate(pieces._USUAL), text)


def test_no_more_base64_is_read_than_without() -> None:
    text = ", ".join(base64.b64encode(b"text" * (nth % 5 + 2)).decode() for nth in range(pieces.PIECES + 9))
    raw = pieces._ascii(text)
    assert pieces._of_runs(raw, text) == pieces._parts_of(raw.translate(pieces._USUAL), text)


DIGITS = st.sampled_from(
    ["41", "0x41", "\\x6a", "%6F", "0", "x", "\\", "%", "g", " ", ", ", ":", "--", "\n", "\v", "é", "00", "aF"]
)


@given(st.lists(DIGITS, max_size=60).map("".join))
def test_hex_is_the_same(text: str) -> None:
    assert CODES is not None
    assert CODES.hexes(pieces._ascii(text), pieces.PIECES) == [*pieces._hexes(text)]


def test_no_more_hex_is_read_than_without() -> None:
    assert CODES is not None
    text = "4142434445464748 z " * (pieces.PIECES + 9)
    assert CODES.hexes(pieces._ascii(text), pieces.PIECES) == [*pieces._hexes(text)]


def told(*pieces: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=60).map("".join)


@given(told("A", "Z2", "=", "==", "MFRGGZDFMZTWQ2LK", "a", " ", "1", "é"))
def test_base32_is_the_same(text: str) -> None:
    assert CODES is not None
    raw = pieces._ascii(text)
    assert CODES.base32_runs(raw, pieces.PIECES) == [*pieces._found("base32", raw)]


@given(told("<~", "~>", "~", "<", ">", "abcde", "87cUR", "D]j7", "z", " ", "\v", "\n", "x", "é"))
def test_pieces_of_ascii85_are_the_same(text: str) -> None:
    assert pieces._ascii85(text) == pieces._ascii85s(text)


GAPS = [" ", "  ", "   ", "      ", "\n", "\t", "\v", "/", "|", " / ", "é"]


@given(told(".", "-", "..", "-.-", "_", "*", ".-..", "......", "-------", "..........", *GAPS))
def test_morse_is_the_same(text: str) -> None:
    assert CODES is not None
    assert CODES.morse(pieces._ascii(text), pieces.PIECES, pieces._SIGNALS) == [*pieces._signalled(text)]


@given(told("1", "12", "255", "256", "108", "9", "26", "27", "1234", "12345", ",", ";", "-", " , ", *GAPS))
def test_numbers_are_the_same(text: str) -> None:
    assert CODES is not None
    assert CODES.numbers(pieces._ascii(text), pieces.PIECES) == [*pieces._numbered(text)]


def test_no_more_pieces_are_read_than_without() -> None:
    assert CODES is not None
    many = pieces.PIECES + 9
    raw = b"MFRGGZDFMZTWQ2LK " * many
    assert CODES.base32_runs(raw, pieces.PIECES) == [*pieces._found("base32", raw)]
    assert pieces._ascii85("<~87cURD]j~> " * many) == pieces._ascii85s("<~87cURD]j~> " * many)
    assert CODES.morse(b".- " * 7 * many, 5, pieces._SIGNALS) == [*pieces._signalled(".- " * 7 * many)][:5]
    for unit in (".- .- .- .- .- .- x", "1 2 3 4 5 6 7 x"):
        text = unit * many
        assert CODES.morse(text.encode(), pieces.PIECES, pieces._SIGNALS) == [*pieces._signalled(text)]
        assert CODES.numbers(text.encode(), pieces.PIECES) == [*pieces._numbered(text)]


@given(st.text("абвёьЗобОЬеруAaBbc1lI|0 .,-_'!?`~", min_size=4, max_size=40))
def test_usual_letters_stay_as_many(text: str) -> None:
    if pieces._IN_FORM.fullmatch(text) and not text.isascii():
        plain = form_of(text).plain
        assert [each.isalnum() for each in plain] == [each.isalnum() for each in text]
        assert pieces._readable(plain) == pieces._readable(text)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_the_same_parts_are_apart(spans: list[tuple[int, int]]) -> None:
    found = sorted([("said", start, start + size) for start, size in spans], key=lambda part: (part[1], -part[2]))
    assert parts.apart(found[::-1]) == parts._apart(found)
    assert all(first[2] <= second[1] for first, second in pairwise(parts.apart(found)))
