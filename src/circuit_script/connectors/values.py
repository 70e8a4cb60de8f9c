"""Values of records: which there are, and how they compare (`query` says of what that decides).

- Numbers compare with numbers, as decimals; booleans equal booleans only; text compares by code point, with case.
  A number and the text of it ("91") are never equal. Lists and mappings are equal part by part.
- Text that reads as a moment (`moment`) compares with such text as an instant, without an offset in UTC. Where the
  wanted value is a moment, no other text is equal to it, greater or less.
- ``contains``, ``starts_with`` and ``ends_with`` look at text without case (`folded`); ``contains`` of a list asks for
  a member.
- An order puts moments, other text, numbers, booleans, lists and mappings one after the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from circuit_script.errors import QueryRefused

DEEPEST = 20  # levels of one value
LONGEST_TEXT = 100_000  # characters of one value
EXACT = 2**53  # up to here every whole number is a float
LONGEST_MOMENT = 40  # characters

MOMENT = (
    "(?!0000)([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "([T ]([01][0-9]|2[0-3]):([0-5][0-9])(:([0-5][0-9])([.][0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4]):?([0-5][0-9]))?)?"
)
_MOMENT = re.compile(MOMENT)
_DAY = 86_400 * 1_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class Known:
    """The values of a list: by their keys those that have one (`_key_of`), and the others."""

    keys: frozenset[tuple[str, Any]] = frozenset()
    others: tuple[Any, ...] = ()

    @classmethod
    def of(cls, values: Sequence[Any], *, is_identity: bool) -> Known:
        keyed = [(each, ("identity", each) if is_identity else _key_of(each)) for each in values]
        return cls(
            frozenset(key for _, key in keyed if key is not None), tuple(each for each, key in keyed if key is None)
        )

    def has(self, value: Any) -> bool:
        key = _key_of(value)
        return key in self.keys if key is not None else any(_same(value, each) for each in self.others)

    def has_identity(self, text: str | None) -> bool:
        return ("identity", text) in self.keys


def identity(value: Any) -> str | None:
    """An id as text: text is, and whole numbers have one; nothing else does."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _key_of(value: Any) -> tuple[str, Any] | None:
    """Two values are equal if their keys are; lists and mappings have none."""
    match value:
        case None:
            return "null", None
        case bool():
            return "truth", value
        case int() | float():
            return "number", _exact(value)
        case str():
            instant = moment(value)
            return ("text", value) if instant is None else ("moment", instant)
        case _:
            return None


def is_equal(value: Any, wanted: Any) -> bool:
    """Whether a value is what somebody wants: text as a moment, where they want one."""
    if isinstance(wanted, str):
        if not isinstance(value, str):
            return False
        instant = moment(wanted)
        return value == wanted if instant is None else moment(value) == instant
    return _same(value, wanted)


def _same(one: Any, other: Any) -> bool:
    """Equal as values of JSON: True is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return bool(_exact(one) == _exact(other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    return type(one) is type(other) and bool(one == other)


def stands(value: Any, op: str, wanted: Any) -> bool:
    """Whether a value stands so (``gt``, ``ge``, ``lt``, ``le``) to what is wanted; one of another kind never does."""
    if isinstance(wanted, str):
        if not isinstance(value, str):
            return False
        if (instant := moment(wanted)) is None:
            return compared(value, op, wanted)
        found = moment(value)
        return found is not None and compared(found, op, instant)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return compared(_exact(value), op, _exact(wanted))


def compared(value: Any, op: str, wanted: Any) -> bool:
    """The same, of two that Python compares as we do."""
    match op:
        case "gt":
            return bool(value > wanted)
        case "ge":
            return bool(value >= wanted)
        case "lt":
            return bool(value < wanted)
        case _:
            return bool(value <= wanted)


def has(value: Any, op: str, wanted: str) -> bool:
    """Whether text is in a value (``contains``), or at its beginning or end; or is a member of a list."""
    wanted = folded(wanted)
    if isinstance(value, str):
        text = folded(value)
        match op:
            case "contains":
                return wanted in text
            case "starts_with":
                return text.startswith(wanted)
            case _:
                return text.endswith(wanted)
    if op == "contains" and isinstance(value, (list, tuple)):
        return any(isinstance(each, str) and folded(each) == wanted for each in value)
    return False


def _exact(number: Any) -> Any:
    """A number as the decimal that it is written as: 1e23 is ten to the 23rd, as the database reads it."""
    return Decimal(repr(number)) if isinstance(number, float) and abs(number) >= EXACT else number


def moment(text: Any) -> int | None:
    """The microseconds from the year 1 on, in UTC, of ``2026-11-22``, ``2026-11-22T10:00:00.5+01:00`` and what lies
    between; None for anything else. Without an offset it is UTC; a date is its midnight."""
    return _moment(text) if isinstance(text, str) and 10 <= len(text) <= LONGEST_MOMENT else None


@lru_cache(maxsize=10_000)
def _moment(text: str) -> int | None:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    try:
        day = date(int(found[1]), int(found[2]), int(found[3])).toordinal()
    except ValueError:
        return None
    seconds = int(found[5] or 0) * 3600 + int(found[6] or 0) * 60 + int(found[8] or 0)
    if (offset := found[10]) and offset != "Z":
        away = int(found[11]) * 3600 + int(found[12]) * 60
        seconds += away if offset[0] == "-" else -away
    return day * _DAY + seconds * 1_000_000 + int((found[9] or ".")[1:7].ljust(6, "0"))


def folded(text: str) -> str:
    """Text without case: each letter as its own small one, where that is one letter."""
    return text.lower() if text.isascii() else text.translate(_small())


def capitals(text: str) -> tuple[str, str]:
    """The letters that `folded` changes into one of ``text``'s, and into which: nothing else matters to who looks for
    it."""
    found = [(capital, small) for small in sorted(set(text)) for capital in _capitals().get(small, ())]
    return "".join(capital for capital, _ in found), "".join(small for _, small in found)


@cache
def _small() -> dict[int, str]:
    table = {}
    for point in range(0x20000):  # no letter beyond has two cases
        small = chr(point).lower()
        if len(small) == 1 and ord(small) != point:
            table[point] = small
    return table


@cache
def _capitals() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for point, small in _small().items():
        found.setdefault(small, []).append(chr(point))
    return found


def sort_key(value: Any) -> tuple[int, Any]:
    """Where a value stands among others."""
    if isinstance(value, str):
        instant = moment(value)
        return (1, value) if instant is None else (0, instant)
    if isinstance(value, bool):
        return 3, value
    if isinstance(value, (int, float)):
        return 2, _exact(value)
    return 4, 0


def storable(value: Any, depth: int = DEEPEST) -> Any:
    """A value that JSON has and the database can hold. Raises QueryRefused: nothing stored is equal to any other."""
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise QueryRefused(f"a value cannot be looked for: {value} is no number.")
            return value
        case str():
            if len(value) > LONGEST_TEXT:
                raise QueryRefused(f"a value cannot be looked for: it has more than {LONGEST_TEXT:,} characters.")
            if "\0" in value or not is_text(value):
                raise QueryRefused("a value cannot be looked for: it is no text that is ever stored.")
            return value
        case list() | tuple() if depth:
            return [storable(each, depth - 1) for each in value]
        case dict() if depth:
            return {storable(str(name)): storable(each, depth - 1) for name, each in value.items()}
        case _:
            raise QueryRefused(f"a value cannot be looked for: {type(value).__name__} is no value of a field.")


def is_text(value: str) -> bool:
    return value.isascii() or not any(0xD800 <= ord(each) <= 0xDFFF for each in value)
