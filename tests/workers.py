"""A worker in the test's own process: all of it, with a zygote and children of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from circuit_script.config import Settings
from circuit_script.wiring import Worker, run_worker
from tests.road import PATIENCE


@asynccontextmanager
async def working(settings: Settings, database: str) -> AsyncIterator[Worker]:
    """The worker, once it is ready; it is stopped at the end."""
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_worker(settings, database, ready.set_result))
    try:
        await asyncio.wait({ready, running}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        yield ready.result()
    finally:
        if ready.done():
            ready.result().stop()
        await asyncio.wait_for(running, PATIENCE)
