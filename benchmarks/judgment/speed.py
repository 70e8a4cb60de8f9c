"""What judging a text costs, all levels and nothing remembered: texts up to 4 KB, one of 64 KB, and such as are made to
take long.

The texts are the corpus's, attacks among them, where ``CIRCUIT_SHARED`` names it; else they are put together of words.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.figures import Figure
from benchmarks.judgment import quality
from circuit_script.judgment.reading import read
from tests.unit.judgment.costly import COSTLY, costly
from tests.unit.judgment.evasions import CHARACTERS, ENCODINGS, MORE_CHARACTERS, NESTED, Trick
from tests.unit.judgment.hostile import DECOYS, SIZE, hostile
from training.judgment.corpus import corpus

SPEECH = (
    "the order of lamps for our office arrived on monday and two boxes were open please send the invoice again to "
    "anna because the total was wrong we ignore the old price list and follow your new instructions thank you"
)
WORDS = SPEECH.split()
LONGEST = 4096
PIECE = 400  # characters that are disguised at once
LIMIT = 20.0  # milliseconds that a text of 64 KB may take


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


def hostile_texts(words: str) -> Iterator[tuple[str, str]]:
    """Texts of 65,536 characters that take one step or another long, with their names: such as are made for it, and
    these words in every disguise, some hundred characters at a time."""
    yield from ((name, hostile(name)) for name in DECOYS)
    yield from ((name, costly(name)) for name in COSTLY)
    for name, trick in {**CHARACTERS, **MORE_CHARACTERS, **ENCODINGS, **NESTED}.items():
        yield f"{name} (disguise)", _disguised(words, trick)


def of_bytes(text: str) -> str:
    """As much of it as is 64 KB."""
    return text.encode("utf-8", "ignore")[:SIZE].decode("utf-8", "ignore")


def _slowest(slow: Sequence[tuple[float, str]]) -> str:
    over = sum(taking > LIMIT for taking, _ in slow)
    named = ", ".join(f"{name} {taking:.0f}" for taking, name in slow[1:6])
    return f"{len(slow)} texts made to take long, {over} of which do: {slow[0][1]}; next {named}"


def _disguised(words: str, trick: Trick) -> str:
    parts: list[str] = []
    left = SIZE
    for start in itertools.count(0, PIECE):
        parts.append(trick(words[start % (len(words) - PIECE) :][:PIECE]))
        left -= len(parts[-1]) + 1
        if left <= 0:
            return "\n".join(parts)[:SIZE]
    return ""


def figures(quick: bool) -> list[Figure]:
    rng = random.Random(3)
    chosen, what = texts(rng, 300 if quick else 3000)
    for text in chosen[: len(chosen) // 3]:
        read(text)
    taken = [spent(text) for text in chosen]
    said = " ".join(rng.choices(WORDS, k=14_000))[:SIZE]
    whole = spent(said)
    hostile_ones = dict(hostile_texts(said))
    times = {name: spent(of_bytes(text)) for name, text in hostile_ones.items()}
    longer = {name: times[name] if text.isascii() else spent(text) for name, text in hostile_ones.items()}
    slow, slow_longer = (
        sorted(((each, name) for name, each in some.items()), reverse=True) for some in (times, longer)
    )
    how = f"all levels, {what}, each the best of three"
    return [
        Figure("p50_ms", round(float(np.quantile(taken, 0.5)), 4), "ms", "< 0.3", how),
        Figure("p99_ms", round(float(np.quantile(taken, 0.99)), 4), "ms", "< 1", how),
        Figure("of_64kb_ms", round(whole, 3), "ms", "< 20", "words that attacks use, too"),
        Figure("worst_64kb_ms", round(slow[0][0], 1), "ms", "< 20", f"of {_slowest(slow)}"),
        Figure("median_64kb_ms", round(slow[len(slow) // 2][0], 1), "ms", "", "of the same"),
        Figure("worst_64k_characters_ms", round(slow_longer[0][0], 1), "ms", "",
               f"the same with 65,536 characters, which may be four times as many bytes: of {_slowest(slow_longer)}"),
    ]  # fmt: skip
