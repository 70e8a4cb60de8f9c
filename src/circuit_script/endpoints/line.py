"""The line in front of the places for endpoints: bounded, and fair between tenants."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque

MOST_WAITING = 200


class LineFull(Exception):
    """Too many wait already."""


class Line:
    """Hands out ``places``. Tenants take turns; one holds at most all places but one while another waits.

    When ``most`` wait, whoever comes is refused, unless another tenant has more of them waiting: then its last one is.
    """

    def __init__(self, places: int, most: int = MOST_WAITING) -> None:
        self._free = self._places = places
        self._most = most
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # whose turn is next stands first

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def enter(self, tenant: str, seconds: float) -> None:
        """Return with a place, to be given back by `leave`. Raises LineFull, or TimeoutError after ``seconds``."""
        if self._free and not self._waiting:
            self._take(tenant)
            return
        if self.waiting >= self._most:
            self._make_room(tenant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(tenant)
            else:
                self._forget(tenant, turn)
            raise

    def leave(self, tenant: str) -> None:
        """Give a place back."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._serve()

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _serve(self) -> None:
        while self._free and (tenant := self._next()) is not None:
            turn = self._waiting[tenant].popleft()
            self._waiting.move_to_end(tenant)
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            if not turn.done():
                self._take(tenant)
                turn.set_result(None)

    def _next(self) -> str | None:
        most = max(1, self._places - 1) if len(self._waiting) > 1 else self._places
        return next((tenant for tenant in self._waiting if self._held[tenant] < most), None)

    def _make_room(self, tenant: str) -> None:
        """Refuse the newest of the tenant with most in the line, or this one."""
        largest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        if len(self._waiting[largest]) <= len(self._waiting.get(tenant, ())) + 1:
            raise LineFull
        turn = self._waiting[largest].pop()
        if not turn.done():
            turn.set_exception(LineFull())

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(tenant)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[tenant]
        self._serve()  # who is alone now may have the last place
