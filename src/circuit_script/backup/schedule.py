"""Copies by plan: each worker looks whether one is due, and one of them makes it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

import msgspec
import psycopg
import structlog

from circuit_script.backup.planned import NOT_NOW, Plan
from circuit_script.db.pool import Pool
from circuit_script.errors import CircuitError
from circuit_script.events.chores import BACKUP, due_in

log = structlog.get_logger()

LOOK = 300.0  # seconds between two looks at most: another worker may have made it, or failed
PATIENCE = 5.0  # seconds that a copy gets to remove what is half made
FIRST = 20.0  # seconds that a start gets before the first look


async def keep_copies(pool: Pool, plan: Plan) -> None:
    """For as long as the worker runs. What goes wrong is logged, shown by `status`, and tried again."""
    await asyncio.sleep(FIRST * random.uniform(0.5, 1))
    while True:
        wait = LOOK
        try:
            async with pool.connection() as connection:
                wait = await due_in(connection, BACKUP, every=plan.every, again=plan.again)
            if wait <= 0:
                await _run(plan)
                wait = LOOK
        except (psycopg.Error, OSError, CircuitError) as error:
            log.warning("backup", error=str(error), next="trying again in a few minutes")
        await asyncio.sleep(max(1.0, min(wait, LOOK)) * random.uniform(1.0, 1.1))


async def _run(plan: Plan) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "circuit_script.backup.planned"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, wrong = await process.communicate(msgspec.json.encode(plan))
    finally:
        if process.returncode is None:  # the worker stops
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), PATIENCE)
                process.kill()
            await process.wait()
    where = said.decode(errors="replace").strip()
    if process.returncode:
        log.error("backup", error=wrong.decode(errors="replace").strip()[-2000:], to=plan.to, next="trying again")
    elif where != NOT_NOW:
        log.info("backup", where=where)
