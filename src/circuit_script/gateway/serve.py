"""Runs a gateway until it is told to stop; what was accepted by then is finished."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import uvicorn

from circuit_script.config import Settings
from circuit_script.db.pool import open_connection, open_pool
from circuit_script.errors import StartError
from circuit_script.events.bell import Bell
from circuit_script.events.intake import Intake
from circuit_script.events.ledger import Ledger
from circuit_script.events.sources import open_sources
from circuit_script.events.status import StatusReader
from circuit_script.gateway.app import Gateway
from circuit_script.gateway.protocol import Protocol
from circuit_script.tenants import TenantMap

GRACE = 10  # seconds that requests have to finish once the gateway is told to stop
BACKLOG = 2048


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


async def run_gateway(
    settings: Settings,
    url: str,
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, or, without one, until SIGTERM or SIGINT.

    ``on_ready`` gets the address once it listens. Raises StartError when it cannot listen there.
    """
    listener = listen(settings.gateway.host, settings.gateway.port)
    try:
        connect = partial(open_connection, url, pooler=settings.pooler, name="circuit-script gateway")
        intake = Intake(
            sources=open_sources(settings.sources),
            tenants=TenantMap(settings.tenants),
            ledger=Ledger(connect, pooler=settings.pooler),
            bell=None if settings.pooler else Bell(connect),
            max_waiting=settings.gateway.max_waiting,
        )
        pool = await open_pool(url, min_size=1, max_size=2, name="circuit-script status", pooler=settings.pooler)
        async with pool:
            gateway = Gateway(intake=intake, status=StatusReader(pool), max_body=settings.gateway.max_body)
            await _serve(gateway, listener, stop, on_ready)
    finally:
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any free one). Raises StartError with a cure."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except OSError as error:
        raise StartError(
            f"Host {host!r} cannot be listened on: {error.strerror}.", cure="Set [gateway] host."
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> StartError:
    match error.errno:
        case errno.EADDRINUSE:
            cure = "Stop what listens there, or choose another port: [gateway] port in circuit.toml."
            return StartError(f"Port {port} on {host} is taken.", cure=cure)
        case errno.EACCES:
            return StartError(f"Port {port} needs more rights.", cure="Choose a port above 1023.")
        case _:
            return StartError(f"{host}:{port} cannot be listened on: {error.strerror}.", cure="Set [gateway] host.")


async def _serve(
    gateway: Gateway,
    listener: socket.socket,
    stop: asyncio.Event | None,
    on_ready: Callable[[str], None] | None,
) -> None:
    config = uvicorn.Config(
        gateway,
        loop="none",  # the caller's
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, partial(on_ready or _nobody_asked, address))
    watching = asyncio.create_task(_watch(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _nobody_asked(_: str) -> None:
    """The address is in the settings."""


async def _watch(server: uvicorn.Server, stop: asyncio.Event | None) -> None:
    """Tell the server to end: once kindly, at a second signal at once."""
    if stop is not None:
        await stop.wait()
        server.should_exit = True
        return
    loop = asyncio.get_running_loop()

    def told() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    signals = (signal.SIGTERM, signal.SIGINT)
    for each in signals:
        loop.add_signal_handler(each, told)
    try:
        await asyncio.Event().wait()
    finally:
        for each in signals:
            with suppress(ValueError):
                loop.remove_signal_handler(each)
