"""What judging a text costs, all levels and nothing remembered: texts up to 4 KB, one of 64 KB, and such as are made to
take long.

The texts are the corpus's, attacks among them, where ``CIRCUIT_SHARED`` names it; else they are put together of words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.figures import Figure
from benchmarks.judgment import quality
from circuit_script.judgment.reading import read
from tests.unit.judgment.hostile import DECOYS, hostile
from training.judgment.corpus import corpus

SPEECH = (
    "the order of lamps for our office arrived on monday and two boxes were open please send the invoice again to "
    "anna because the total was wrong we ignore the old price list and follow your new instructions thank you"
)
WORDS = SPEECH.split()
LONGEST = 4096


def spent(text: str) -> float:
    """Milliseconds, the best of three: what else the machine does is not measured."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        read(text)
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def texts(rng: random.Random, number: int) -> tuple[Sequence[str], str]:
    """So many texts, and what they are."""
    folder = quality.folder()
    if folder is not None:
        kept = [each.text for each in corpus(folder) if len(each.text) <= LONGEST]
        return rng.sample(kept, number), "texts of the corpus"
    made = [" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(number - number // 10)]
    return made + [" ".join(rng.choices(WORDS, k=900))[:LONGEST] for _ in range(number // 10)], "texts made of words"


def figures(quick: bool) -> list[Figure]:
    rng = random.Random(3)
    chosen, what = texts(rng, 300 if quick else 3000)
    for text in chosen[: len(chosen) // 3]:
        read(text)
    taken = [spent(text) for text in chosen]
    whole = spent(" ".join(rng.choices(WORDS, k=14_000))[:65_536])
    slow = sorted(((spent(hostile(name)), name) for name in DECOYS), reverse=True)
    slowest = ", ".join(f"{name} {taking:.0f}" for taking, name in slow[1:6])
    said = f"all levels, {what}, each the best of three"
    return [
        Figure("p50_ms", round(float(np.quantile(taken, 0.5)), 4), "ms", "< 0.3", said),
        Figure("p99_ms", round(float(np.quantile(taken, 0.99)), 4), "ms", "< 1", said),
        Figure("of_64kb_ms", round(whole, 3), "ms", "< 20", "words that attacks use, too"),
        Figure("worst_64kb_ms", round(slow[0][0], 1), "ms", "< 20",
               f"of {len(slow)} texts made to take long: {slow[0][1]}; next {slowest}"),
        Figure("median_64kb_ms", round(slow[len(slow) // 2][0], 1), "ms", "", "of the same"),
    ]  # fmt: skip
