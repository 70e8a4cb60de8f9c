"""Orders to send a secret somewhere, looked for in parts. One expression of all would have a state for each way in
which its parts may stand to each other, and take its time on texts full of their words."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from circuit_script.judgment.rules import compiled, rules

GAP = re.compile(r"(?:\.|\[\^\(\)\])\{0,\d+\}\??")
"""What stands between the parts of an order's expression."""
_WHOLE = rules("exfil")["send"].re
_PARTS = GAP.split(_WHOLE)
_TO_SECRET, _TO_WAY, _TO_TARGET = (int(each.partition(",")[2].rstrip("}?")) for each in GAP.findall(_WHOLE))
_VERB, _SECRET, _ANY_WAY, _TARGET = (compiled(each) for each in _PARTS)
_SECRET_HERE = re.compile(_PARTS[1], re.ASCII | re.IGNORECASE)


def sendings(flat: str) -> Iterator[tuple[int, int]]:
    """What the expression of this order says, from the last of its parts to the first: each is taken if one of the next
    follows near enough, and with that one is known where all of it ends. Where one may choose, RE2 takes the last
    secret, and the first way and target behind it."""
    if _VERB.search(flat) is None or _ANY_WAY.search(flat) is None:
        return
    ways = _Known(_ways(flat))
    ways.until(0)
    if not ways.starts:
        return
    secrets, done = _Known(_before_ways(_secrets(flat), ways, flat)), 0
    starts = secrets.starts
    for start, end in _VERB.spans(flat):
        if start < done:
            continue
        secrets.until(end + _TO_SECRET)
        last = bisect_right(starts, end + _TO_SECRET) - 1
        if last >= 0 and starts[last] >= end:
            line = flat.find("\n", end, starts[last])
            if line >= 0:
                last = bisect_right(starts, line) - 1
            if last >= 0 and starts[last] >= end:
                done = secrets.ends[last]
                yield start, done


class _Known:
    """Places in their order, as far as they were asked for: most orders are told before a text is read to its end."""

    __slots__ = ("_more", "ends", "starts")

    def __init__(self, more: Iterator[tuple[int, int]]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self._more = more

    def until(self, place: int) -> None:
        """All are known that begin up to there, and the next."""
        while not self.starts or self.starts[-1] <= place:
            following = next(self._more, None)
            if following is None:
                return
            self.starts.append(following[0])
            self.ends.append(following[1])


def _ways(flat: str) -> Iterator[tuple[int, int]]:
    """Where a way to a target is named, and where the target ends that follows."""
    targets = _TARGET.spans(flat)
    before, target, last = 0, -1, -1
    for start, end in _ANY_WAY.spans(flat):
        while target < end:
            before = max(target, 0)
            target, last = next(targets, (-1, -1))
            if target < 0:
                return
        if start >= before and target - _TO_TARGET <= end and flat.find("\n", end, target) < 0:
            yield start, last


def _before_ways(secrets: Iterable[tuple[int, int]], ways: _Known, flat: str) -> Iterator[tuple[int, int]]:
    """Those secrets behind which a way is named, and where its target ends."""
    starts = ways.starts
    for start, end in secrets:
        ways.until(end)
        at = bisect_left(starts, end)
        if at < len(starts) and starts[at] <= end + _TO_WAY:
            between = flat[end : starts[at]]
            if "(" not in between and ")" not in between:
                yield start, ways.ends[at]


def _secrets(flat: str) -> Iterator[tuple[int, int]]:
    """Where a secret is named; one may begin within another."""
    for start, end in _SECRET.spans(flat):
        yield start, end
        if not flat[start:end].isalpha():
            for at in range(start + 1, end):
                if (inner := _SECRET_HERE.match(flat, at)) is not None:
                    yield inner.span()
