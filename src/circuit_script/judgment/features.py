"""Level 16, the eye of the model: what stands at each character of a text, as numbers of a table.

Texts are read once, many together, with numpy and without a loop in Python: words, pairs of words, pairs with one
between them, and pieces of five characters, each hashed to a row of one table. Only whole numbers are involved, so that
every machine reads the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from circuit_script.judgment.words import marks

BITS = 18
ROWS = 1 << BITS  # of the table of weights
LONGEST = 32  # characters of a word that count
WINDOW = 128  # characters that are judged together
FIVE = 5  # characters of a piece of a word
CALM = 20.0  # added to the length of a window, so that a word alone says little

Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]

_PRIME = np.uint32(0x01000193)
_MIX = np.uint32(0x9E3779B1)
_STEP = np.uint32(0x85EBCA6B)
_FAMILIES = {  # odd numbers, one for each
    "word": np.uint32(0x1B873593),
    "pair": np.uint32(0xCC9E2D51),
    "skip": np.uint32(0x27D4EB2F),
    "five": np.uint32(0xC2B2AE35),
}
_SHIFT = np.uint32(32 - BITS)
_DIGITS = bytes(0x30 if 0x30 <= each <= 0x39 else each for each in range(256))  # all alike
_HALF = np.uint32(15)


def _powers() -> Codes:
    powers = np.zeros(LONGEST + 1, np.uint32)  # the last stays zero: what is beyond it does not count
    each = 1
    for place in range(LONGEST):
        powers[place] = each
        each = each * int(_STEP) & 0xFFFFFFFF
    return powers


_POWERS = _powers()


def kinds() -> npt.NDArray[np.uint8]:
    """Of each character of the first plane: 0 none of a word, 1 part of a word, 2 a word of its own (writing without
    spaces). The model keeps it beside its weights, so that another Unicode does not change a score."""
    table = np.zeros(0x10000, np.uint8)
    for code in range(0x10000):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            table[code] = 1
    for first, last in ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)):
        table[first : last + 1] = np.where(table[first : last + 1] > 0, 2, 0)
    return table


@dataclass(frozen=True, slots=True)
class Reading:
    """Texts that were read together, as characters one behind the other with a space between two: where each text
    begins and ends; of each family the characters where its features begin and their rows; where words begin. A family
    without places has one feature at each character from the first on, but for those in ``cut``, which reach from one
    text into the next."""

    begins: Places
    ends: Places
    chars: Codes
    families: dict[str, tuple[Places | None, Codes]]
    cut: Places
    starts: Places


def codes(text: str) -> Codes:
    """The characters as numbers; lone surrogates count like any other."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def hashed_words(read: Codes, table: npt.NDArray[np.uint8], *, narrow: bool = False) -> tuple[Codes, Places]:
    """The hash of each word and where it begins; ``narrow`` is a text in ASCII, in which no letter is a word."""
    kind = table.take(read if narrow else np.minimum(read, 0xFFFF))
    letters = kind > 0
    begins = letters.copy()
    if narrow:
        begins[1:] = letters[1:] > letters[:-1]
    else:
        begins[1:] &= (kind[:-1] == 0) | (kind[1:] == 2) | (kind[:-1] == 2)
    starts = begins.nonzero()[0]
    if not starts.size:
        return np.zeros(0, np.uint32), starts
    first = starts[0]
    lengths = np.empty(len(starts), np.intp)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = len(read) - starts[-1]
    within = np.arange(first, len(read))
    within -= starts.repeat(lengths)
    weight = _POWERS.take(within, mode="clip")
    weight *= read[first:] + _PRIME
    weight *= letters[first:]
    words = np.add.reduceat(weight, starts - first, dtype=np.uint32)
    words ^= words >> _HALF
    words *= _MIX
    return words, starts


def _rows(hashes: Codes, family: str) -> Codes:
    mixed = hashes * _FAMILIES[family]
    mixed >>= _SHIFT
    return mixed


