"""The line in front of the places for endpoints: bounded, and fair between tenants."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

MOST_WAITING = 200
LATELY = 600.0  # seconds for which a tenant that called keeps the others from the last place


@dataclass(frozen=True, slots=True)
class Shared:
    """Up to ``size`` calls of ``endpoint`` and one tenant share a child: they take one place together."""

    endpoint: str
    size: int


class LineFull(Exception):
    """Too many wait already."""


class Turn(asyncio.Future[bool]):
    """One call in the line; whether it is let in."""

    def __init__(self, shared: Shared | None) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.shared = shared


class Line:
    """Hands out ``places``. Tenants take turns; one holds at most all places but one, unless it is alone: no other
    has called lately. While another is next to get a place, nobody gets a further seat in one that is taken: it would
    never be given back.

    When ``most`` wait, whoever comes is refused, unless another tenant has more of them waiting: then its last one is.
    """

    def __init__(self, places: int, most: int = MOST_WAITING, clock: Callable[[], float] = time.monotonic) -> None:
        self._free = self._places = places
        self._most = most
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._seated: Counter[tuple[str, Shared]] = Counter()
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()  # whose turn is next stands first
        self._seen: OrderedDict[str, float] = OrderedDict()  # when the last two tenants called

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def enter(self, tenant: str, seconds: float, shared: Shared | None = None) -> None:
        """Return with a place, or a seat in one, to be given back by `leave`. Raises LineFull, or TimeoutError after
        ``seconds``."""
        self._see(tenant)
        at_once = self._has_seat(tenant, shared) and not self._is_after_another(tenant)
        if at_once or (self._free and not self._waiting and self._may_have_more(tenant)):
            self._take(tenant, shared)
            return
        if self.waiting >= self._most:
            self._make_room(tenant)
        turn = Turn(shared)
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                admitted = await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave(tenant, shared)
            else:
                self._forget(tenant, turn)
                self._serve()
            raise
        if not admitted:
            raise LineFull

    def leave(self, tenant: str, shared: Shared | None = None) -> None:
        """Give a place back, or a seat in one."""
        if shared is not None:
            self._seated[tenant, shared] -= 1
        if shared is None or self._seated[tenant, shared] % shared.size == 0:
            self._free += 1
            self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        if shared is not None and not self._seated[tenant, shared]:
            del self._seated[tenant, shared]
        self._serve()

    def _see(self, tenant: str) -> None:
        self._seen[tenant] = self._clock()
        self._seen.move_to_end(tenant)
        if len(self._seen) > 2:
            self._seen.popitem(last=False)

    def _may_have_more(self, tenant: str) -> bool:
        since = self._clock() - LATELY
        alone = all(other == tenant or at < since for other, at in self._seen.items())
        return self._held[tenant] < (self._places if alone else max(1, self._places - 1))

    def _has_seat(self, tenant: str, shared: Shared | None) -> bool:
        return shared is not None and self._seated[tenant, shared] % shared.size > 0

    def _is_after_another(self, tenant: str) -> bool:
        """Whether another tenant is next to get a place."""
        return next(filter(self._may_have_more, self._waiting), tenant) != tenant

    def _take(self, tenant: str, shared: Shared | None) -> None:
        if not self._has_seat(tenant, shared):
            self._free -= 1
            self._held[tenant] += 1
        if shared is not None:
            self._seated[tenant, shared] += 1

    def _serve(self) -> None:
        while self._free and (tenant := next(filter(self._may_have_more, self._waiting), None)) is not None:
            turn = self._waiting[tenant].popleft()
            self._waiting.move_to_end(tenant)
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            if not turn.done():
                self._take(tenant, turn.shared)
                turn.set_result(True)
                self._serve_seats(tenant, turn.shared)
        for tenant in list(self._waiting):
            if not self._is_after_another(tenant):
                for shared in {turn.shared for turn in self._waiting[tenant]}:
                    self._serve_seats(tenant, shared)

    def _serve_seats(self, tenant: str, shared: Shared | None) -> None:
        """Let those in who share a place that is taken already."""
        for turn in [turn for turn in self._waiting.get(tenant, ()) if turn.shared == shared and not turn.done()]:
            if not self._has_seat(tenant, shared):
                return
            self._forget(tenant, turn)
            self._take(tenant, shared)
            turn.set_result(True)

    def _make_room(self, tenant: str) -> None:
        """Refuse the newest of the tenant with most in the line, or this one."""
        largest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        if len(self._waiting[largest]) <= len(self._waiting.get(tenant, ())) + 1:
            raise LineFull
        turn = self._waiting[largest].pop()
        if not turn.done():
            turn.set_result(False)

    def _forget(self, tenant: str, turn: Turn) -> None:
        waiting = self._waiting.get(tenant)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[tenant]
