"""Answers that one process remembers, each until its time is over; those used longest ago go first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

LONGEST = 86_400.0  # seconds: what a day ago was true is looked up again

Key = TypeVar("Key", bound=Hashable)


class Memory(Generic[Key]):
    """At most ``most`` answers; an answer may be None, which is known, too."""

    __slots__ = ("_clock", "_held", "_most")

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._held: OrderedDict[Key, tuple[float, Any]] = OrderedDict()

    def get(self, key: Key, default: Any = None) -> Any:
        """The answer, or ``default`` when there is none that counts."""
        found = self._held.get(key)
        if found is None:
            return default
        if found[0] <= self._clock():
            del self._held[key]
            return default
        self._held.move_to_end(key)
        return found[1]

    def put(self, key: Key, answer: Any, seconds: float | None) -> None:
        """Remember it for so long; None is as long as there is room."""
        self._held[key] = (self._clock() + min(LONGEST, LONGEST if seconds is None else seconds), answer)
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget it."""
        self._held.pop(key, None)

    def __len__(self) -> int:
        return len(self._held)
