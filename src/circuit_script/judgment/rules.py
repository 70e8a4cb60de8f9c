"""Rules of the levels that need more than a pattern: what they are called, how much each weighs, and why."""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import re2

from circuit_script.judgment.page import shown
from circuit_script.judgment.verdict import Finding

PATTERNS = Path(__file__).parent / "patterns"

MEMORY = 64 << 20  # bytes that an expression or a set may take for its states; with too few it begins them anew


_ANYWHERE: Any = re2._Anchor.UNANCHORED


class Match(Protocol):
    """What google-re2 says of one place."""

    def __getitem__(self, group: int | str, /) -> Any: ...
    def start(self, group: int | str = 0, /) -> int: ...
    def end(self, group: int | str = 0, /) -> int: ...
    def span(self, group: int | str = 0, /) -> tuple[int, int]: ...


class Regex(Protocol):
    """An expression of google-re2: its time grows with the text and with nothing else."""

    def search(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None: ...
    def match(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None: ...
    def fullmatch(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None: ...
    def finditer(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Iterator[Match]: ...
    def spans(self, text: str, /) -> Iterator[tuple[int, int]]: ...
    def spans_within(self, seen: bytes, start: int, end: int, /) -> Iterator[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """``re`` is the expression of those rules that one says, ``needs`` one of what a text must have for it, "" if that
    is not known; ``attacks`` and ``benign`` are for tests."""

    id: str
    weight: float
    why: str
    re: str = ""
    needs: str = ""
    attacks: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()

    def found(self, level: str, span: tuple[int, int], evidence: str, score: float | None = None) -> Finding:
        says = self.weight if score is None else score
        return Finding(level, round(min(says, 1.0), 3), span, shown(evidence), self.why, self.id)


def data(level: str) -> dict[str, Any]:
    """All that a level's file says."""
    with (PATTERNS / f"{level}.toml").open("rb") as file:
        return tomllib.load(file)


@cache
def rules(level: str) -> dict[str, Rule]:
    """The rules in a level's file by their name without the level's."""
    read = [_rule(each) for each in data(level)["rule"]]
    return {each.id.removeprefix(f"{level}."): each for each in read}


def _rule(row: Mapping[str, Any]) -> Rule:
    expression, needs = row.get("re", ""), row.get("needs", "")
    return Rule(row["id"], row["weight"], row["why"], expression, needs, tuple(row["attacks"]), tuple(row["benign"]))


class _Place:
    """A match in the bytes of a text in ASCII, told in its characters."""

    __slots__ = ("_match", "_text")

    def __init__(self, text: str, match: Any) -> None:
        self._text, self._match = text, match

    def __getitem__(self, group: int | str, /) -> Any:
        start, end = self._match.span(group)
        return None if start < 0 else self._text[start:end]

    def start(self, group: int | str = 0, /) -> int:
        return self._match.start(group)  # type: ignore[no-any-return]  # re2 has no types

    def end(self, group: int | str = 0, /) -> int:
        return self._match.end(group)  # type: ignore[no-any-return]  # re2 has no types

    def span(self, group: int | str = 0, /) -> tuple[int, int]:
        return self._match.span(group)  # type: ignore[no-any-return]  # re2 has no types


class _Quick:
    """An expression that reads a text in ASCII as bytes: google-re2 works out the places of characters for any other,
    match by match, which takes longer than to find them."""

    __slots__ = ("_regex",)

    def __init__(self, regex: Any) -> None:
        self._regex = regex

    def search(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None:
        return self._told(self._regex.search, text, pos, endpos)

    def match(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None:
        return self._told(self._regex.match, text, pos, endpos)

    def fullmatch(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Match | None:
        return self._told(self._regex.fullmatch, text, pos, endpos)

    def finditer(self, text: str, pos: int | None = None, endpos: int | None = None, /) -> Iterator[Match]:
        if not text.isascii():
            return self._regex.finditer(text, pos, endpos)  # type: ignore[no-any-return]  # re2 has no types
        return (_Place(text, each) for each in self._regex.finditer(text.encode(), pos, endpos))

    def spans(self, text: str, /) -> Iterator[tuple[int, int]]:
        """From where to where each place goes, which costs less than to say more of it."""
        seen = text.encode()
        found = spans(self._regex, seen)
        return found if len(seen) == len(text) else in_characters(seen, found)

    def spans_within(self, seen: bytes, start: int, end: int, /) -> Iterator[tuple[int, int]]:
        """The same of a part of a text in ASCII, in the light of what stands before it."""
        return spans(self._regex, seen, start, end)

    @staticmethod
    def _told(find: Callable[..., Any], text: str, pos: int | None, endpos: int | None) -> Match | None:
        if not text.isascii():
            return find(text, pos, endpos)  # type: ignore[no-any-return]  # re2 has no types
        found = find(text.encode(), pos, endpos)
        return None if found is None else _Place(text, found)


def spans(regex: Any, seen: bytes, start: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
    """Where an expression of google-re2 matches, below its own loop, which makes an object of each place."""
    find, end = regex._regexp.Match, len(seen) if last is None else last
    while start <= end:
        place: tuple[int, int] = find(_ANYWHERE, seen, start, end)[0]
        if place[0] < 0:
            return
        yield place
        start = place[1] + (place[1] == start)


def those_with(regex: Any, seen: bytes, begins: Sequence[int]) -> Iterator[int]:
    """Which of several texts have a place where an expression matches: in bytes they begin there, and the last begin is
    behind them. Of each only the first place is looked for."""
    find, end, nth = regex._regexp.Match, len(seen), 0
    while nth < len(begins) - 1:
        place: tuple[int, int] = find(_ANYWHERE, seen, begins[nth], end)[0]
        if place[0] < 0:
            return
        nth = bisect_right(begins, place[0])
        yield nth - 1


def in_characters(seen: bytes, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Places in the bytes of a text as places in its characters."""
    done = at = 0
    for start, end in spans:
        first = at + len(seen[done:start].decode())
        done, at = end, first + len(seen[start:end].decode())
        yield first, at


class Together:
    """Expressions with names, of which a text is asked at once which it has: it is read once, however many they are."""

    __slots__ = ("_names", "_set")

    def __init__(self, expressions: Mapping[str, str]) -> None:
        self._names = tuple(expressions)
        self._set: Any = re2.Set.SearchSet(_options())
        for each in expressions.values():
            self._set.Add(each)
        self._set.Compile()

    def of(self, text: str) -> set[str]:
        return {self._names[each] for each in self._set.Match(text.encode()) or ()}


def _options() -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = MEMORY
    return options


def compiled(expression: str) -> Regex:
    """An expression that takes letters of both cases for the same."""
    return _Quick(re2.compile(expression, _options()))


def readable(text: str) -> str:
    """The same text, of the same length, without halves of characters, which google-re2 does not take."""
    if text.isascii():
        return text
    try:
        text.encode("utf-16-le")  # which takes none of them either, and less time
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
