"""HTTP/1.1 as uvicorn speaks it, with what it leaves open: slow or endless requests, the form of a 400, and
head and body of an answer in one write (two cost 20 % of a delivery: measured, each wakes the other side).
"""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from circuit_script import problems

MAX_HEAD = 64 * 1024  # bytes of request line, headers and trailers
MAX_HEADERS = 200  # each costs many times its bytes
MAX_SECONDS = 30.0  # from the first byte of a request to its last
READ_SECONDS = 60.0  # in which its sender must have read what waits to be written, but for a little
ABORT = "circuit.abort"  # in a request's scope: ends its connection at once
SURPLUS_SECONDS = 1.0  # in which a connection too many may ask, to be told to come later
MAX_SURPLUS = 200  # connections too many at once; then the one of them that has been silent for longest goes


class _OneWrite:
    """A transport that writes once per turn of the loop what was written to it in that turn."""

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # who never reads it must not keep the connection
            self._loop.call_later(READ_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            if not self._transport.is_closing():
                self._transport.write(data)


class _Dropped(list[tuple[bytes, bytes]]):
    """Where trailers go: nothing here wants them, and after the head no header may change."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        pass


class Protocol(HttpToolsProtocol):
    """One connection. Costs nothing for a request that arrives in one piece."""

    most: int  # connections of its gateway
    too_many: dict[Protocol, None]  # in the order in which they came
    _surplus = False
    _incomplete = True
    _in_head = True
    _in_trailers = False
    _head = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]  # stands for one
        self.headers = []
        self._surplus = len(self.connections) - len(self.too_many) > self.most
        if self._surplus:
            self.too_many[self] = None
            if len(self.too_many) > MAX_SURPLUS:
                silent = next(iter(self.too_many))
                del self.too_many[silent]
                silent.transport.abort()
        self._deadline = self.loop.call_later(SURPLUS_SECONDS if self._surplus else MAX_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        if self._surplus:
            self.too_many.pop(self, None)
        super().connection_lost(exc)  # which resumes writing

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._incomplete:  # empty lines between two requests are no reason to wait for longer
            self._unset_keepalive_if_required()
        if self._surplus:
            # Not 503, by which one vendor drops its event; not before it asks, or it may never read the answer.
            self._refuse(429, "Too many connections are open; send again.")
            return
        in_trailers = self._in_trailers
        try:
            self._parse(data)
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if not self._incomplete or self.transport.is_closing():
            return
        if self._in_head or (in_trailers and self._in_trailers):
            self._head += len(data)
        if self._head > MAX_HEAD or len(self.headers) > MAX_HEADERS:
            self._refuse(431, "The request's headers are too large.")
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(MAX_SECONDS, self._too_slow)

    def _parse(self, data: bytes | memoryview) -> None:
        """Ignore upgrades: the parser ends a request at the wish for one, so it reads it again without."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
                self.parser.feed_data(self._head_without_upgrade())

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise HttpParserError("CONNECT asks for a tunnel, not for a resource")
        headers = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(headers))

    def _should_upgrade(self) -> bool:
        return True  # uvicorn leaves the request alone then, until it is parsed again

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._incomplete = self._in_head = True
        self._in_trailers = False
        self._head = 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]  # ours alone

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._in_trailers = True  # unless bytes of a body follow
        self.headers = _Dropped()

    def on_body(self, body: bytes) -> None:
        self._in_trailers = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete = False
        if self._deadline is not None:
            self._stop_clock()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._refuse(408, "The request did not arrive in time.")

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, detail: str) -> None:
        """Answer in place of the application, unless it has begun to, and close."""
        self._stop_clock()
        cycle: Any = self.cycle
        # In a request's head the cycle is the one before; in its body it is its own, which has one answer.
        if cycle is None or (cycle.response_complete if self._in_head else not cycle.response_started):
            body = problems.render(status, detail)
            headers = problems.headers_of(status) | {"content-length": str(len(body)), "connection": "close"}
            lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()


def protocol_for(connections: int) -> type[Protocol]:
    """The protocol of one gateway, which has at most so many connections."""

    class Limited(Protocol):
        most = connections
        too_many: dict[Protocol, None] = {}  # noqa: RUF012  # of this gateway's connections, whose class this is

    return Limited
