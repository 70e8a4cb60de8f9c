"""What a child notices about code that goes around the broker: raw connections, and processes that it starts."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from circuit_script.errors import RequestRefused
from circuit_script.execution import hardening
from circuit_script.execution.session import Wire, active

INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


def install() -> None:
    """Watch this process and those forked from it; nothing is counted outside of an execution."""
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


def _on_connect(sock: socket.socket, address: Any) -> None:
    session = active()
    if session is None or sock.family not in INTERNET:
        return
    host, port = (str(address[0]), int(address[1])) if isinstance(address, tuple) else (str(address), 0)
    try:
        session.request_now("connect", {"host": host, "port": port})
    except RequestRefused as refused:
        raise PermissionError(f"connection to {host}:{port} refused: {refused}") from None


def _on_process(*_: Any) -> None:
    if (session := active()) is not None:
        session.unclean = True


_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.system", "os.exec", "os.spawn", "os.forkpty", "pty.spawn")
_WATCHED: dict[str, Callable[..., None]] = {"socket.connect": _on_connect} | dict.fromkeys(_STARTS, _on_process)
