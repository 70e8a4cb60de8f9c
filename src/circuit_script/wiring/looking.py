"""What each worker looks at again and again, of all of them one at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.errors import CircuitError

log = structlog.get_logger()

LONGEST = 20.0  # seconds that one look may take


async def keep_looking(name: str, look: Callable[[], Awaitable[None]], every: float) -> None:
    """Look about every so many seconds, until cancelled. A look that fails is logged by ``name`` and tried again."""
    while True:
        await asyncio.sleep(random.uniform(0.9, 1.1) * every)
        try:
            async with asyncio.timeout(LONGEST):
                await look()
        except (psycopg.Error, PoolTimeout, OSError, TimeoutError, CircuitError) as error:
            log.warning(name, error=" ".join(str(error).split()) or "no answer", next="looking again")
