"""What a child notices about code that goes around the broker: requests of libraries, raw connections, datagrams, and
processes that it starts."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from circuit_script.errors import RequestRefused
from circuit_script.execution import hardening
from circuit_script.execution.authoring.calls import allowed
from circuit_script.execution.child import hooked
from circuit_script.execution.child.hooked.asking import OnItsWay, on_its_way
from circuit_script.execution.session import Wire, active, is_shared

INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})
MAX_NAMES = 16  # that were looked up last, of which a connection may be one
MAX_PEERS = 1000  # of one socket that sends datagrams

_looked_up: deque[str] = deque(maxlen=MAX_NAMES)
_peers: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()


def install() -> None:
    """Watch this process and those forked from it; nothing is counted outside of an execution."""
    hooked.install()
    sys.addaudithook(_on_event)


def silence_forks(wire: Wire) -> None:
    """A process that the handler forks must not speak on the child's socket, nor outlive the child."""

    forking = 0

    def notice() -> None:
        nonlocal forking
        forking = os.getpid()
        _on_process()

    def silence() -> None:
        with suppress(OSError):
            wire.close()
        with suppress(OSError):
            hardening.die_with_parent(forking)

    os.register_at_fork(before=notice, after_in_child=silence)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if (watch := _WATCHED.get(event)) is not None:
        watch(*arguments)


def on_look_up(host: Any, *_: Any) -> None:
    """A name is looked up: a connection may be meant for it."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if isinstance(host, str) and host and active() is not None:
        with suppress(ValueError):
            _looked_up.remove(host)
        _looked_up.appendleft(host)


def _counts(sock: socket.socket) -> bool:
    """Whether what this socket does is counted. Raises PermissionError where several executions share the process, and
    nobody knows which of them this is."""
    if sock.family not in INTERNET:
        return False
    if active() is not None:
        return True
    if is_shared():
        raise PermissionError(errno.EACCES, "connection refused: it belongs to no execution")
    return False


def _on_connect(sock: socket.socket, address: Any) -> None:
    if _counts(sock):
        _ask(address, datagram=False)


def _on_datagram(sock: socket.socket, address: Any = None) -> None:
    """The first to each peer of a socket counts, as a connection does."""
    if address is None or not _counts(sock):
        return
    try:
        peers = _peers.setdefault(sock, set())
    except TypeError:  # a bare socket of C, which cannot be remembered
        peers = set()
    if address in peers:
        return
    _ask(address, datagram=True)
    if len(peers) < MAX_PEERS:
        peers.add(address)


def _ask(address: Any, *, datagram: bool) -> None:
    """Raises PermissionError for where it may not go: libraries take it for the error of a connection that it is."""
    session = active()
    assert session is not None
    host, port = (str(address[0]), int(address[1])) if isinstance(address, tuple) else (str(address), 0)
    way = None if datagram else _way()
    names = [name for name in list(_looked_up) if name != host]
    asked = {
        "host": host,
        "port": port,
        "names": names if way is None else [way.host, *names],
        "way": None if way is None else way.host,
    }
    try:
        allowed(session.request_now("connect", asked))
    except RequestRefused as refused:
        if way is not None:
            way.refused = str(refused)
        raise PermissionError(errno.EACCES, f"connection to {host}:{port} refused: {refused}") from None


def _way() -> OnItsWay | None:
    """The request that pays for a connection, if it leads to that one's host."""
    way = on_its_way.get()
    if way is None or way.over or not way.left:
        return None
    way.left -= 1
    return way


def _on_process(*_: Any) -> None:
    if (session := active()) is not None:
        session.unclean = True


_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.system", "os.exec", "os.spawn", "os.forkpty", "pty.spawn")
_WATCHED: dict[str, Callable[..., None]] = {
    "socket.connect": _on_connect,
    "socket.sendto": _on_datagram,
    "socket.sendmsg": _on_datagram,
    "socket.getaddrinfo": on_look_up,
    "socket.gethostbyname": on_look_up,
    **dict.fromkeys(_STARTS, _on_process),
}
