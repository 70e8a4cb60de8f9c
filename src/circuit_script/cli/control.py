"""What `dev` and its worker say to each other: one JSON message a line, over a socket pair that the worker inherits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import msgspec

from circuit_script.errors import AppError, CircuitError
from circuit_script.wiring.live import Live

LONGEST = 1024 * 1024  # bytes of one message


class Reload(msgspec.Struct, frozen=True, tag=True):
    """To the worker: run the app as its files are now."""


class Running(msgspec.Struct, frozen=True, tag=True):
    """From the worker: this release runs. ``endpoints`` are lines like `GET /api/leads/{id}`; ``changed`` is false when
    it is the one that had run before; ``seconds`` is what the change took."""

    release: int
    handlers: int
    endpoints: list[str]
    changed: bool = True
    seconds: float = 0.0


class Wrong(msgspec.Struct, frozen=True, tag=True):
    """From the worker: the app cannot be run as its files are now."""

    detail: str
    cure: str
    page: str

    @classmethod
    def of(cls, error: CircuitError) -> Wrong:
        return cls(error.detail or str(error), error.cure, error.page)

    def as_error(self) -> AppError:
        return AppError(self.detail, cure=self.cure, page=self.page)


Said = Running | Wrong
_said: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)
_asked = msgspec.json.Decoder(Reload)
_encode = msgspec.json.Encoder().encode


def running(live: Live, *, changed: bool = True, seconds: float = 0.0) -> Running:
    """The word for a live release."""
    specs = live.release.handlers.values()
    routes = set(documented(live.manifest.openapi))
    for spec in specs:
        if spec.endpoint is not None and (spec.endpoint.kind == "web" or not live.manifest.openapi):
            routes.update(f"{','.join(way.methods)} {way.shown or way.path}" for way in spec.endpoint.ways)
    return Running(
        release=live.release.id,
        handlers=sum(spec.endpoint is None for spec in specs),
        endpoints=sorted(routes, key=lambda route: route.partition(" ")[2]),
        changed=changed,
        seconds=seconds,
    )


def documented(openapi: bytes) -> list[str]:
    """The routes of an OpenAPI document: `GET /api/leads/{id}`."""
    paths = msgspec.json.decode(openapi).get("paths", {}) if openapi else {}
    return [f"{','.join(sorted(method.upper() for method in methods))} {path}" for path, methods in paths.items()]


class Line:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Line:
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LONGEST))

    async def say(self, message: Reload | Said) -> None:
        """Say it, unless nobody listens any more."""
        with contextlib.suppress(OSError):
            self._writer.write(_encode(message) + b"\n")
            await self._writer.drain()

    async def hear(self) -> Said | None:
        """The worker's next word; None when it has ended."""
        line = await self._next()
        return _said.decode(line) if line else None

    async def obey(self, reload: Callable[[], Awaitable[Said]]) -> None:
        """Answer each order with what came of it, until nobody asks any more."""
        while line := await self._next():
            _asked.decode(line)
            await self.say(await reload())

    async def _next(self) -> bytes:
        try:
            line = await self._reader.readline()
        except OSError:
            return b""
        return line if line.endswith(b"\n") else b""

    def close(self) -> None:
        self._writer.close()
