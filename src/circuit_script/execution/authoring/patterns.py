"""Paths of URLs as regular expressions that take time linear in the path, whatever it is: strangers choose it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

SEGMENT = "[^/]+"
ANY, NO_SLASH = "(?s:.)", "[^/]"  # one character
ANYTHING = ANY + "*"


@dataclass(frozen=True, slots=True)
class Hole:
    """A parameter in a path. ``regex`` is what may stand there and must be linear itself; it matches no slash, unless
    the hole ``spans`` segments. With a ``name`` it becomes a group."""

    regex: str = SEGMENT
    spans: bool = False
    name: str = ""

    @property
    def pattern(self) -> str:
        return (
            f"(?P<{self.name}>{self.regex})" if self.name else f"(?:{self.regex})" if "|" in self.regex else self.regex
        )


Part = str | Hole


def pattern_of(parts: Sequence[Part]) -> str:
    """The expression for a path of literals and holes.

    It is exact for paths with one hole in a segment and one that spans segments. Others would backtrack: of several
    holes in a segment, and of all between two that span segments, each takes any text, and the first occurrence of
    what follows it.
    """
    spans = [place for place, part in enumerate(parts) if isinstance(part, Hole) and part.spans]
    if len(spans) > 1:
        first, last = spans[0], spans[-1] + 1
        parts = [*parts[:first], Hole(_glob(parts[first:last], ANY), spans=True), *parts[last:]]
    return "/".join(_segment(segment) for segment in segments_of(parts))


def segments_of(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts between slashes; a hole that spans some is in one."""
    found: list[list[Part]] = [[]]
    for part in parts:
        if isinstance(part, Hole):
            found[-1].append(part)
            continue
        first, *others = part.split("/")
        found[-1] += [first] if first else []
        found += ([other] if other else [] for other in others)
    return found


def _segment(parts: Sequence[Part]) -> str:
    holes = [part for part in parts if isinstance(part, Hole)]
    if len(holes) > 1:
        return _glob(parts, ANY if any(hole.spans for hole in holes) else NO_SLASH)
    return "".join(part.pattern if isinstance(part, Hole) else re.escape(part) for part in parts)


def _glob(parts: Sequence[Part], anything: str) -> str:
    """Holes that take any text between literals. All but the last are atomic: the first occurrence of what follows a
    hole is as good as each other."""
    places = [place for place, part in enumerate(parts) if isinstance(part, Hole)]
    text = _literal(parts[: places[0]])
    for place, following in pairwise(places):
        if between := _literal(parts[place + 1 : following]):
            text += f"(?>{anything}{_least(parts[place])}?{between})"
    return text + anything + _least(parts[places[-1]]) + _literal(parts[places[-1] + 1 :])


def _least(hole: Part) -> str:
    return "*" if isinstance(hole, Hole) and re.fullmatch(hole.regex, "") else "+"


def _literal(parts: Sequence[Part]) -> str:
    return "".join(re.escape(part) for part in parts if isinstance(part, str))


def unnamed(parts: Sequence[Part]) -> list[Part]:
    """The same without names: two paths are the same when their expressions are."""
    return [replace(part, name="") if isinstance(part, Hole) else part for part in parts]
