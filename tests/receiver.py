"""A real HTTP server on a loopback port, which answers as a test tells it to and remembers what it got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Got:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Got], bytes | None]


@dataclass
class Receiver:
    """``answer`` gives the raw response; None cuts the connection."""

    answer: Answer
    url: str = ""
    got: list[Got] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *rest = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest if each)}
                request = Got(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                self.got.append(request)
                if (raw := self.answer(request)) is None:
                    break
                writer.write(raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open.discard(writer)

    async def close(self) -> None:
        """Let go of whoever keeps a connection."""
        for writer in (left := list(self.open)):
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in left), return_exceptions=True)


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield receiver
        finally:
            await receiver.close()
