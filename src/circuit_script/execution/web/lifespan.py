"""Startup and shutdown of an ASGI app, around each of its requests: a child keeps nothing running between two calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from circuit_script.execution.child.answering import ASGIApp, Message, Receive, Send


class WithLifespan:
    """An ASGI app that is started before each request and shut down after it. What its startup puts into
    ``scope["state"]`` is there for the request. One that does not know the lifespan protocol is asked only once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._has_one = True

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if not self._has_one:
            return await self._app(scope, receive, send)
        async with self._lifespan(scope["state"]):
            await self._app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, state: dict[str, Any]) -> AsyncIterator[None]:
        orders: asyncio.Queue[Message] = asyncio.Queue()
        words: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

        async def live() -> None:
            await self._app(scope, orders.get, words.put)

        life = asyncio.create_task(live())
        try:
            self._has_one = await _told(life, orders, words, "startup")
            yield
            if self._has_one:
                await _told(life, orders, words, "shutdown")
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)


async def _told(life: asyncio.Task[None], orders: Any, words: Any, phase: str) -> bool:
    """Whether the app did it; False when it does not know the protocol. Raises RuntimeError when it failed."""
    orders.put_nowait({"type": f"lifespan.{phase}"})
    word = asyncio.ensure_future(words.get())
    await asyncio.wait({life, word}, return_when=asyncio.FIRST_COMPLETED)
    if not word.done():
        word.cancel()
        return False
    said = word.result()
    if said["type"] == f"lifespan.{phase}.failed":
        raise RuntimeError(f"the {phase} of the app failed: {said.get('message', '')[-2000:]}")
    return True
