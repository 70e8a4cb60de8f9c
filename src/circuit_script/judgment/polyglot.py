"""Level 12: attacks in any language, by the kinds of words that stand together.

"Ignore all previous instructions" is IGNORE ALL EARLIER INSTRUCTION in every language; ``sequences.toml`` lists what
kinds of words make an order to a model where they stand within a few words. A text that goes on in another script
where such an order begins is noted too.
"""

from __future__ import annotations

import sys
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment.compiled import LOOPS, Sequences
from circuit_script.judgment.page import Page, View, shown
from circuit_script.judgment.verdict import Finding
from circuit_script.judgment.words import Codes, Kind, classes, places_of

LEVEL = "polyglot"
WINDOWS = (4, 8, 12, 16)
MOST = 4  # findings of one rule in one reading
SURE = 0.5  # from here on a change of script counts
SWITCH = "polyglot.switch"

Masks = NDArray[np.uint64]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Sequence:
    """Kinds of words that stand within ``window`` words: each of ``items`` is a set of kinds, one of which is there.
    ``ordered``: the first of them comes first, the rest in any order. ``unless`` are kinds that, within them, make
    the sentence a harmless one."""

    id: str
    items: tuple[int, ...]
    window: int
    weight: float
    why: str
    attacks: tuple[str, ...]
    benign: tuple[str, ...]
    unless: int = 0
    ordered: bool = False

    @cached_property
    def masks(self) -> tuple[np.uint64, ...]:
        return tuple(np.uint64(item) for item in self.items)

    @cached_property
    def first(self) -> np.uint64:
        """The kinds of which a word that begins it has one."""
        bits = 0
        for item in self.items[:1] if self.ordered else self.items:
            bits |= item
        return np.uint64(bits)


@cache
def sequences() -> tuple[Sequence, ...]:
    data = tomllib.loads((files(__package__) / "sequences.toml").read_text(encoding="utf-8"))
    return tuple(
        Sequence(
            id=each["id"], items=tuple(_set(item) for item in each["items"]), window=each["window"],
            weight=each["weight"], why=each["why"], attacks=tuple(each["attacks"]), benign=tuple(each["benign"]),
            unless=_set(each.get("unless", "")), ordered=each.get("ordered", False),
        )
        for each in data["sequence"]
    )  # fmt: skip


def polyglot(page: Page) -> list[Finding]:
    findings: list[Finding] = []
    read: set[str] = set()
    for view in page.views:
        if view.plain not in read:
            read.add(view.plain)
            findings += in_view(view, classes(view.plain))
    return findings


def in_view(view: View, codes: Codes) -> list[Finding]:
    """What is found in one reading, whose classes of words are known."""
    found = list(matches(codes))
    if not found:
        return []
    where = places_of(view.plain, [place for _, *both in found for place in both])
    findings = []
    best: tuple[float, int, int] = (0.0, 0, 0)
    for rule, first, last in found:
        start, end = where[first][0], where[last][1]
        findings.append(_finding(view, start, end, rule.weight, rule.why, rule.id))
        best = max(best, (rule.weight, start, end))
    if best[0] >= SURE and _switches(view.plain, *best[1:]):
        why = "The text changes to another script where an order to a model begins."
        findings.append(_finding(view, best[1], best[2], SURE, why, SWITCH))
    return findings


def highest(rows: list[Codes]) -> list[float]:
    """Of each of several rows of classes the highest weight of what is found in it."""
    if (loop := _loop()) is not None:
        rules = sequences()
        found = [loop.matches(row, 1) for row in rows]
        return [max([rules[rule].weight for rule, _, _ in each]) if each else 0.0 for each in found]
    return _highest(rows)


def _highest(rows: list[Codes]) -> list[float]:
    """All at once, which costs numpy less than one after the other."""
    found = [0.0] * len(rows)
    apart = np.zeros(max(WINDOWS) + 1, np.int16)
    begins = list(accumulate((len(each) + len(apart) for each in rows), initial=0))
    for rule, first, _ in _matches(np.concatenate([part for each in rows for part in (each, apart)]), sys.maxsize):
        place = bisect_right(begins, first) - 1
        found[place] = max(found[place], rule.weight)
    return found


def matches(codes: Codes, most: int = MOST) -> Iterator[tuple[Sequence, int, int]]:
    """The sequences in a row of classes, each with its first and its last word."""
    if (loop := _loop()) is not None:
        rules = sequences()
        return ((rules[rule], first, last) for rule, first, last in loop.matches(codes, most))
    return _matches(codes, most)


@cache
def _loop() -> Sequences | None:
    """The same in one compiled loop, where there is one."""
    if LOOPS is None:
        return None
    loop: Sequences = LOOPS.Sequences(_masks(), sequences())
    return loop


