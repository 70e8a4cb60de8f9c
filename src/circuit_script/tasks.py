"""Tasks that end for sure, and tasks that go on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

ASK_AGAIN = 5.0  # seconds
FIRST_REST, LONGEST_REST = 1.0, 60.0  # seconds before what failed begins again

log = structlog.get_logger()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them, and return when each has ended; how it did is not looked at.

    They are asked again and again: before Python 3.12 a task loses its cancellation when it stands in a ``wait_for``
    whose result comes in the same moment (python/cpython#86296), as who waits for a connection of the pool does.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=ASK_AGAIN)


async def keep(name: str, part: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run ``part`` until it returns or this is cancelled. When it fails it begins again, later each time; once
    ``stopping`` is set it does so no more."""
    rest = FIRST_REST
    while True:
        began = time.monotonic()
        try:
            return await part()
        except Exception as error:  # whatever it is: what goes on beside it does not end for it
            if stopping.is_set():
                log.error("worker.part_failed", part=name, exc_info=error, next="the worker stops anyway")
                return
            if time.monotonic() - began > LONGEST_REST:
                rest = FIRST_REST
            log.error("worker.part_failed", part=name, exc_info=error, next=f"it begins again in {rest:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await stopping.wait()
        rest = min(2 * rest, LONGEST_REST)
