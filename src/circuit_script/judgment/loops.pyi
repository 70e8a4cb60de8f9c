"""What `loops.pyx` has. It is there only where the package was built with a compiler."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from circuit_script.judgment import model, polyglot, words

class Words:
    def __init__(
        self,
        book: words.Lexicon,
        spaced: NDArray[np.uint32],
        blanks: NDArray[np.bool_],
        running: NDArray[np.bool_],
    ) -> None: ...
    def classes(self, plain: str) -> NDArray[np.int16] | None: ...

class Sequences:
    def __init__(self, masks: NDArray[np.uint64], rules: Sequence[polyglot.Sequence]) -> None: ...
    def matches(self, codes: NDArray[np.int16], most: int) -> list[tuple[int, int, int]]: ...

class Windows:
    def __init__(self, model: model.Model, features: ModuleType, stride: int, tokens: int) -> None: ...
    def highest(self, plain: str, codes: NDArray[np.int16]) -> float: ...