def read(texts: Sequence[str], table: npt.NDArray[np.uint8]) -> Reading:
    """The features of canonical texts."""
    joined = " ".join(texts)
    narrow = joined.isascii()
    if narrow:
        found = np.frombuffer(joined.encode().translate(_DIGITS), np.uint8).astype(np.uint32)
    else:
        found = codes(joined)
        found = np.where((found >= 0x30) & (found <= 0x39), np.uint32(0x30), found)
    lengths = np.array([len(each) for each in texts], np.intp)
    ends = np.cumsum(lengths + 1) - 1
    begins = ends - lengths
    words, starts = hashed_words(found, table, narrow=narrow)
    turned = words * _STEP
    pairs, skips = _rows(turned[:-1] + words[1:], "pair"), _rows(turned[:-2] + words[2:], "skip")
    cut = np.zeros(0, np.intp)
    first, skip = starts[:-1], starts[:-2]
    if len(texts) > 1:
        of = np.searchsorted(begins, starts, "right")
        same, near = of[1:] == of[:-1], of[2:] == of[:-2]
        first, pairs, skip, skips = first[same], pairs[same], skip[near], skips[near]
        cut = (ends[:-1, None] + np.arange(-FIVE + 1, 1)).ravel()
        cut = cut[(cut >= 0) & (cut <= len(found) - FIVE)]
    scaled = found * _MIX
    three = (scaled[:-2] * _PRIME + scaled[1:-1]) * _PRIME + scaled[2:]
    fives = _rows((three[:-2] * _PRIME + scaled[3:-1]) * _PRIME + scaled[4:], "five")
    families: dict[str, tuple[Places | None, Codes]] = {
        "word": (starts, _rows(words, "word")),
        "pair": (first, pairs),
        "skip": (skip, skips),
        "five": (None, fives),
    }
    return Reading(begins, ends, found, families, cut, starts)


def kinds_once(found: npt.NDArray[np.int16]) -> list[int]:
    """Each row of `kinds_read` once, of a short text: without numpy, which would take longer."""
    marked = [(at, kind) for at, code in enumerate(found.tolist()) if code for kind in (code & 63, code >> 6) if kind]
    rows = {kind for _, kind in marked}
    for nth, (at, kind) in enumerate(marked):
        for step, (there, second) in enumerate(marked[nth + 1 : nth + 7]):
            if there - at > NEAR:
                break
            if there - at <= CLOSE and step < 5:
                rows.add((kind << 6) + second + (64 + 4096 if step else 64))
            rows.add(((kind << 6) + second if kind < second else (second << 6) + kind) + 64 + 2 * 4096)
    return list(rows)


KINDS = 64 + 3 * 4096  # rows of the classes of words: one alone, and pairs of three sorts
NEAR, CLOSE = 12, 8  # words between the first and the second of a pair, in either order and in this one
_STEPS = np.arange(1, 7)[:, None]
_SORTS = np.array([64, *[64 + 4096] * 4])[:, None]


def kinds_read(found: npt.NDArray[np.int16]) -> tuple[Places, Places]:
    """Of the codes of words (`words.classes`): which kinds stand where, alone and in pairs, as words and rows."""
    at, kind = marks(found)
    if len(at) < 2:
        return at, kind
    steps = _STEPS[: len(at) - 1]
    there = np.append(at, np.full(len(steps), len(found) + NEAR + 1))
    kinds = np.append(kind, np.zeros(len(steps), np.intp))
    beside = np.arange(len(at)) + steps
    second = kinds[beside]
    away = there[beside] - at
    places = np.broadcast_to(at, away.shape)
    close, near = away[:5] <= CLOSE, away <= NEAR
    ordered = (kind << 6) + second[:5] + _SORTS[: len(close)]
    either = (np.minimum(second, kind) << 6) + np.maximum(second, kind) + (64 + 2 * 4096)
    return (
        np.concatenate((at, places[:5][close], places[near])),
        np.concatenate((kind, ordered[close], either[near])),
    )
