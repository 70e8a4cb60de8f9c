"""How many children the running batches take: those that share one take it together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any


class Taken:
    """Counts the children of a dispatcher's running batches, in all and by tenant."""

    def __init__(self) -> None:
        self.total = 0
        self._of: Counter[str] = Counter()
        self._sharing: Counter[tuple[str, str]] = Counter()  # batches that share, by tenant and handler

    def of(self, tenant: str) -> int:
        """How many children this tenant has."""
        return self._of[tenant]

    def has_seat(self, tenant: str, handler: str, size: int) -> bool:
        """Whether one of its children has room for one more; up to ``size`` batches share one."""
        return self._sharing[tenant, handler] % size > 0

    def enter(self, tenant: str, handler: str, size: int) -> Callable[[Any], None]:
        """A batch begins. Returns what to call when it has ended."""
        key = (tenant, handler)
        if size == 1 or self._sharing[key] % size == 0:
            self._take(tenant, 1)
        if size > 1:
            self._sharing[key] += 1
        return partial(self._leave, key, size)

    def _leave(self, key: tuple[str, str], size: int, _: Any) -> None:
        if size > 1:
            self._sharing[key] -= 1
        if size == 1 or self._sharing[key] % size == 0:
            self._take(key[0], -1)
        if not self._sharing[key]:
            del self._sharing[key]

    def _take(self, tenant: str, children: int) -> None:
        self.total += children
        self._of[tenant] += children
        if not self._of[tenant]:
            del self._of[tenant]
