"""uvicorn in a process of ours: gateway and dashboard each run one until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import uvicorn


class _Server(uvicorn.Server):
    """uvicorn ends its process by the signal that stopped it; ours returns, so that the process exits 0."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


async def serve(
    config: uvicorn.Config,
    listener: socket.socket,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, or, without one, until SIGTERM or SIGINT: kindly, but at once at a SIGINT that comes
    second. A second SIGTERM changes nothing: some platforms signal every process, and so does the supervisor then.

    ``on_ready`` gets the address once requests are answered.
    """
    server = _Server(config, partial(on_ready or _nobody_asked, address_of(listener)))
    watching = asyncio.create_task(_watch(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def address_of(listener: socket.socket) -> str:
    """Where it is reached, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _nobody_asked(_: str) -> None:
    """The address is in the settings."""


async def _watch(server: uvicorn.Server, stop: asyncio.Event | None) -> None:
    if stop is not None:
        await stop.wait()
        server.should_exit = True
        return
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        server.force_exit = server.should_exit and number is signal.SIGINT
        server.should_exit = True

    signals = (signal.SIGTERM, signal.SIGINT)
    for each in signals:
        loop.add_signal_handler(each, told, each)
    try:
        await asyncio.Event().wait()
    finally:
        for each in signals:
            with suppress(ValueError):
                loop.remove_signal_handler(each)
