"""The score of a long text: that of its most suspicious place.

What stands far apart in a long text does not belong together, so a finding counts with the words around it. And a text
with many places has many chances to look like an attack: the odds of the highest are divided by how often as many
characters as CHANCES the text has.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
Span = tuple[int, int]


@dataclass(slots=True)
class Places:
    """What is told of a text's places: what words say in all of it and in other readings of parts of it, and what was
    in codes, which are texts of their own."""

    text: View
    codes: Codes
    size: int
    words: list[tuple[Span, float]] = field(default_factory=list)
    decoded: list[float] = field(default_factory=list)
    decoded_size: int = 0
    decoded_level: float = 0.0

    def read(self, views: Sequence[View], codes: list[Codes], spans: Sequence[Span]) -> list[float]:
        """Other readings of these parts of the text. Says of each how sure sequences of words are in it."""
        levels = polyglot.highest(codes)
        for view, its, level, span in zip(views, codes, levels, spans, strict=True):
            coded = in_codes(view)
            if not coded and view.how.startswith(SPELLED):
                continue
            [logit] = model.model().logits([view.plain], [its])
            self.words.append((span, logit))
            if coded:
                self.decoded.append(logit)
                self.decoded_size += len(view.plain)
                self.decoded_level = max(self.decoded_level, level)
        return levels

    def finds(self, found: Iterable[Finding]) -> None:
        """What patterns find in what was in codes."""
        for each in found:
            if each.level in model.LEVELS:
                self.decoded_level = max(self.decoded_level, each.score)

    def score(self, found: Iterable[Finding]) -> float:
        """Of the most suspicious place, of what was in codes, or of what was not read."""
        telling = [each for each in found if each.level in model.LEVELS and sure(each) >= SAYING]
        held = max((each.score for each in telling if each.pattern.endswith(HELD)), default=0.0)
        logits = model.model().logits([self.text.plain], [self.codes])
        return max(
            model.model().fused(-math.inf, held) if held else 0.0,
            highest(max(logits + [logit for _, logit in self.words]), _anywhere(telling), self.size),
            self._of_places([each for each in telling if not each.pattern.endswith(HELD)]),
            highest(max(self.decoded), self.decoded_level, self.decoded_size) if self.decoded else 0.0,
        )

    def _of_places(self, found: Sequence[Finding]) -> float:
        """Of places where something was found."""
        if not found:
            return 0.0
        plain, read = self.text.plain, model.model()
        starts = range(0, max(len(plain) - STEP, 1), STEP)
        begins = self.text.begins(starts)
        levels: Floats = np.zeros(len(starts))
        for each in found:
            there = _among(begins, each.span)
            np.maximum(levels[there], sure(each), out=levels[there])
        some = np.flatnonzero(levels)
        parts = [plain[starts[nth] : starts[nth] + PLACE] for nth in some.tolist()]
        logits: Floats = np.full(len(starts), model.LOWEST)
        logits[some] = read.logits(parts, classes_of(parts))
        for span, logit in self.words:
            there = _among(begins, span)
            np.maximum(logits[there], logit, out=logits[there])
        pairs = zip(logits[some].tolist(), levels[some].tolist(), strict=True)
        return max(highest(logit, level, self.size) for logit, level in pairs)


def in_codes(view: View) -> bool:
    """Whether all that a reading says was written in a code."""
    return not MOSTLY.issuperset(_CODES.split(view.how.replace("in place", "")))


def sure(found: Finding) -> float:
    """How sure a finding is in a long text."""
    faint = found.pattern in FAINTLY or (found.level == FAINT_LEVEL and _is_english(found.evidence))
    return min(found.score, FAINT) if faint else found.score


def _anywhere(found: Sequence[Finding]) -> float:
    """How sure what is found so often is that it is looked for no further: it may stand anywhere else, too."""
    counts = Counter(each.pattern for each in found)
    return max((sure(each) for each in found if counts[each.pattern] >= OFTEN), default=0.0)


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


def _among(begins: Sequence[int], span: Span) -> slice:
    """Which of the places that begin there have a part of it."""
    first = bisect_right(begins, span[0]) - 1
    last = bisect_left(begins, max(span[1], span[0] + 1))
    return slice(max(first - 1, 0), max(last, 1))
