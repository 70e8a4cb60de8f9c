"""Answers on their way out: at the caller's pace, and bounded all together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from circuit_script.endpoints.protocol import Answer
from circuit_script.gateway.protocol import ABORT
from circuit_script.gateway.webhooks import Scope, Send

log = logging.getLogger(__name__)

PIECE = 256 * 1024  # bytes that are handed to a connection at once
SMALL = 64 * 1024  # bytes of an answer that is not counted: a connection may hold as much in any case


@dataclass(slots=True, eq=False)
class _Held:
    """What its caller has not read. ``size`` counts until the end, for so long it is in memory."""

    size: int
    unread: int
    since: float
    abort: Callable[[], None]


class Answers:
    """Sends answers. Over ``max_held`` bytes of those that are not yet written out, those are cut off whose callers let
    the most wait for the longest."""

    def __init__(self, max_held: int) -> None:
        self._max_held = max_held
        self._size = 0
        self._held: set[_Held] = set()

    async def send(self, scope: Scope, send: Send, answer: Answer) -> None:
        """Send an answer with its true length; none for statuses that have no body."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        body = answer.body
        if answer.status in (204, 304):
            body = b""
        else:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if scope["method"] == "HEAD":
            body = b""
        if len(body) > SMALL:
            await self._piece_by_piece(scope, send, body, last=True)
        else:
            await send({"type": "http.response.body", "body": body})

    def paced(self, scope: Scope, send: Send) -> Send:
        """A ``send`` for streams: large parts count as whole answers do."""

        async def paced(message: MutableMapping[str, Any]) -> None:
            body = message.get("body", b"")
            if len(body) > SMALL:
                await self._piece_by_piece(scope, send, body, last=not message.get("more_body"))
            else:
                await send(message)

        return paced

    async def _piece_by_piece(self, scope: Scope, send: Send, body: bytes, *, last: bool) -> None:
        size = len(body)
        held = _Held(size, size, asyncio.get_running_loop().time(), scope.get(ABORT, nothing))
        self._make_room(held)
        try:
            for start in range(0, size, PIECE):
                await send({"type": "http.response.body", "body": body[start : start + PIECE], "more_body": True})
                await asyncio.sleep(0)  # so that the connection takes it, and says whether it wants more
                held.unread = size - start
                if held not in self._held:
                    return
            if last:
                await send({"type": "http.response.body", "body": b""})  # once the rest is nearly written out
        finally:
            self._let_go(held)

    def _make_room(self, coming: _Held) -> None:
        now = asyncio.get_running_loop().time()
        while self._held and self._size + coming.size > self._max_held:
            worst = max(self._held, key=lambda each: each.unread * (now - each.since))
            log.warning("a reader was cut off: %d bytes unread for %.1f s", worst.unread, now - worst.since)
            self._let_go(worst)
            worst.abort()
        self._held.add(coming)
        self._size += coming.size

    def _let_go(self, held: _Held) -> None:
        if held in self._held:
            self._held.remove(held)
            self._size -= held.size


def nothing() -> None:
    """Another server than ours has no way to end a connection."""
