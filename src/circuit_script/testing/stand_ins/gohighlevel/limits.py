"""The vendor's limits: so many requests in a window and a day, for each location, with its own headers.

The window slides: of any stretch of its length no more than so many requests are taken. That is the hardest way to
read "100 requests in 10 seconds"; who keeps to it keeps to every other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Limits:
    """``window`` in seconds; tests make it short. ``refused`` counts the answers 429."""

    clock: Callable[[], float]
    calls: int = 100
    window: float = 10.0
    daily: int = 200_000
    refused: int = 0
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _today: dict[str, int] = field(default_factory=dict)

    def take(self, account: str) -> bool:
        """Count one request; False when it is one too many."""
        recent, now = self._recent.setdefault(account, deque()), self.clock()
        while recent and recent[0] <= now - self.window:
            recent.popleft()
        used = self._today.get(account, 0)
        if len(recent) >= self.calls or used >= self.daily:
            self.refused += 1
            return False
        recent.append(now)
        self._today[account] = used + 1
        return True

    def headers(self, account: str) -> dict[str, str]:
        left = max(0, self.calls - len(self._recent.get(account, ())))
        left_today = max(0, self.daily - self._today.get(account, 0))
        return {
            "x-ratelimit-max": str(self.calls),
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-interval-milliseconds": str(round(self.window * 1000)),
            "x-ratelimit-limit-daily": str(self.daily),
            "x-ratelimit-daily-remaining": str(left_today),
        }