def _matches(codes: Codes, most: int) -> Iterator[tuple[Sequence, int, int]]:
    own = _masks().take(codes)
    there = int(np.bitwise_or.reduce(own)) if len(own) else 0
    ahead: dict[int, tuple[Masks, Masks]] = {}
    heads: dict[np.uint64, Places] = {}  # of words that may begin a sequence
    row: list[int] = []
    for rule in sequences():
        for item in rule.items:
            if not there & item:
                break
        else:
            if rule.window not in ahead:
                after = _ahead(own, rule.window)
                ahead[rule.window] = after, own | after
            at = heads.get(rule.first)
            if at is None:
                at = heads[rule.first] = (own & rule.first).nonzero()[0]
            begins = _begins(rule, at, own, *ahead[rule.window])
            if begins:
                yield from islice(_spans(rule, row, begins, own), most)


def _begins(rule: Sequence, at: Places, own: Masks, after: Masks, within: Masks) -> list[int]:
    """Where one sequence begins: at a word that has one of its kinds and is followed by the others. ``at`` are those
    words, ``after`` the kinds of the words that follow each word, ``within`` its own besides."""
    kinds = within.take(at)
    all_there = (kinds & rule.masks[0]) != 0
    for item in rule.masks[1:]:
        all_there &= (kinds & item) != 0
    at = at[all_there]
    if not len(at):
        return []
    begins: set[int] = set()
    for number, item in enumerate(rule.masks[:1] if rule.ordered else rule.masks):
        found = at[(own.take(at) & item) != 0]
        for other, wanted in enumerate(rule.masks):
            if other != number and len(found):
                found = found[(after.take(found) & wanted) != 0]
        begins.update(found.tolist())
    return sorted(begins)


def _spans(rule: Sequence, row: list[int], begins: Iterable[int], own: Masks) -> Iterator[tuple[Sequence, int, int]]:
    """Of the places where a sequence begins those that do not overlap, each cut to the words that it needs."""
    done = -1
    for first in begins:
        if first <= done:
            continue
        if not row:
            row += own.tolist()  # once for all rules
        kinds = 0
        for last in range(first, min(first + rule.window + 1, len(row))):
            kinds |= row[last]
            if all(kinds & item for item in rule.items):
                break
        done = last
        if rule.unless and any(each & rule.unless for each in row[max(first - 2, 0) : last + 4]):
            continue
        yield rule, first, last


def _ahead(own: Masks, window: int) -> Masks:
    """Of each word the kinds of the words behind it, as many as the window has: four more with each step."""
    four = own.copy()
    for step in (1, 2):
        four[:-step] |= four[step:].copy()
    told = four.copy()
    for step in range(4, window, 4):
        told[:-step] |= four[step:]
    return np.append(told[1:], np.uint64(0))


@cache
def _masks() -> Masks:
    """Of each code of a word its kinds, as bits."""
    bits = [0] + [1 << each for each in range(1, 64)]
    return np.array([bits[code & 63] | bits[code >> 6] for code in range(64 * 64)], np.uint64)


def _set(names: str) -> int:
    bits = 0
    for name in names.split("|") if names else ():
        bits |= 1 << Kind[name]
    return bits


def _finding(view: View, start: int, end: int, score: float, why: str, rule: str) -> Finding:
    return Finding(LEVEL, score, view.span(start, end), shown(view.plain[start:end]), why, rule)


_SCRIPTS = (
    ("latin", "a", "ɏ"), ("greek", "Ͱ", "Ͽ"), ("cyrillic", "Ѐ", "ԯ"), ("hebrew", "֐", "׿"), ("arabic", "\u0600", "ۿ"),
    ("indic", "ऀ", "෿"), ("thai", "฀", "๿"), ("han", "぀", "鿿"), ("hangul", "가", "힣"),
)  # fmt: skip


def _switches(plain: str, start: int, end: int) -> bool:
    """Whether what was found has another script than most of what stands before it, or behind it."""
    if plain.isascii():
        return False
    scripts = _script_of().take(np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32), mode="clip")
    inside = int(_letters(scripts[start:end]).argmax())
    for part in (scripts[:start], scripts[end:]):
        letters = _letters(part)
        if letters.max() >= 40 and letters.max() > 4 * letters[inside]:
            return True
    return False


@cache
def _script_of() -> NDArray[np.uint8]:
    """Of each character of the first plane the number of its script; 0, as the last has, for none."""
    table = np.zeros(0x10000, np.uint8)
    for number, (_, low, high) in enumerate(_SCRIPTS, 1):
        table[ord(low) : ord(high) + 1] = number
    return table


def _letters(scripts: NDArray[np.uint8]) -> Places:
    """How many letters each script has here."""
    return np.bincount(scripts, minlength=len(_SCRIPTS) + 1)[1:]
