"""The loops over words and characters that are compiled (`loops.pyx`) where the package was built with a compiler.

Where it was not, ``LOOPS`` is None, and numpy does the same, to the last bit, in more time.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


def _loaded() -> ModuleType | None:
    try:
        return import_module("circuit_script.judgment.loops")
    except ImportError:
        return None


LOOPS = _loaded()


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
