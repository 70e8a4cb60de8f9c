"""Ending tasks, for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

ASK_AGAIN = 5.0  # seconds


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
