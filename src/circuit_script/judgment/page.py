"""A text as the levels read it: the original, its canonical form, and what was decoded in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

EVIDENCE = 120  # characters of a text that a finding shows
_IS_SPACE = np.array([chr(each).isspace() for each in range(0x3002)], np.bool_)  # none comes later


class Origins(Protocol):
    """Of each character of a view its place in the original text, and one more for the end."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int, /) -> int: ...
    def __iter__(self) -> Iterator[int]: ...


class OneByOne:
    """So many places, each worked out where it is asked for: of a long text a finding takes two."""

    __slots__ = ("_place", "_size")

    def __init__(self, size: int, place: Callable[[int], int]) -> None:
        self._size, self._place = size, place

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: int, /) -> int:
        return self._place(at)

    def __iter__(self) -> Iterator[int]:
        return map(self._place, range(self._size))


Offsets = Callable[[], Origins]
"""They are asked for only where something was found: most texts have nothing."""


def once(offsets: Offsets) -> Offsets:
    """The same, worked out at most once."""
    known: list[Origins] = []

    def places() -> Origins:
        if not known:
            known.append(offsets())
        return known[0]

    return places


def token_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Of each token that `str.split` tells in this part of a text its first and last place, exclusive."""
    starts, ends = token_places(text, start, end)
    return zip(starts.tolist(), ends.tolist(), strict=True)


def token_places(text: str, start: int, end: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same, of all tokens the first places and the last."""
    codes = np.frombuffer(text[start:end].encode("utf-32-le", "surrogatepass"), np.uint32)
    edges = np.ones(len(codes) + 2, np.bool_)
    edges[1:-1] = _IS_SPACE.take(codes, mode="clip")
    at = start + np.flatnonzero(edges[1:] != edges[:-1])
    return at[::2], at[1::2]


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text. ``how`` says by what it came about ("plain", "base64", "rot13 in base64", ...), ``depth``
    how often it was decoded; ``plain`` is canonical and in lower case; ``loose`` has letters and digits only, with
    leet and spacing undone ("" if that is nothing new). ``more``: there was more to decode than may be, and this is the
    last that was."""

    how: str
    plain: str
    offsets: Offsets
    loose: str = ""
    loose_offsets: Offsets = tuple
    depth: int = 0
    more: bool = False

    def span(self, start: int, end: int, *, loose: bool = False) -> tuple[int, int]:
        """Where in the original text stands what is here from ``start`` to ``end``."""
        places = (self.loose_offsets if loose else self.offsets)()
        if not len(places):
            return 0, 0
        last = len(places) - 1
        ends = int(places[min(start, last)]), int(places[min(max(end - 1, start), last)])
        return min(ends), max(ends) + 1  # some views read backwards

    def begins(self, starts: Iterable[int]) -> list[int]:
        """Of what is here at each of these places where it stands in the original text."""
        places = self.offsets()
        last = len(places) - 1
        return [int(places[min(each, last)]) for each in starts] if last >= 0 else [0 for _ in starts]


@dataclass(frozen=True, slots=True)
class Page:
    """A text and everything that is read in it; the first view is the text itself. ``hidden`` counts characters by what
    was removed or folded: invisible, bidi, tag, variation, homoglyph, wide, combining."""

    text: str
    views: tuple[View, ...]
    hidden: dict[str, int] = field(default_factory=dict)
    hidden_span: tuple[int, int] = (0, 0)
    source: str | None = None
    field: str | None = None


def shown(text: str) -> str:
    """A piece of an untrusted text for a person: one line, cut, without what would not print."""
    line = " ".join(text[: 4 * EVIDENCE].split())
    if not line.isprintable():
        line = " ".join("".join([each if each.isprintable() else " " for each in line]).split())
    return line if len(line) <= EVIDENCE else line[: EVIDENCE - 1] + "…"
