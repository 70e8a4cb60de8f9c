"""The gateway's end of the worker's socket: what the worker offers, and calls."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import structlog

from circuit_script.endpoints.peer import peer_of
from circuit_script.endpoints.protocol import (
    LENGTH,
    Answer,
    Call,
    Chunk,
    End,
    Head,
    Hello,
    News,
    ProtocolError,
    ToClient,
    Watch,
    length_of,
    pack,
    read_answer,
)

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts to reach the worker
CONNECT = 2.0
MAX_IDLE = 32  # connections that are kept for the next call
IDLE = 30.0  # seconds for which they are
_BUFFER = 256 * 1024  # bytes that are read ahead of a slow caller
_chance = random.Random()


class WorkerGone(Exception):
    """The worker does not answer, or stopped in the middle. ``asked``: it may have executed the call."""

    def __init__(self, why: str, *, asked: bool = False) -> None:
        self.asked = asked
        super().__init__(why)


class Link:
    """Knows what the worker offers, and finds it again when it comes back. Use as ``async with``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[_Wire] = deque()  # the longest unused first
        self._sweep: asyncio.TimerHandle | None = None
        self._told = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.news: News | None = None  # the latest, also while the worker is away
        self.connected = False

    async def __aenter__(self) -> Link:
        self._watching = asyncio.create_task(self._watch(), name="worker link")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        self._drop_idle()

    async def wait(self, seconds: float) -> bool:
        """Whether the worker has said what it offers, or does within this time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), seconds)
        return self.news is not None

    async def call(self, call: Call) -> Answer | Stream:
        """Make a call. Raises WorkerGone; the caller bounds the time. A cancelled call has hung up."""
        wire = self._kept() or await self._open()
        try:
            await wire.send(call)
            first = await wire.receive()
        except WorkerGone as gone:
            wire.close()
            raise WorkerGone(str(gone), asked=True) from None
        except BaseException:
            wire.close()
            raise
        match first:
            case Answer():
                self.keep(wire)
                return first
            case Head():
                return Stream(self, wire, first)
            case _:
                wire.close()
                raise WorkerGone(f"an answer cannot begin with {type(first).__name__}")

    def keep(self, wire: _Wire) -> None:
        """A connection whose answer was read to its end may serve the next call."""
        if self.connected and len(self._idle) < MAX_IDLE:
            loop = asyncio.get_running_loop()
            wire.idle_since = loop.time()
            self._idle.append(wire)
            self._sweep = self._sweep or loop.call_later(IDLE, self._close_unused)
        else:
            wire.close()

    def _kept(self) -> _Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if not wire.ended:
                return wire
            wire.close()
        return None

    def _close_unused(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0].idle_since <= loop.time() - IDLE:
            self._idle.popleft().close()
        self._sweep = loop.call_at(self._idle[0].idle_since + IDLE, self._close_unused) if self._idle else None

    async def _open(self) -> _Wire:
        try:
            async with asyncio.timeout(CONNECT):
                wire = await _Wire.to(self._path)
        except OSError as error:  # TimeoutError is one
            raise WorkerGone(str(error)) from None
        if wire.owner not in (0, os.geteuid()):
            wire.close()
            raise WorkerGone("another user listens there")
        wire.write(Hello())
        return wire

    async def _watch(self) -> None:
        pause = FIRST_PAUSE
        while True:
            wire = None
            try:
                wire = await self._open()
                await wire.send(Watch())
                while isinstance(news := await wire.receive(), News):
                    pause = FIRST_PAUSE
                    self.news, self.connected = news, True
                    self._told.set()
                log.warning("worker.link", said=type(news).__name__, cure="Restart gateway and worker.")
            except WorkerGone as gone:
                if self.connected:
                    log.warning("worker.gone", error=str(gone), next="trying again")
            finally:
                self.connected = False
                self._drop_idle()
                if wire is not None:
                    wire.close()
            await asyncio.sleep(pause * _chance.uniform(0.5, 1.0))  # spreads load, guards nothing
            pause = min(LONGEST_PAUSE, pause * 2)

    def _drop_idle(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()


class Stream:
    """A streamed answer. Take piece by piece, then close it; ``complete`` is known at its end."""

    def __init__(self, link: Link, wire: _Wire, head: Head) -> None:
        self.status = head.status
        self.headers = head.headers
        self.complete = False
        self._link = link
        self._wire: _Wire | None = wire

    async def next(self) -> bytes | None:
        """The next piece, None at the end. Raises WorkerGone when the worker stops in the middle."""
        if self._wire is None:
            return None
        match await self._wire.receive():
            case Chunk(body):
                return body
            case End(complete):
                self.complete = complete
                self._link.keep(self._wire)
                self._wire = None
                return None
            case other:
                raise WorkerGone(f"{type(other).__name__} in the middle of an answer", asked=True)

    def close(self) -> None:
        """Hang up, unless it was read to its end."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class _Reader(asyncio.StreamReader):
    """Knows that its end has come also while something is left to read."""

    ended = False

    def feed_eof(self) -> None:
        self.ended = True
        super().feed_eof()


class _Wire:
    """One connection."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0

    @classmethod
    async def to(cls, path: Path) -> _Wire:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        reader = _Reader(limit=_BUFFER, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_unix_connection(lambda: protocol, str(path))
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    @property
    def ended(self) -> bool:
        """Whether the worker has closed its end."""
        return self._reader.ended or self._reader.exception() is not None

    @property
    def owner(self) -> int:
        return peer_of(self._writer.get_extra_info("socket")).user

    def write(self, message: Hello | Watch | Call) -> None:
        self._writer.write(pack(message))

    async def send(self, message: Watch | Call) -> None:
        try:
            self.write(message)
            await self._writer.drain()
        except OSError as error:
            raise WorkerGone(str(error)) from None

    async def receive(self) -> ToClient:
        try:
            length = length_of(await self._reader.readexactly(LENGTH.size))
            return read_answer(await self._reader.readexactly(length))
        except (OSError, EOFError, ProtocolError) as error:
            raise WorkerGone(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        self._writer.transport.abort()
