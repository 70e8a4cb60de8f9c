"""Level 16: a small model that was trained on attacks and on harmless texts; it sees what no single pattern says.

Each window of a text gets a sum of weights, those of its words and pieces of words, and those of the classes of words
that follow each other in it. The text counts as its highest window: what stands before or behind an attack hides
nothing. Sums are of whole numbers, so that every machine says the same. The weights are made by ``training/judgment``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from circuit_script.judgment import features
from circuit_script.judgment.compiled import LOOPS, Windows
from circuit_script.judgment.features import CALM, WINDOW, Places
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
STEP = 8  # characters between two windows
_ROOM = 26  # bits for the place of a word among those that are read together
TOKENS = 24  # words in a window, where classes of words are told
_APART = np.zeros(features.NEAR + 1, np.int16)  # between the words of two texts

LOWEST, HIGHEST = -4.0, 4.0  # beyond them a sum of weights says no more
HINT, BENT = 27.0, 3.0  # what a sure finding adds; weak ones add less than their share
DISGUISE, HIDING = "canon", 3.5  # what a text adds that is disguised altogether: of ordinary words too little by itself

Sums = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def summed(logits: Floats, levels: Floats, disguises: Floats) -> Floats:
    """What words say, what the levels found and how disguised it is, in one, for many texts. A row of ``levels`` is of
    a text, each column a level, of which the strongest counts: several that see the same are no more sure of it."""
    sums: Floats = np.clip(logits, LOWEST, HIGHEST) + HINT * levels.max(axis=1) ** BENT + HIDING * disguises
    return sums


@dataclass(frozen=True, slots=True)
class Scored:
    """``score`` is how surely the text is an attack, from 0 to 1; ``sure`` is False where the model had rather not say;
    ``window`` is the highest place, from where to where."""

    score: float
    window: tuple[int, int]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """``text`` has a weight for each hashed feature, ``kind`` for each class of words and pair of classes, in units of
    ``units``; ``bend`` and ``shift`` are the calibration, ``unsure`` the scores between which it had rather not say."""

    table: npt.NDArray[np.uint8]
    text: npt.NDArray[np.int8]
    kind: npt.NDArray[np.int32]
    units: tuple[float, float]
    bias: float
    bend: float
    shift: float
    unsure: tuple[float, float]
    loop: Windows | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loop", self._compiled())

    def _compiled(self) -> Windows | None:
        """What reads a text in one compiled loop, where there is one."""
        if LOOPS is None:
            return None
        loop: Windows = LOOPS.Windows(self, features, STEP, TOKENS)
        return loop

    def score(self, plain: str, levels: Mapping[str, float], codes: Codes | None = None) -> Scored:
        """Judge a canonical text; ``levels`` says for a level the highest score of what it found, and under "canon" how
        disguised it is; ``codes`` what `words.classes` says of the text, if that is known."""
        logits, windows = self._windows([plain], [classes(plain) if codes is None else codes])
        top = int(logits.argmax())
        surest = max((levels.get(level, 0.0) for level in LEVELS), default=0.0)
        score = self.fused(float(logits[top]), surest, levels.get(DISGUISE, 0.0))
        start = int(windows.starts[top])
        return Scored(score, (start, min(start + WINDOW, len(plain))), not self.unsure[0] < score < self.unsure[1])

    def fused(self, logit: float, level: float, disguise: float = 0.0) -> float:
        """The score of a text whose highest window has this sum, whose surest level is that sure, and that is so much
        disguised."""
        hint = HINT * min(max(level, 0.0), 1.0) ** BENT if level else 0.0
        if disguise:
            hint += HIDING * min(max(disguise, 0.0), 1.0)
        return self.calibrated(min(max(logit, LOWEST), HIGHEST) + hint)

    def calibrated(self, logit: float) -> float:
        return 1 / (1 + math.exp(-min(max(self.bend * logit + self.shift, -30.0), 30.0)))

    def logits(self, plains: Sequence[str], codes: Sequence[Codes]) -> list[float]:
        """Of each of these texts its highest window, before levels and calibration."""
        return [*map(self.loop.highest, plains, codes)] if self.loop is not None else self._logits(plains, codes)

    def _logits(self, plains: Sequence[str], codes: Sequence[Codes]) -> list[float]:
        """At once, which costs numpy less than one after the other."""
        if len(plains) == 1 and len(plains[0]) <= WINDOW:
            return [self._of_window(plains[0], codes[0])]
        logits, windows = self._windows(plains, codes)
        return np.maximum.reduceat(logits, windows.firsts).tolist()  # type: ignore[no-any-return]  # numpy's type

    def _of_window(self, plain: str, codes: Codes) -> float:
        """What `_windows` says of a text that is one window: each feature counts."""
        read = features.read([plain], self.table)
        rows = np.concatenate([rows for _, rows in read.families.values()])
        logit = int(self.text.take(rows).sum()) * (self.units[0] / math.sqrt(len(plain) + CALM))
        if kinds := features.kinds_once(codes):
            logit += int(self.kind.take(kinds).sum()) * self.units[1]
        return logit + self.bias

    def _windows(self, plains: Sequence[str], codes: Sequence[Codes]) -> tuple[Floats, _Windows]:
        """All windows of these texts, and what each sums up to."""
        read = features.read(plains, self.table)
        sums = np.zeros(len(read.chars) + 1, np.int32)
        for places, rows in read.families.values():
            worth = self.text.take(rows)
            if places is None:
                worth[read.cut] = 0
                sums[1 : len(worth) + 1] += worth
            else:
                sums[places + 1] += worth
        np.cumsum(sums, dtype=np.int32, out=sums)
        windows = _Windows.of_texts(read)
        unit = self.units[0] / np.sqrt(np.minimum(read.ends - read.begins, WINDOW) + CALM)
        logits = (sums[windows.ends] - sums[windows.starts]) * windows.each(unit)
        logits += self._kinds(read, windows, codes) * self.units[1]
        logits += self.bias
        return logits, windows

    def _kinds(self, read: features.Reading, windows: _Windows, codes: Sequence[Codes]) -> Sums:
        """Of each window the weights of the classes of words in it, each counted once."""
        numbers = np.fromiter(map(len, codes), np.intp, len(codes))
        row = np.concatenate([part for each in codes for part in (each, _APART)])
        begins = np.cumsum(numbers + len(_APART)) - numbers - len(_APART)
        rooms = np.where(read.ends - read.begins <= WINDOW, 1, np.maximum(numbers - TOKENS + 1, 1))
        sums = self._kinds_from(row, begins, rooms)
        before = _words_before(read)
        first = before[read.begins]
        whole = np.maximum(before[read.ends] - first, 1)
        behind = (before[windows.starts] - windows.each(first)) * windows.each(rooms + TOKENS - 1)
        behind //= windows.each(whole)
        found: Sums = sums[np.minimum(behind, windows.each(rooms - 1)) + windows.each(begins)]
        return found

    def _kinds_from(self, row: Codes, begins: Places, rooms: Places) -> Sums:
        """Of each word where a window can begin the weights of the classes from there on, each counted once; of a text
        with room for one window the weights of all its words, at its first."""
        places, rows = features.kinds_read(row)
        order = (rows << _ROOM) + places
        order.sort()
        rows, places = order >> _ROOM, order & ((1 << _ROOM) - 1)
        since, until = places - (TOKENS - 1), places + 1
        of = np.searchsorted(begins, places, "right") - 1 if len(begins) > 1 else np.zeros(1, np.intp)
        base, room = begins[of], rooms[of]
        np.maximum(since, base, out=since)
        if (rooms == 1).any():
            since = np.where(room == 1, base, since)
        np.minimum(until, base + room, out=until)
        again = rows[1:] == rows[:-1]
        np.maximum(since[1:], (places[:-1] + 1) * again, out=since[1:])
        worth = self.kind.take(rows) * (since < until)
        change = np.bincount(since, worth, len(row) + 2) - np.bincount(until, worth, len(row) + 2)
        summed: Sums = np.cumsum(change.astype(np.int64))
        return summed


_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class _Windows:
    """From where to where each window is, among all characters; how many each text has, and which is its first."""

    starts: Places
    ends: Places
    counts: Places
    firsts: Places

    @classmethod
    def of_texts(cls, read: features.Reading) -> _Windows:
        counts = -(-np.maximum(read.ends - read.begins - (WINDOW - STEP), 1) // STEP)
        firsts = np.cumsum(counts) - counts
        found = cls(np.arange(int(counts.sum())) * STEP, np.zeros(0, np.intp), counts, firsts)
        starts = found.starts + found.each(read.begins - firsts * STEP)
        return cls(starts, np.minimum(starts + WINDOW, found.each(read.ends)), counts, firsts)

    def each(self, values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        """Of each window what is given of its text."""
        return values if len(values) == 1 else np.repeat(values, self.counts)


def _words_before(read: features.Reading) -> Sums:
    """Of each character how many words stand before it, the end of a sentence counted as `words.classes` does; the last
    number is of all."""
    chars = read.chars
    counts = np.zeros(len(chars) + 1, np.int32)
    counts[1:] = 2 * ((chars == 0x2E) | (chars == 0x21) | (chars == 0x3F))
    counts[read.starts + 1] += 1
    return np.cumsum(counts, dtype=np.int32)


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
            kept["text"],
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
