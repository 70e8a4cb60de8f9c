"""HTTP/1.1 for the dashboard, with what uvicorn leaves open: heads without end, connections that ask nothing."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

PATIENCE = 30.0  # seconds for the head of a request
LONGEST_HEAD = 64 * 1024  # bytes


class PatientProtocol(H11Protocol):
    """One connection; it ends when no request has begun on it between two looks."""

    _looks: asyncio.TimerHandle | None = None
    _seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._looks = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looks is not None:
            self._looks.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.transport.get_protocol() is not self:  # it became a socket
            return
        cycle = cast(RequestResponseCycle | None, self.cycle)
        if cycle is self._seen and (cycle is None or cycle.response_complete):
            self.transport.abort()  # between two requests it had ended by itself, sooner
            return
        self._seen = cycle
        self._looks = self.loop.call_later(PATIENCE, self._look)
