"""Bodies of requests, bounded one by one and all together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from circuit_script.gateway.webhooks import Receive, Scope

DRAINED = 1024 * 1024  # bytes of a refused body that are read, so that its sender gets to read the answer


class Gone(Exception):
    """The caller left."""


class BodyRefused(Exception):
    """The body is not accepted."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class Bodies:
    """Reads bodies of at most ``most`` bytes, and ``max_held`` of all that are here and not yet answered."""

    def __init__(self, most: int, max_held: int) -> None:
        self._most = most
        self._max_held = max(max_held, most)
        self._held = 0

    @asynccontextmanager
    async def of(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The whole body, counted as held until the block ends. Raises BodyRefused, or Gone."""
        length, waits = _claims(scope)
        if length > self._most:
            # Who waits for "100 Continue" has sent nothing yet that would have to be read first.
            await self._too_large(receive, 0 if waits else DRAINED)
        held = 0
        try:
            body = bytearray()
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
                piece = message.get("body", b"")
                more = message.get("more_body", False)
                held += len(piece)
                self._held += len(piece)
                if held > self._most:
                    body.clear()
                    await self._too_large(receive, DRAINED if more else 0)
                if self._held > self._max_held:
                    body.clear()
                    await _drain(receive, DRAINED if more else 0)
                    raise BodyRefused(503, "overloaded", "Too much is waiting; send again.")
                if not more:
                    yield bytes(body + piece) if body else piece
                    return
                body += piece
        finally:
            self._held -= held

    async def _too_large(self, receive: Receive, unread: int) -> None:
        await _drain(receive, unread)
        raise BodyRefused(413, "too-large", f"A body has at most {self._most} bytes.")


def _claims(scope: Scope) -> tuple[int, bool]:
    """The length that the request claims, and whether it waits to be let in. Raises BodyRefused."""
    length, waits = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value[:20])
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise BodyRefused(501, "unknown-coding", "The only transfer coding known here is chunked.")
        elif name == b"expect":
            waits = True
    return length, waits


async def _drain(receive: Receive, most: int) -> None:
    while most > 0:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        most = most - len(message.get("body", b"")) if message.get("more_body") else 0
