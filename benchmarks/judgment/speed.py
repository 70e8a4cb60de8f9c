"""What the model costs: texts up to 4 KB, and one of 64 KB."""

from __future__ import annotations

import random
import time

import numpy as np

from benchmarks.figures import Figure
from circuit_script.judgment.model import score

SPEECH = (
    "the order of lamps for our office arrived on monday and two boxes were open please send the invoice again to "
    "anna because the total was wrong we ignore the old price list and follow your new instructions thank you"
)
WORDS = SPEECH.split()


def spent(text: str) -> float:
    """Milliseconds, the best of three: what else the machine does is not measured."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        score(text, {})
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def figures(quick: bool) -> list[Figure]:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 40)))[:4096] for _ in range(300 if quick else 3000)]
    texts += [" ".join(rng.choices(WORDS, k=900))[:4096] for _ in range(len(texts) // 10)]
    for text in texts[:50]:
        score(text, {})
    taken = [spent(text) for text in texts]
    whole = spent(" ".join(rng.choices(WORDS, k=14_000))[:65_536])
    return [
        Figure(
            "p50_ms",
            round(float(np.quantile(taken, 0.5)), 4),
            "ms",
            "< 0.15",
            "the model alone, each text the best of three",
        ),
        Figure("p99_ms", round(float(np.quantile(taken, 0.99)), 4), "ms", "< 0.5", "a tenth of the texts has 4 KB"),
        Figure("of_64kb_ms", round(whole, 3), "ms", "< 15"),
    ]
