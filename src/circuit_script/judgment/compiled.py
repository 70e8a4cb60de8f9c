"""The loops over words and characters that are compiled (`loops.pyx`) where the package was built with a compiler.

Where it was not, or from another source than the one beside it, ``LOOPS`` is None, and numpy does the same, to the last
bit, in more time.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


def _loaded(name: str) -> ModuleType | None:
    try:
        loops = import_module(f"circuit_script.judgment.{name}")
    except ImportError:
        return None
    return loops if _is_of_this_source(name, loops) else None


def _is_of_this_source(name: str, loops: ModuleType) -> bool:
    """Whoever moves his checkout on, and builds nothing, has old loops beside new words."""
    try:
        source = Path(__file__).with_name(f"{name}.pyx").read_bytes()
    except OSError:
        return True
    return getattr(loops, "MADE_OF", None) == sha256(source).hexdigest()


LOOPS = _loaded("loops")


class Words(Protocol):
    """Classes of words: `words.classes` and `words.places_of`."""

    def classes(self, plain: str) -> NDArray[np.int16]: ...
    def places(self, plain: str, wanted: Iterable[int]) -> dict[int, tuple[int, int]]: ...


class Sequences(Protocol):
    """Sequences of them: `polyglot.matches`, each as the number of its rule, its first and its last word."""

    def matches(self, codes: NDArray[np.int16], most: int) -> list[tuple[int, int, int]]: ...


class Windows(Protocol):
    """Windows of the model: the highest of a text, as `model.Model.logits` says."""

    def highest(self, plain: str, codes: NDArray[np.int16]) -> float: ...
