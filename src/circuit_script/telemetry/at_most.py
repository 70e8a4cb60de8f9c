"""How much is told, where it could be without end."""

from __future__ import annotations

import time
from collections.abc import Callable


class AtMost:
    """At most ``per_second`` on average, and ``at_once`` after a rest; ``clock`` is in seconds and only rises."""

    def __init__(self, per_second: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._left, self._at = float(at_once), clock()

    def may(self) -> bool:
        """Whether one more may be told now; it counts then."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
