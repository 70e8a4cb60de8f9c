"""Wakes sleeping dispatchers, from a connection of its own: NOTIFY takes a lock that commits wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from circuit_script.errors import CircuitError

CHANNEL = "circuit_queue"
PAUSE = 0.005  # seconds between two NOTIFYs
_AFTER_FAILURE = 1.0  # dispatchers poll, so a lost ring costs no event

log = logging.getLogger(__name__)


class Bell:
    """Rings after `ring`, at most every 5 ms."""

    def __init__(self, connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]) -> None:
        self._connect = connect
        self._wanted = asyncio.Event()
        self._connection: psycopg.AsyncConnection[Any] | None = None

    def ring(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await asyncio.sleep(PAUSE if await self._notify() else _AFTER_FAILURE)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _notify(self) -> bool:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect()
            await self._connection.execute(f"NOTIFY {CHANNEL}")
        except (psycopg.Error, CircuitError, OSError) as error:
            log.info("dispatchers were not woken: %s", type(error).__name__)
            self._wanted.set()
            return False
        return True
