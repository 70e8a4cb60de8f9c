"""When what waits is written: soon after the first of it has come, so that what comes together leaves together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized

FLUSH = 0.2  # seconds


class Flushing:
    """Calls ``flush`` while something is ``waiting``; each call takes some of it."""

    def __init__(self, waiting: Sized, flush: Callable[[], Awaitable[None]]) -> None:
        self._waiting = waiting
        self._flush = flush
        self._some = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Something has come."""
        self._some.set()

    def stop(self) -> None:
        self._stopping = True
        self._some.set()

    async def run(self) -> None:
        """Until stopped, and then until nothing is left."""
        while not self._stopping or self._waiting:
            await self._some.wait()
            self._some.clear()
            if not self._stopping:
                await asyncio.sleep(FLUSH)
            while self._waiting:
                await self._flush()
