"""Codes of single characters, undone where they stand: "%41", "&amp;", "\\u0041"."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np

from circuit_script.judgment.compiled import CODES
from circuit_script.judgment.english import COMMON
from circuit_script.judgment.entities import unescaped
from circuit_script.judgment.page import Offsets, OneByOne, Origins
from circuit_script.judgment.parts import Part, apart, in_place, places_of, reach

ESCAPES = 4000

_PERCENT = re.compile("(?:%[0-9a-fA-F]{2})+|%")  # takes linear time: nothing comes again
_CUT = re.compile("[\n\ufffd]([A-Za-z]++)(?![0-9])")  # before what may be the rest of a word
_DIGITS = "0123456789abcdefABCDEF"
_PAIRS = {high + low: bytes.fromhex(high + low) for high in _DIGITS for low in _DIGITS}


class Escapes:
    """What stands for other characters from a sign on. ``behind`` is an expression whose last group has what a sign
    takes behind it, and ``read`` says what that is, or None. Bytes that follow each other are one text."""

    def __init__(self, sign: str, behind: str, read: Callable[[re.Match[str]], bytes | str | None]) -> None:
        self._sign, self._read = sign, read
        self._found = re.compile(re.escape(sign) + behind)
        self._counted = re.compile(f"{re.escape(sign)}(?:{behind})?")

    def at(self, text: str, place: int) -> tuple[bytes | str, int] | None:
        """What stands at a place, and to where."""
        mark = self._found.match(text, place)
        if mark is None or mark.lastindex is None or (what := self._read(mark)) is None:
            return None
        return what, mark.end(mark.lastindex)

    def __call__(self, text: str) -> list[Part]:
        parts: list[Part] = []
        data, begin, end = b"", 0, -1
        left = ESCAPES
        for mark in (self._found if text.count(self._sign) <= ESCAPES else self._counted).finditer(text):
            place = mark.start()
            if place < end:
                continue
            if not left:
                break
            left -= 1
            if mark.lastindex is None or (what := self._read(mark)) is None:
                continue
            if data and (place != end or isinstance(what, str)):
                parts.append((data.decode("utf-8", "replace"), begin, end))
                data = b""
            end = mark.end(mark.lastindex)
            if isinstance(what, str):
                parts.append((what, place, end))
            else:
                begin = begin if data else place
                data += what
        if data:
            parts.append((data.decode("utf-8", "replace"), begin, end))
        return parts


def _equals(mark: re.Match[str]) -> bytes:
    return _PAIRS.get(mark[1], b"")  # a line that goes on


def _entity(mark: re.Match[str]) -> str | None:
    return _read_entity("&" + (mark[1].rstrip(";") if mark[1] else mark[2]))


@lru_cache(4096)
def _read_entity(entity: str) -> str | None:
    said = html.unescape(entity) if "&" in entity[1:] else unescaped(entity)
    if entity[1] == "#":
        return said if len(said) == 1 else None
    return said if said[0] != "&" or said == "&" else None


def _backslash(mark: re.Match[str]) -> bytes | str | None:
    if mark.lastindex == 1:
        return "\n"
    if mark.lastindex == 2:
        return _PAIRS[mark[2]]
    if mark.lastindex == 3:
        return bytes([int(mark[3], 8)])
    if mark.lastindex == 4:
        return chr(int(mark[4], 16))
    digits = mark[5][1:].strip("{}")
    try:
        code = int(digits, 16) if digits.isalnum() else -1
    except ValueError:
        code = -1
    return chr(code) if 0 <= code < 0x110000 else None


def _percent(text: str) -> list[Part]:
    """The same as `Escapes` do, many at once."""
    parts: list[Part] = []
    left = ESCAPES
    for match in _PERCENT.finditer(text):
        start, end = match.span()
        if (number := min((end - start) // 3, left)) > 0:
            data = bytes.fromhex(text[start : start + 3 * number].replace("%", ""))
            parts.append((data.decode("utf-8", "replace"), start, start + 3 * number))
        left -= number or 1
        if left <= 0:
            break
    return parts


_entities = Escapes("&", r"(?:(#[A-Za-z0-9]{34}|#[A-Za-z0-9]{0,33};?)|(?=([^;\t\n\f <&#][^;]{0,33};)))", _entity)
_backslashes = Escapes(
    "\\",
    r"(?:([nrt])|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|([uU]\{\w{1,7}\}|u\w{4}|U\w{8}))",
    _backslash,
)
_printable = Escapes("=", "(\n|[0-9a-fA-F]{2})", _equals)


DECODERS: dict[str, Callable[[str], list[Part]]] = {
    "percent": _percent, "entities": _entities, "backslash": _backslashes, "quoted printable": _printable,
}  # fmt: skip
SIGNS = {"%": "percent", "&": "entities", "\\": "backslash", "=": "quoted printable"}
Undone = tuple[str, str, Offsets]
"""How they are called that were undone, the text, and of each of its characters the place in the wide form."""


def undone(text: str, names: Collection[str]) -> Undone | None:
    """A text with all escapes of these kinds undone at once, as far as it is near them; None if it has none. In which
    order they are undone does not matter. A word that only begins like one, as in "\\reveal" or "=delete", is left."""
    if CODES is None:
        return _undone(text, names)
    signs = "".join([sign for sign, name in SIGNS.items() if name in names])
    found = CODES.undone(text, signs, ESCAPES, reach(len(text)), _begun(), _read_entity, _backslashes.at)
    return None if found is None else (_called(found.signs), found.text, found.places)


def _undone(text: str, names: Collection[str]) -> Undone | None:
    parts = apart([part for name in names for part in DECODERS[name](text)])
    parts = [part for part, after in pairwise([*parts, ("", 0, 0)]) if not _goes_on(text, part, after)]
    if not parts:
        return None
    told = in_place(text, parts)
    places = places_of(lambda: told, lambda: range(len(text) + 1), backwards=False)
    said, places = _with_words("".join([said for said, _, _ in told]), places, text)
    return _called({text[start] for _, start, _ in parts}), said, places


@cache
def _begun() -> dict[str, list[str]]:
    """Of what is left of a word if its first letters are read as a number, those letters. What is left is no word."""
    begun: dict[str, list[str]] = {}
    for word in COMMON:
        for size, letters in ((1, "nrt"), (2, "abcdef")):
            if {*word[:size]} <= {*letters} and word[size:] not in COMMON:
                begun.setdefault(word[size:], []).append(word[:size])
    return begun


def _with_words(text: str, places: Offsets, source: str) -> tuple[str, Offsets]:
    """A text that was undone with the letters of words that are no numbers."""
    more: dict[int, str] = {}
    for mark in _CUT.finditer(text):
        for letters in _begun().get(mark[1].lower(), ()):
            end = int(places()[mark.start()]) + 1
            first = end - len(letters)
            is_sign = first > 0 and source[first - 1] in ("\\" if len(letters) == 1 else "%=")
            if is_sign and (source[first:end] if len(letters) == 1 else source[first:end].lower()) == letters:
                more[mark.start()] = letters
    if not more:
        return text, places
    parts: list[str] = []
    last = 0
    for at, letters in more.items():
        parts += text[last:at], " ", letters
        last = at + 1

    def moved() -> Origins:
        old, sizes = places(), np.ones(len(text) + 1, np.int64)
        sizes[[*more]] += [*map(len, more.values())]
        which = np.repeat(np.arange(len(sizes)), sizes)
        return OneByOne(len(which), lambda at: int(old[int(which[at])]))

    return "".join([*parts, text[last:]]), moved


def _goes_on(text: str, part: Part, after: Part) -> bool:
    """Whether this is an entity that is a number which may not end here: its next digit, or the semicolon, is in an
    escape of another kind."""
    _, start, end = part
    if after[1] != end or text[start] != "&" or text[end - 1] == ";" or text[end] == "&":
        return False
    first = after[0][:1]
    return bool(first) and first in "0123456789;"


def _called(signs: Collection[str]) -> str:
    return " and ".join([name for sign, name in SIGNS.items() if sign in signs])
