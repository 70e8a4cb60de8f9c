"""Sends strangers' deliveries over real HTTP at a steady rate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx

from circuit_script.cli.demo.traffic import Delivery

PATH = "/webhooks/gohighlevel"
CONNECTIONS = 4
_TRIES = 5


async def send(
    client: httpx.AsyncClient, deliveries: Sequence[Delivery], *, rate: float, on_sent: Callable[[], None]
) -> Counter[int]:
    """Send all in order, ``rate`` per second, several at once. Returns how often each status came back."""
    statuses: Counter[int] = Counter()
    waiting = iter(enumerate(deliveries))
    began = time.monotonic()

    async def connection() -> None:
        for index, delivery in waiting:
            await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
            statuses[await _post(client, delivery)] += 1
            on_sent()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(connection())
    return statuses


async def _post(client: httpx.AsyncClient, delivery: Delivery) -> int:
    """Send again on 429, as vendors do."""
    status = 0
    for attempt in range(_TRIES):
        answer = await client.post(PATH, content=delivery.body, headers=dict(delivery.headers))
        status = answer.status_code
        if status != 429:
            break
        await asyncio.sleep(0.2 * 2**attempt)
    return status
