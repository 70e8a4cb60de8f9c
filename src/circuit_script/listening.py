"""The listening sockets of gateway and dashboard; the supervisor and doctor try them beforehand."""

from __future__ import annotations

import errno
import socket

from circuit_script.errors import StartError

BACKLOG = 2048


def listen(host: str, port: int, table: str = "gateway") -> socket.socket:
    """A listening socket (port 0: any free one). Raises StartError with a cure, which names the ``table`` of
    circuit.toml that says where."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except OSError as error:
        raise StartError(
            f"Host {host!r} cannot be listened on: {error.strerror}.", cure=f"Set [{table}] host.", page="port-taken"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, table, error) from None
    return listener


def _cannot_listen(host: str, port: int, table: str, error: OSError) -> StartError:
    match error.errno:
        case errno.EADDRINUSE:
            by_hand = "circuit-script serve --port 8080, or " if table == "gateway" else ""
            cure = f"Stop what listens there, or choose another port: {by_hand}[{table}] port in circuit.toml."
            return StartError(f"Port {port} on {host} is taken.", cure=cure, page="port-taken")
        case errno.EACCES:
            return StartError(f"Port {port} needs more rights.", cure="Choose a port above 1023.", page="port-taken")
        case _:
            return StartError(
                f"{host}:{port} cannot be listened on: {error.strerror}.",
                cure=f"Set [{table}] host.",
                page="port-taken",
            )
