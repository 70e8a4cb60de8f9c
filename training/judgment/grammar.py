"""Sentences made of parts: attacks, and harmless ones of the same words, so that a single word decides nothing."""

from __future__ import annotations

import random
import tomllib
from functools import cache
from pathlib import Path

PARTS = Path(__file__).parent / "sentences" / "parts.toml"


@cache
def parts() -> dict[str, list[str]]:
    return tomllib.loads(PARTS.read_text("utf-8"))


def sentence(rng: random.Random, templates: list[str]) -> str:
    """One sentence, with or without a capital letter."""
    made = rng.choice(templates)
    while "{" in made:
        before, _, rest = made.partition("{")
        name, _, after = rest.partition("}")
        made = before + rng.choice(parts()[name]) + after
    made = " ".join(made.replace(" .", ".").replace("..", ".").split())
    return made[:1].upper() + made[1:] if rng.random() < 0.7 else made.upper() if rng.random() < 0.1 else made


def sentences(attack: bool, number: int, seed: int) -> list[str]:
    """Different ones, always the same for a seed."""
    rng = random.Random(seed)
    templates = parts()["attacks" if attack else "harmless"]
    made = dict.fromkeys(sentence(rng, templates) for _ in range(3 * number))
    return list(made)[:number]
