"""uvloop, which opens its connections in C, where no audit hook hears of them: in an execution they are made as
Python's own loop makes them. Its datagrams are refused."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from circuit_script.execution.child import hooks
from circuit_script.execution.session import active, is_shared

_Call = Callable[..., Awaitable[Any]]
_HOW: tuple[str, ...] = ("family", "proto", "flags")  # of an address that is looked up


def patch(module: ModuleType) -> None:
    loop: Any = module.Loop
    loop.getaddrinfo = _looked_up(loop.getaddrinfo)
    loop.create_connection = _connected(loop.create_connection)
    loop.create_datagram_endpoint = _refused(loop.create_datagram_endpoint)


def _watched() -> bool:
    return active() is not None or is_shared()


def _looked_up(look_up: _Call) -> _Call:
    async def getaddrinfo(self: Any, host: Any, port: Any, **named: Any) -> Any:
        hooks.on_look_up(host)
        return await look_up(self, host, port, **named)

    return getaddrinfo


def _connected(connect: _Call) -> _Call:
    async def create_connection(
        self: Any, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **named: Any
    ) -> Any:
        if sock is not None or not host or not _watched():
            return await connect(self, protocol_factory, host, port, sock=sock, **named)
        how: dict[str, int] = {name: named.pop(name) for name in _HOW if name in named}
        sock = await _socket_to(self, host, port, named.pop("local_addr", None), how)
        if named.get("ssl") and named.get("server_hostname") is None:
            named["server_hostname"] = host
        try:
            return await connect(self, protocol_factory, sock=sock, **named)
        except BaseException:
            sock.close()
            raise

    return create_connection


async def _socket_to(loop: Any, host: Any, port: Any, local: Any, how: dict[str, int]) -> socket.socket:
    """A socket that is connected to one of the host's addresses. Raises OSError."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, **how):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if local is not None:
                sock.bind(local)
            await loop.sock_connect(sock, address)  # by Python's socket: the audit hook hears of it
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _refused(create: _Call) -> _Call:
    async def create_datagram_endpoint(self: Any, *arguments: Any, **named: Any) -> Any:
        sock = named.get("sock")
        family = named.get("family") if sock is None else sock.family
        if family != socket.AF_UNIX and _watched():
            raise PermissionError(errno.EACCES, "datagrams of uvloop cannot be counted: use the loop of asyncio")
        return await create(self, *arguments, **named)

    return create_datagram_endpoint
