"""A wire between two parts that can stall, slow down, break or be gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from tests.loopback import listening

RST = struct.pack("ii", 1, 0)  # linger for no time: closing resets
CHUNK = 64 * 1024


class Proxy:
    """Forwards TCP of a loopback port to ``target``: a Unix socket's path, or a loopback port."""

    def __init__(self, target: str | int) -> None:
        self.port = 0
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._gone = False
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        try:
            async with listening(self._serve) as self.port:
                yield self
        finally:
            self._flows.set()
            self.reset()

    def stall(self) -> None:
        """Nothing passes any more, and nobody is told; what is under way waits."""
        self._flows.clear()

    def reset(self) -> None:
        """Each connection breaks now; what was under way is lost."""
        for writer in list(self._writers):
            found: socket.socket | None = writer.get_extra_info("socket")
            if found is not None and found.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            writer.transport.abort()

    def cut(self) -> None:
        """Each connection breaks now, and new ones do at once."""
        self._gone = True
        self.reset()

    def slow(self, seconds: float) -> None:
        """Each piece is so late."""
        self._delay = seconds

    def heal(self) -> None:
        self._gone, self._delay = False, 0.0
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._gone:
                return
            await self._flows.wait()
            if isinstance(self._target, int):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
            else:
                there, back = await asyncio.open_unix_connection(self._target)
            self._writers.add(back)
            try:
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(CHUNK):
            await self._flows.wait()
            if self._delay:
                await asyncio.sleep(self._delay)
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
