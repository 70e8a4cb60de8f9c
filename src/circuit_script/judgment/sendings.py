"""Orders: to send a secret somewhere, to fetch and pass on, to show a picture, to run a command. An expression with
gaps has a state for each way in which its parts may stand to each other, and takes its time on texts full of their
words; so a text is first asked for parts of it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from circuit_script.judgment.rules import Regex, compiled, rules

GAP = re.compile(r"(?:\.|\[\^\(\)\])\{0,\d+\}\??")
"""What stands between the parts of an order's expression."""
_ORDERS = rules("exfil")
_WHOLE = _ORDERS["send"].re
_PARTS = GAP.split(_WHOLE)
_TO_SECRET, _TO_WAY, _TO_TARGET = (int(each.partition(",")[2].rstrip("}?")) for each in GAP.findall(_WHOLE))
_VERB, _SECRET, _ANY_WAY, _TARGET = (compiled(each) for each in _PARTS)
_SECRET_HERE = re.compile(_PARTS[1], re.ASCII | re.IGNORECASE)
_LONG = 16  # characters; no verb and no way has as many
_BEFORE, _BEHIND, _LONG_WORD = 300, 400, compiled(r"\w{65}")


def _late() -> dict[str, Regex]:
    """What stands behind the longest gaps of an order, to its end."""
    first, _, second = _ORDERS["relay"].re.partition(r"|\b(?:all|")
    fetch = [*GAP.finditer(_ORDERS["fetch"].re)][1]
    return {
        "fetch": compiled(_ORDERS["fetch"].re[fetch.end() :]),
        "relay": compiled("|".join(GAP.split(each, maxsplit=1)[1] for each in (first, second))),
    }


_LATE = _late()
_NEEDED = {name: compiled(each.needs) for name, each in _ORDERS.items() if each.needs}


def orders(name: str, whole: Regex, flat: str) -> Iterator[tuple[int, int]]:
    """From where to where an order stands, of which this is the whole expression."""
    if name in _LATE:
        return about(_LATE[name], whole, flat)
    if name in _NEEDED and _NEEDED[name].search(flat) is None:
        return iter(())
    return sendings(flat) if name == "send" and flat.isascii() else whole.spans(flat)


def sendings(flat: str) -> Iterator[tuple[int, int]]:
    """What the expression of this order says of a text in ASCII, from the last of its parts to the first: each is taken
    if one of the next follows near enough, and with that one is known where all of it ends. Where one may choose, RE2
    takes the last secret, and the first way and target behind it. A part is only looked for near to the next ones."""
    if _VERB.search(flat) is None or _ANY_WAY.search(flat) is None:
        return
    ways = _Known(_ways(flat))
    ways.until(0)
    if not ways.starts:
        return
    seen, done = flat.encode(), 0
    for starts, ends in _near(_before_ways(_secrets(flat), ways, flat), _TO_SECRET):
        for start, end in _VERB.spans_within(seen, max(0, starts[0] - _TO_SECRET - _LONG), starts[-1] + 1):
            if start < done:
                continue
            last = bisect_right(starts, end + _TO_SECRET) - 1
            if last >= 0 and starts[last] >= end:
                line = flat.find("\n", end, starts[last])
                if line >= 0:
                    last = bisect_right(starts, line) - 1
                if last >= 0 and starts[last] >= end:
                    done = ends[last]
                    yield start, done


def _near(places: Iterable[tuple[int, int]], gap: int) -> Iterator[tuple[list[int], list[int]]]:
    """Places as their begins and their ends; those together that one verb or way may stand before."""
    starts: list[int] = []
    ends: list[int] = []
    for start, end in places:
        if starts and start - starts[-1] > gap + _LONG:
            yield starts, ends
            starts, ends = [], []
        starts.append(start)
        ends.append(end)
    if starts:
        yield starts, ends


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
    seen = flat.encode()
    for starts, ends in _near(_TARGET.spans(flat), _TO_TARGET):
        nth = 0
        for start, end in _ANY_WAY.spans_within(seen, max(0, starts[0] - _TO_TARGET - _LONG), starts[-1]):
            while starts[nth] < end:
                nth += 1
            begins_behind = not nth or start >= starts[nth - 1]
            if begins_behind and starts[nth] - _TO_TARGET <= end and flat.find("\n", end, starts[nth]) < 0:
                yield start, ends[nth]


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


def about(ends: Regex, whole: Regex, flat: str) -> Iterator[tuple[int, int]]:
    """What an order's expression says of a text in ASCII, of which only what is near to one of its ends is read. One
    end may begin within another; each is shorter than ``_BEHIND`` if no word in it is long, and what stands before it
    in the order is shorter than ``_BEFORE``."""
    if ends.search(flat) is None:
        return
    if not flat.isascii() or _LONG_WORD.search(flat) is not None:
        yield from whole.spans(flat)
        return
    for start, end in _stretches(ends, flat):
        for match in whole.finditer(flat, start, end):
            yield match.span()


def _stretches(ends: Regex, flat: str) -> Iterator[tuple[int, int]]:
    """What is near to an end, each place once."""
    first = last = -1
    for start, end in ends.spans(flat):
        if first < 0 or start - _BEFORE > last:
            if first >= 0:
                yield first, last
            first = max(0, start - _BEFORE)
        last = min(len(flat), end + _BEHIND)
    if first >= 0:
        yield first, last
