"""Level 16: a small model that was trained on attacks and on harmless texts; it sees what no single pattern says.

Each window of a text gets a sum of weights, those of its words and pieces of words, and those of the classes of words
that follow each other in it. The text counts as its highest window: what stands before or behind an attack hides
nothing. Sums are of whole numbers, so that every machine says the same. The weights are made by ``training/judgment``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from circuit_script.judgment import features
from circuit_script.judgment.features import CALM, WINDOW
from circuit_script.judgment.words import Codes, classes

WEIGHTS = Path(__file__).parent / "weights.npz"
LEVELS = (
    "override",
    "persona",
    "leak",
    "frame",
    "addressee",
    "action",
    "coercion",
    "markup",
    "exfil",
    "polyglot",
    "mosaic",
    "unmask",
)
PIECE = 1 << 14  # characters that are read at once
SHARED = 2 * WINDOW  # and how many of them the next piece reads again
STEP = 8  # characters between two windows
_ROOM = 20  # bits for the place of a word in a piece
TOKENS = 24  # words in a window, where classes of words are told

LOWEST, HIGHEST = -4.0, 8.0  # beyond them a sum of weights says no more
HINT, BENT = 12.0, 1.5  # what a sure finding adds; weak ones add less than their share

Sums = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def summed(logits: Floats, levels: Floats) -> Floats:
    """What words say and what the levels found, in one, for many texts. A row of ``levels`` is of a text, each column
    a level, of which the strongest counts: several that see the same are no more sure of it."""
    sums: Floats = np.clip(logits, LOWEST, HIGHEST) + HINT * levels.max(axis=1) ** BENT
    return sums


@dataclass(frozen=True, slots=True)
class Scored:
    """``score`` is how surely the text is an attack, from 0 to 1; ``sure`` is False where the model had rather not say;
    ``windows`` are the highest places, the first one first: from where to where, and their own score."""

    score: float
    windows: tuple[tuple[int, int, float], ...]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """``text`` has a weight for each hashed feature, ``kind`` for each class of words and pair of classes, in units of
    ``units``; ``bend`` and ``shift`` are the calibration, ``unsure`` the scores between which it had rather not say."""

    table: npt.NDArray[np.uint8]
    text: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int32]
    units: tuple[float, float]
    bias: float
    bend: float
    shift: float
    unsure: tuple[float, float]

    def score(self, plain: str, levels: Mapping[str, float], codes: Codes | None = None) -> Scored:
        """Judge a canonical text; ``levels`` says for a level the highest score of what it found, ``codes`` what
        `words.classes` says of the text, if that is known."""
        found = [
            (high, start, start + WINDOW)
            for at in range(0, max(1, len(plain) - SHARED), PIECE - SHARED)
            for high, start, _ in self._highest(plain[at : at + PIECE], at, codes if len(plain) <= PIECE else None)
        ]
        found.sort(key=lambda each: (-each[0], each[1]))
        sure = min(max((levels.get(level, 0.0) for level in LEVELS), default=0.0), 1.0)
        score = self.calibrated(min(max(found[0][0], LOWEST), HIGHEST) + HINT * sure**BENT)
        windows = tuple((start, min(end, len(plain)), self.calibrated(high)) for high, start, end in found[:2])
        return Scored(score, windows, not self.unsure[0] < score < self.unsure[1])

    def calibrated(self, logit: float) -> float:
        return 1 / (1 + math.exp(-min(max(self.bend * logit + self.shift, -30.0), 30.0)))

    def logit(self, plain: str) -> float:
        """The highest window, before levels and calibration."""
        return max(
            self._highest(plain[at : at + PIECE], at)[0][0]
            for at in range(0, max(1, len(plain) - SHARED), PIECE - SHARED)
        )

    def _highest(self, piece: str, offset: int, codes: Codes | None = None) -> list[tuple[float, int, int]]:
        """The highest window of a piece."""
        read = features.read(piece, self.table)
        length = read.length
        sums = np.zeros(length + 1, np.int64)
        for places, rows in read.families.values():
            worth = self.text[rows]
            if places is None:
                sums[1 : len(worth) + 1] += worth
            else:
                sums[places + 1] += worth
        np.cumsum(sums, out=sums)
        kinds = self._kinds(classes(piece) if codes is None else codes, whole=length <= WINDOW)
        starts = np.arange(0, max(1, length - WINDOW + STEP), STEP)
        logits = (sums[np.minimum(starts + WINDOW, length)] - sums[starts]) * (
            self.units[0] / math.sqrt(min(length, WINDOW) + CALM)
        )
        if kinds.size > 1:
            before = _words_before(piece, read)
            first = before[starts] * (kinds.size + TOKENS - 1) // max(1, int(before[-1]))
            logits += kinds[np.minimum(first, kinds.size - 1)] * self.units[1]
        else:
            logits += float(kinds[0]) * self.units[1]
        top = int(logits.argmax())
        return [(float(logits[top]) + self.bias, offset + int(starts[top]), length)]

    def _kinds(self, found: Codes, *, whole: bool = False) -> Sums:
        """Of each word where a window can begin the weights of the classes from there on, each counted once; of a whole
        text one sum."""
        places, rows = features.kinds_read(found)
        room = 1 if whole else max(1, len(found) - TOKENS + 1)
        if not rows.size:
            return np.zeros(room, np.int64)
        if room == 1:
            seen = np.zeros(len(self.kind), np.bool_)
            seen[rows] = True
            return np.array([self.kind[seen].sum()], np.int64)
        order = np.sort((rows << _ROOM) + places)
        rows, places = order >> _ROOM, order & ((1 << _ROOM) - 1)
        since = np.maximum(places - TOKENS + 1, 0)
        again = rows[1:] == rows[:-1]
        np.maximum(since[1:], np.where(again, places[:-1] + 1, 0), out=since[1:])
        until = np.minimum(places + 1, room)
        worth = np.where(since < until, self.kind[rows], 0).astype(np.float64)
        change = np.bincount(since, worth, len(found) + 2) - np.bincount(until, worth, len(found) + 2)
        summed: Sums = np.cumsum(change[:room].astype(np.int64))
        return summed


def _words_before(piece: str, read: features.Reading) -> Sums:
    """Of each character how many words stand before it, the end of a sentence counted as `words.classes` does; the last
    number is of the whole piece."""
    found = features.codes(piece)
    counts = np.zeros(read.length + 1, np.int64)
    counts[1:] = 2 * ((found == 0x2E) | (found == 0x21) | (found == 0x3F))
    counts[read.starts + 1] += 1
    return np.cumsum(counts)


def stored(model: Model, path: Path) -> None:
    """Write the weights as `load` reads them: plain arrays, nothing that could run."""
    np.savez_compressed(
        path,
        table=model.table,
        text=model.text.astype(np.int8),
        kind=model.kind.astype(np.int16),
        numbers=np.array([*model.units, model.bias, model.bend, model.shift, *model.unsure], np.float64),
    )


def load(path: Path = WEIGHTS) -> Model:
    with np.load(path, allow_pickle=False) as kept:
        text, kind, bias, bend, shift, low, high = (float(each) for each in kept["numbers"])
        return Model(
            kept["table"],
            kept["text"].astype(np.int32),
            kept["kind"].astype(np.int32),
            (text, kind),
            bias,
            bend,
            shift,
            (low, high),
        )


@cache
def model() -> Model:
    """The model of this package, read when it is first asked for."""
    return load()


def score(plain: str, levels: Mapping[str, float], codes: Codes | None = None) -> Scored:
    """Judge a canonical text with the model of this package, as `Model.score` does."""
    return model().score(plain, levels, codes)
