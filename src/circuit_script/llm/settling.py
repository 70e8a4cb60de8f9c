"""Settles calls, whatever becomes of who made them: an execution that is killed, a database that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg
import structlog

from circuit_script.governor.budget import Full, Money, Reservation, Settled
from circuit_script.tasks import end

log = structlog.get_logger()

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
NEVER_MADE = "the call was never made"


class Settling:
    """What is still to be settled. Until then it counts at its worst case."""

    def __init__(self, money: Money) -> None:
        self._money = money
        self._tasks: set[asyncio.Task[None]] = set()

    async def settle(self, call: UUID, how: Settled) -> None:
        """Settle, and go on doing so in the background when that is not possible now, or who waits is cancelled."""
        tried = asyncio.get_running_loop().create_future()
        self._spawn(self._until_done(lambda: self._settle(call, how), call, tried))
        await tried

    def settle_later(self, call: UUID, how: Settled) -> None:
        """Settle in the background."""
        self._spawn(self._until_done(lambda: self._settle(call, how), call, None))

    def void_later(self, asked: Reservation, reserving: asyncio.Task[list[Full]] | None = None) -> None:
        """Give back in the background what may have been reserved for a call that is never made, once ``reserving``
        has ended."""

        async def void() -> None:
            if reserving is not None and not reserving.done():
                await asyncio.wait({reserving})
            await self._until_done(lambda: self._money.void(asked, NEVER_MADE), asked.id, None)

        self._spawn(void())

    async def close(self, patience: float) -> None:
        """Wait for what is on its way, so many seconds. What then is not settled counts at its worst case."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=patience)
        await end(late)
        if late:
            log.error("llm.unsettled", calls=len(late), cure="They count at their worst case: circuit-script spend")

    async def _settle(self, call: UUID, how: Settled) -> None:
        if await self._money.settle(call, how) == "missing":
            log.error("llm.unknown_call", call=str(call), next="its reservation is gone, so nothing was settled")

    async def _until_done(
        self, act: Callable[[], Awaitable[None]], call: UUID, tried: asyncio.Future[None] | None
    ) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                await act()
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.OperationalError):
                    log.exception("llm.unsettled", call=str(call), cure="circuit-script spend settle")
                    return
                log.warning("llm.settle", call=str(call), error=str(error), next=f"again in {delay:g} s")
            else:
                return
            finally:
                if tried is not None and not tried.done():
                    tried.set_result(None)
            await asyncio.sleep(delay)
            delay = min(LONGEST_DELAY, delay * 2)

    def _spawn(self, act: Awaitable[None]) -> None:
        task = asyncio.ensure_future(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
