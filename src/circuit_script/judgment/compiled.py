"""The loops over words and characters that are compiled (the ``.pyx`` files of this folder) where the package was built
with a compiler.

Where it was not, or from another source than the one beside it, ``LOOPS`` and the like are None, and Python and numpy
do the same, to the last bit, in more time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


LOOPS = _loaded("loops")  # classes of words, sequences of them, the model's windows, labels
FOLDS = _loaded("folds")  # canonical form
TOKENS = _loaded("tokens")  # words that are put right
CODES = _loaded("codes")  # what stands for other characters
HIDDEN = _loaded("hidden")  # what people do not see in a text
COMPLETE = None not in (LOOPS, FOLDS, TOKENS, CODES, HIDDEN)
Hidden = tuple[str, int, int, str]
"""A hidden text, from and to where it stands, and the rule that found it."""


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


class Splitter(Protocol):
    """Letters without spaces: `english.words_in` and `english.bare`."""

    def words_in(self, letters: str) -> str: ...
    def bare(self, letters: str) -> str: ...


class Speller(Protocol):
    """Tokens that are put right: the functions of `spelling` that are called so."""

    def usual(self, tokens: list[str], known: dict[str, str | None]) -> list[str | None]: ...
    def righted(self, token: str) -> tuple[str, bool]: ...
    def dense(self, text: str) -> str: ...
    def look(
        self, tokens: list[str], said: list[str | None], put: dict[int, int], spell: Callable[[int, int], str]
    ) -> int: ...
    def spelled(
        self, letters: str, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[list[str], list[int], list[int]]: ...
    def token_places(self, text: str, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def word_ends(self, words: list[str]) -> NDArray[np.int64]: ...
    def placed(
        self, words: NDArray[np.int64], tokens: NDArray[np.int64], nth: int
    ) -> tuple[int, int, int, int, int, int]: ...
    def said_of(self, rows: list[str]) -> list[str]: ...
    def shared(
        self, rows: list[str], said: list[str], starts: list[int], ends: list[int]
    ) -> tuple[list[int], list[int]]: ...


class Shares(Protocol):
    """Words that were put right: `disguise.put_right`."""

    def put_right(self, said: str, plain: str) -> tuple[int, int]: ...


class Folded(Protocol):
    """A text in canonical form: `folding.Folding`."""

    @property
    def plain(self) -> str: ...
    @property
    def wide(self) -> str: ...
    @property
    def needs(self) -> int: ...
    @property
    def hidden(self) -> dict[str, int]: ...
    @property
    def hidden_span(self) -> tuple[int, int]: ...
    def plain_places(self) -> NDArray[np.int64]: ...
    def wide_places(self) -> NDArray[np.int64]: ...


class Folds(Protocol):
    """The steps to it."""

    def fold(self, text: str) -> Folded: ...
    def unaccented(self, plain: str) -> tuple[str, int, int]: ...
    def words_beyond(self, plain: str) -> list[str]: ...
    def composition(self, text: str) -> str: ...


class Images(Protocol):
    """Words as other alphabets write them: `wholes.Hits`, each as its number, and from where to where it stands."""

    def hits(self, text: str) -> NDArray[np.int32]: ...


class Finder(Protocol):
    """Texts that people do not see: `markup.Plain`."""

    def kept(self, found: list[Hidden]) -> tuple[Hidden, ...]: ...
    def piece(self, text: str, start: int, end: int, rule: str) -> Hidden: ...
    def decoded(self, said: str) -> str: ...
    def comments(self, text: str) -> list[Hidden]: ...
    def given(self, text: str, small: str, first: int, last: int) -> list[Hidden]: ...
    def styled(
        self, text: str, small: str, low: str, spans: list[tuple[int, int]], grounds: bool
    ) -> tuple[list[Hidden], list[int]]: ...
    def of_classes(self, text: str, small: str, low: str, names: list[str], most: int) -> list[Hidden]: ...
    def markdown(self, text: str) -> list[Hidden]: ...
    def definitions(self, text: str) -> list[Hidden]: ...
    def keys(self, text: str, small: str) -> list[Hidden]: ...
