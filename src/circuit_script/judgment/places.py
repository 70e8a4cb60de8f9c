"""The score of a long text: that of its most suspicious place.

What stands far apart in a long text does not belong together, so a finding counts with the words around it. And a text
with many places has many chances to look like an attack: the odds of the highest are divided by how often as many
characters as CHANCES the text has.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from circuit_script.judgment import model, polyglot
from circuit_script.judgment.english import COMMON
from circuit_script.judgment.matching import PLACES as OFTEN
from circuit_script.judgment.page import View
from circuit_script.judgment.verdict import Finding
from circuit_script.judgment.words import Codes, classes_of

PLACE, STEP = 512, 256  # characters of a place, and from where to where the next one begins
CHANCES = 4096  # characters of a text that the calibration holds for as it is
MOST_CHANCES = 16.0  # whatever is put around an attack, its odds are divided by no more
# Readings in which most stands as it did: what they say counts where it stands, what other codes say counts whole.
MOSTLY = frozenset(("", "plain", "in place", "backslash", "entities", "quoted printable", "percent", "spelling"))
SPELLED = "spelling"  # of a script that is read as if its digits were letters, words say nothing
# What comes by chance in long harmless texts, and how much of it counts there: sequences of kinds of words in English,
# of which other levels know more, and what code, manuals and licences have.
FAINT_LEVEL, FAINT = "polyglot", 0.4
ENGLISH = 0.34  # of the words are common English ones
FAINTLY = frozenset((
    "action.insert-link", "exfil.append", "exfil.scheme", "frame.bracket-notice", "frame.end-of", "frame.system-tag",
    "leak.words-above", "mosaic.flood", "mosaic.pieces", "mosaic.split", "mosaic.suffix", "override.ignore-below",
    "persona.mode-on",
))  # fmt: skip
SAYING = 0.3  # is the score of those that count
HELD = ".more"  # a pattern that ends so says that not all was read: that counts wherever it stands

_CODES = re.compile(" in | and ")
_WORD = re.compile(r"[^\W\d_]+")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Span = tuple[int, int]


class Places:
    """What is told of a text's places, more and more: what is found in it, what words say in all of it and in other
    readings of parts of it, and what was in codes, which are texts of their own."""

    def __init__(self, text: View, codes: Codes, size: int) -> None:
        self._text, self._size = text, size
        [self._logit] = model.model().logits([text.plain], [codes])  # of words, wherever they stand
        self._spans: list[tuple[Span, float]] = []  # of other readings, and not yet among those by place
        self._surest: dict[str, tuple[int, float]] = {}  # of each pattern how often it is found, and how surely
        self._held = 0.0
        self._decoded, self._decoded_size, self._decoded_level = -math.inf, 0, 0.0
        self._starts = range(0, max(len(text.plain) - STEP, 1), STEP)
        self._begins: list[int] = []  # where they begin in the original, once that is asked
        self._levels: Floats = np.zeros(len(self._starts))
        self._words: Floats = np.full(len(self._starts), model.LOWEST)
        self._read: Flags = np.zeros(len(self._starts), np.bool_)  # whether words of a place are read

    def read(self, views: Sequence[View], codes: list[Codes], spans: Sequence[Span]) -> list[float]:
        """Other readings of these parts of the text. Says of each how sure sequences of words are in it."""
        levels = polyglot.highest(codes)
        for view, its, level, span in zip(views, codes, levels, spans, strict=True):
            coded = in_codes(view)
            if not coded and view.how.startswith(SPELLED):
                continue
            [logit] = model.model().logits([view.plain], [its])
            self._logit = max(self._logit, logit)
            self._spans.append((span, logit))
            if coded:
                self._decoded = max(self._decoded, logit)
                self._decoded_size += len(view.plain)
                self._decoded_level = max(self._decoded_level, level)
        return levels

    def decodes(self, found: Iterable[Finding]) -> None:
        """What patterns find in what was in codes."""
        for each in found:
            if each.level in model.LEVELS:
                self._decoded_level = max(self._decoded_level, each.score)

    def finds(self, found: Iterable[Finding]) -> None:
        """What is found in the text, or that not all of it is read."""
        for each in found:
            level = sure(each)
            if each.level not in model.LEVELS or level < SAYING:
                continue
            times, surest = self._surest.get(each.pattern, (0, 0.0))
            self._surest[each.pattern] = times + 1, max(surest, level)
            if each.pattern.endswith(HELD):
                self._held = max(self._held, each.score)
            else:
                there = self._among(each.span)
                np.maximum(self._levels[there], level, out=self._levels[there])

    @property
    def score(self) -> float:
        """Of the most suspicious place, of what was in codes, or of what was not read."""
        return max(
            model.model().fused(-math.inf, self._held) if self._held else 0.0,
            highest(self._logit, self._anywhere, self._size),
            self._of_places(),
            highest(self._decoded, self._decoded_level, self._decoded_size) if self._decoded_size else 0.0,
        )

    @property
    def _anywhere(self) -> float:
        """How sure what is found so often is that it is looked for no further: it may stand anywhere else, too."""
        return max((level for times, level in self._surest.values() if times >= OFTEN), default=0.0)

    def _of_places(self) -> float:
        """Of places where something was found."""
        some = np.flatnonzero(self._levels)
        if not len(some):
            return 0.0
        if len(new := some[~self._read[some]]):
            parts = [self._text.plain[self._starts[nth] : self._starts[nth] + PLACE] for nth in new.tolist()]
            self._words[new] = np.maximum(self._words[new], model.model().logits(parts, classes_of(parts)))
            self._read[new] = True
        for span, logit in self._spans:
            there = self._among(span)
            np.maximum(self._words[there], logit, out=self._words[there])
        self._spans.clear()
        pairs = zip(self._words[some].tolist(), self._levels[some].tolist(), strict=True)
        return max(highest(logit, level, self._size) for logit, level in set(pairs))

    def _among(self, span: Span) -> slice:
        """Which places have a part of it."""
        self._begins = self._begins or self._text.begins(self._starts)
        first = bisect_right(self._begins, span[0]) - 1
        last = bisect_left(self._begins, max(span[1], span[0] + 1))
        return slice(max(first - 1, 0), max(last, 1))


def in_codes(view: View) -> bool:
    """Whether all that a reading says was written in a code."""
    return not MOSTLY.issuperset(_CODES.split(view.how.replace("in place", "")))


def sure(found: Finding) -> float:
    """How sure a finding is in a long text."""
    faint = found.pattern in FAINTLY or (found.level == FAINT_LEVEL and _is_english(found.evidence))
    return min(found.score, FAINT) if faint else found.score


def _is_english(said: str) -> bool:
    words = _WORD.findall(said.lower())
    return sum(map(COMMON.__contains__, words)) >= ENGLISH * len(words)


def chances(size: int) -> float:
    """By what the odds of the highest place of so many characters are divided."""
    return min(max(size / CHANCES, 1.0), MOST_CHANCES)


def rarer(score: float, size: int) -> float:
    """A score that is one of those of so many characters."""
    return score / (score + (1 - score) * chances(size))


def highest(logit: float, level: float, size: int) -> float:
    """The score of the highest place of a text of so many characters, whose words sum up to that and whose surest
    finding is that sure."""
    read = model.model()
    less = math.log(chances(size)) / read.bend
    return read.calibrated(min(max(logit, model.LOWEST), model.HIGHEST + less) - less + model.HINT * level**model.BENT)
