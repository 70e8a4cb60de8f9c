"""The ticker of a worker: sleeps until the next firing, then takes in what is due. Any number of them may tick."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import psycopg
import structlog

from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import CircuitError
from circuit_script.execution.timing import HORIZON
from circuit_script.jobs.schedules import fire, first_of
from circuit_script.jobs.store import free_keys, take_in_delayed

LONGEST_SLEEP = HORIZON.total_seconds() / 2  # what is delayed must be found in time, and what others have changed
TAKEN = 1.0  # seconds before it looks again at what another ticker is about to take in
SHORTEST_SLEEP = 0.01  # seconds: a clock that reads a moment too early does not make it spin
PAUSE = 2.0  # seconds before it looks again at a database that is away
BULK = 50
TIDY = 3600.0  # seconds between two times that keys of jobs that have ended are forgotten

log = structlog.get_logger()


async def _of_database(_connection: Connection, read: datetime) -> datetime:
    return read


class Ticker:
    """``clock`` tells the moment, given the database's: tests set another."""

    def __init__(
        self,
        database: Pool,
        wake: Callable[[], None] = lambda: None,
        clock: Callable[[Connection, datetime], Awaitable[datetime]] = _of_database,
    ) -> None:
        self._database = database
        self._wake_dispatcher = wake
        self._clock = clock
        self._woken = asyncio.Event()
        self._stopping = False
        self._tidied = -TIDY  # on the monotonic clock

    def wake(self) -> None:
        """Look again now: there may be other schedules."""
        self._woken.set()

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Until it is stopped."""
        while not self._stopping:
            self._woken.clear()
            try:
                seconds = await self.tick()
            except (psycopg.Error, CircuitError, OSError) as error:
                log.warning("ticker", error=str(error), next="trying again")
                seconds = PAUSE
            except Exception as error:  # one schedule that cannot be read must not end the worker
                log.exception("ticker", error=repr(error), next="trying again")
                seconds = LONGEST_SLEEP
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)

    async def tick(self) -> float:
        """Take in what is due; the seconds until there may be more. Raises psycopg.Error."""
        async with self._database.connection() as connection:
            first, read = await first_of(connection)
            moment = await self._clock(connection, read)
            fired = await fire(connection, moment) if first is not None and first <= moment else []
            delayed = await take_in_delayed(connection, BULK)
            if time.monotonic() - self._tidied > TIDY:
                self._tidied = time.monotonic()
                await free_keys(connection)
            if fired:
                first, _ = await first_of(connection)
        if fired or delayed:
            self._wake_dispatcher()
        if delayed == BULK:
            return 0.0
        if first is not None and first <= moment and not fired:
            return TAKEN
        left = LONGEST_SLEEP if first is None else (first - moment).total_seconds()
        return min(LONGEST_SLEEP, max(SHORTEST_SLEEP, left))
