"""Load with as little CPU as possible: pre-built requests on raw keep-alive connections.

Two shapes. ``closed_loop``: N connections, each sends its next request when the last was answered; latency is
counted from the write. ``open_loop``: a fixed rate whatever the server does; latency is counted from the moment
the request should have left, so that a stalled server cannot hide its queue (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Result:
    """What the load saw: seconds from first byte to last answer, statuses, latencies in ms.

    ``sent_at`` (open loop only): epoch seconds at which each request should have left, by its index.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """The latency in ms that ``share`` (0..1) of the answers did not exceed."""
        return percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """One HTTP/1.1 POST as bytes on the wire."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, on_answer: Callable[[Connection, int], None], on_lost: Callable[[Connection], None]) -> None:
        self.began = 0.0
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: bytes, began: float) -> None:
        self.began = began
        assert self._transport is not None
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0 or len(buffer) < head + 4 + _content_length(buffer[:head]):
            self._buffer = buffer
            return
        self._buffer = b""
        self._on_answer(self, int(buffer[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return int(lowered[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


class _Run:
    """The bookkeeping that both shapes share; ends when every request was answered or a connection broke."""

    def __init__(self, port: int, requests: Sequence[bytes], on_progress: Callable[[int], None] | None) -> None:
        self.port = port
        self.requests = requests
        self.result = Result()
        self.connections: list[Connection] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_progress = on_progress

    async def connect(self, count: int, on_answer: Callable[[Connection, int], None]) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, protocol = await loop.create_connection(
                lambda: Connection(on_answer, self._lost), "127.0.0.1", self.port
            )
            self.connections.append(protocol)

    def answered(self, connection: Connection, status: int) -> None:
        latencies = self.result.latencies
        latencies.append((time.perf_counter() - connection.began) * 1000)
        self.result.statuses[status] += 1
        if self._on_progress and len(latencies) % 64 == 0:
            self._on_progress(len(latencies))
        if len(latencies) == len(self.requests) and not self.done.done():
            self.done.set_result(None)

    def _lost(self, connection: Connection) -> None:
        if not self.done.done():
            answered = len(self.result.latencies)
            self.done.set_exception(ConnectionError(f"connection closed after {answered} answers"))

    async def finish(self, began: float, timeout: float) -> Result:
        try:
            async with asyncio.timeout(timeout):
                await self.done
        finally:
            if not self.done.done():
                self.done.cancel()
            for connection in self.connections:
                connection.close()
        self.result.seconds = time.perf_counter() - began
        return self.result


async def closed_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int = 64,
    timeout: float = 120.0,
    on_progress: Callable[[int], None] | None = None,
) -> Result:
    """Send all requests over N connections, each as fast as it is answered. Seconds and bytes on loopback."""
    run = _Run(port, requests, on_progress)
    waiting = iter(requests)

    def answered(connection: Connection, status: int) -> None:
        run.answered(connection, status)
        following = next(waiting, None)
        if following is not None:
            connection.send(following, time.perf_counter())

    await run.connect(min(connections, len(requests)), answered)
    began = time.perf_counter()
    for connection in run.connections:
        connection.send(next(waiting), time.perf_counter())
    return await run.finish(began, timeout)


async def open_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    connections: int = 64,
    timeout: float = 120.0,
    on_progress: Callable[[int], None] | None = None,
) -> Result:
    """Send all requests at ``rate`` per second. One that finds no free connection waits, and its wait counts."""
    run = _Run(port, requests, on_progress)
    idle: deque[Connection] = deque()
    overdue: deque[tuple[int, float]] = deque()

    def answered(connection: Connection, status: int) -> None:
        run.answered(connection, status)
        if overdue:
            index, due = overdue.popleft()
            connection.send(requests[index], due)
        else:
            idle.append(connection)

    await run.connect(connections, answered)
    idle.extend(run.connections)
    began, epoch = time.perf_counter(), time.time()
    run.result.sent_at = [epoch + index / rate for index in range(len(requests))]
    for index in range(len(requests)):
        due = began + index / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if run.done.done():
            break
        if idle:
            idle.popleft().send(requests[index], due)
        else:
            overdue.append((index, due))
    return await run.finish(began, timeout)
