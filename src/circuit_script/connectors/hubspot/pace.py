"""Reads at the pace that an account takes: searches some in a second, and what met a short limit once more."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from typing import Any

import httpx

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import SlowDown

LONGEST_WAIT = 11.0  # seconds that a read waits for a limit
TRIES = 3
MOST = 10_000  # tenants


class Paced:
    """Sends reads. ``searches`` of a tenant leave in a second."""

    def __init__(self, api: Api, searches: int) -> None:
        self._api = api
        self._searches = searches
        self._left: OrderedDict[str, deque[float]] = OrderedDict()

    async def search(self, tenant: str, path: str, body: Any) -> httpx.Response:
        """Raises Failed."""
        await self._turn(tenant)
        return await self.send(tenant, "POST", path, json=body)

    async def send(self, tenant: str, method: str, path: str, **more: Any) -> httpx.Response:
        """Raises Failed."""
        tries = 0
        while True:
            tries += 1
            try:
                return await self._api.send(tenant, method, path, **more)
            except Failed as failed:
                wait = failed.delivery.after if isinstance(failed.delivery, SlowDown) else None
                if wait is None or wait > LONGEST_WAIT or tries >= TRIES:
                    raise
                await asyncio.sleep(wait)

    async def _turn(self, tenant: str) -> None:
        left = self._left.get(tenant)
        if left is None:
            left = self._left[tenant] = deque(maxlen=self._searches)
            if len(self._left) > MOST:
                self._left.popitem(last=False)
        now = time.monotonic()
        at = now if len(left) < self._searches else max(now, left[0] + 1.0)
        left.append(at)
        if at > now:
            await asyncio.sleep(at - now)
