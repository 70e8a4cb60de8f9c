"""Parts of a text: what was decoded, and where it stood."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment.compiled import CODES
from circuit_script.judgment.page import Offsets, OneByOne, Origins

WHOLE = 4096  # characters of a text of which as much is read as AROUND
AROUND, NEAR = 400, 128  # characters on both sides of what was found, and in a longer text
Part = tuple[str, int, int]
"""A text, and from where to where it stands for characters of the wide form."""


def reach(size: int) -> int:
    """How many characters are read on both sides of what was found in a text of this size."""
    return AROUND if size <= WHOLE else NEAR


def apart(parts: list[Part]) -> list[Part]:
    """Parts that do not overlap, by their place; of those that begin at one place the longest."""
    parts = sorted(sorted(parts, key=itemgetter(2), reverse=True), key=itemgetter(1))
    if CODES is not None:
        kept: list[Part] = CODES.apart(parts)
        return kept
    return _apart(parts)


def _apart(parts: list[Part]) -> list[Part]:
    kept: list[Part] = []
    for each in parts:
        if not kept or each[1] >= kept[-1][2]:
            kept.append(each)
    return kept


def around(spans: Sequence[tuple[int, int]] | NDArray[np.int32], size: int) -> list[tuple[int, int]]:
    """What is around these spans, in one where they meet."""
    if not len(spans):
        return []
    starts, ends = np.asarray(spans, np.int64).T
    starts = np.maximum(starts - reach(size), 0)
    ends = np.maximum.accumulate(np.minimum(ends + reach(size), size))
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    firsts, lasts = starts.take([0, *(apart + 1).tolist()]), ends.take([*apart.tolist(), -1])
    return [*zip(firsts.tolist(), lasts.tolist(), strict=True)]


def in_place(text: str, parts: list[Part]) -> list[Part]:
    """The text with these parts instead of what they were decoded from, as far as it is near them."""
    if CODES is not None:
        placed: list[Part] = CODES.in_place(text, parts, reach(len(text)))
        return placed
    return _in_place(text, parts)


def text_in_place(text: str, parts: list[Part]) -> str:
    """The same as one text."""
    if CODES is not None:
        told: str = CODES.text_in_place(text, parts, reach(len(text)))
        return told
    return "".join([said for said, _, _ in _in_place(text, parts)])


def _in_place(text: str, parts: list[Part]) -> list[Part]:
    placed: list[Part] = []
    queue = iter([*parts, ("", len(text) + 1, len(text) + 1)])
    part = next(queue)
    for start, end in around([(first, last) for _, first, last in parts], len(text)):
        at = start
        while part[1] < end:
            if at < part[1]:
                placed.append((text[at : part[1]], at, part[1]))
            if part[0]:
                placed.append(part)
            at = part[2]
            part = next(queue)
        if at < end:
            placed.append((text[at:end], at, end))
        placed.append(("\n", end - 1, end))
    return placed


def places_of(parts: Callable[[], list[Part]], wide: Offsets, *, backwards: bool) -> Offsets:
    """Of each character of these parts its place in the text, told by share within a part."""

    def places() -> Origins:
        told, around = parts(), wide()
        ends = [*accumulate(map(len, map(itemgetter(0), told)))]

        @cache
        def end() -> int:
            return int(around[max(map(itemgetter(2), told))])

        def place(at: int) -> int:
            if at == ends[-1]:
                return end()
            nth = bisect_right(ends, at)
            text, first, last = told[nth]
            within = ends[nth] - 1 - at if backwards else at - (ends[nth] - len(text))
            found = first + (last - first) * within // len(text)
            return int(around[max(last - 1, found) if within == len(text) - 1 else found])

        return OneByOne(ends[-1] + 1, place)

    return places
