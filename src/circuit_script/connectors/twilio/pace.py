"""A sender's pace, in segments; and replies that go round in circles.

The courier counts messages, one of which is at least a segment. What a longer one takes beyond that is waited for here.
Both are kept by each worker for itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

ROUNDS = 30  # messages from one number to another within SPAN: Twilio takes more for a loop, and so do we
SPAN = 30.0
MOST = 10_000

Sender = tuple[str, str]  # tenant, sender


class Segments:
    """One segment in so many ``seconds`` for each sender."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: OrderedDict[Sender, float] = OrderedDict()

    def wait(self, sender: Sender) -> float:
        """Seconds until this sender has sent all segments of what it has sent; 0 is now."""
        return max(0.0, self._until.get(sender, 0.0) - self._clock())

    def took(self, sender: Sender, segments: int) -> None:
        if segments > 1:
            self._until[sender] = self._clock() + (segments - 1) * self._seconds
            self._until.move_to_end(sender)
            if len(self._until) > MOST:
                self._until.popitem(last=False)


class Loops:
    """How often each sender has written to each number lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pairs: OrderedDict[tuple[str, str, str], deque[float]] = OrderedDict()

    def goes_round(self, sender: Sender, to: str) -> bool:
        """Whether one more would be a loop."""
        sent = self._pairs.get((*sender, to))
        return sent is not None and len(sent) == ROUNDS and self._clock() - sent[0] < SPAN

    def took(self, sender: Sender, to: str) -> None:
        sent = self._pairs.setdefault((*sender, to), deque(maxlen=ROUNDS))
        sent.append(self._clock())
        self._pairs.move_to_end((*sender, to))
        if len(self._pairs) > MOST:
            self._pairs.popitem(last=False)
