"""http.client, and with it urllib and whatever is built on it. Each request counts, whatever connection it takes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import ModuleType
from typing import Any

from circuit_script.errors import RequestRefused
from circuit_script.execution.child.hooked.asking import (
    TRACEPARENT,
    Leave,
    Place,
    ask_now,
    counted,
    governed,
    is_absolute,
    url_of,
)
from circuit_script.execution.child.hooked.canned_socket import CannedSocket

LEAVE = "_circuit_leave"  # of a request that was begun by `putrequest`: its connection may come later


def patch(module: ModuleType) -> None:
    connection: Any = module.HTTPConnection
    connection._send_request = _whole(connection._send_request)
    connection.putrequest = _begun(connection.putrequest)
    connection.connect = _connected(connection.connect)


def _whole(send: Callable[..., None]) -> Callable[..., None]:
    def _send_request(
        self: Any, method: str, url: str, body: Any = None, headers: Any = (), encode_chunked: bool = False
    ) -> None:
        if not governed(self):
            return send(self, method, url, body, headers, encode_chunked)
        leave = _ask(self, method, url, headers, body)
        if leave.answer is not None:
            return _answer(self, leave, lambda: send(self, method, url, body, headers, encode_chunked))
        if leave.traceparent is not None:
            headers = {**dict(headers), TRACEPARENT: leave.traceparent}
        timeout = self.timeout
        self.timeout = leave.shortened(timeout)
        if self.sock is not None:
            self.sock.settimeout(self.timeout)
        try:
            with counted(self.host, self):
                send(self, method, url, body, headers, encode_chunked)
        finally:
            self.timeout = timeout

    return _send_request


def _begun(put: Callable[..., None]) -> Callable[..., None]:
    def putrequest(self: Any, method: str, url: str, *arguments: Any, **named: Any) -> None:
        if not governed(self):
            return put(self, method, url, *arguments, **named)
        leave = _ask(self, method, url)
        if leave.answer is not None:
            return _answer(self, leave, lambda: put(self, method, url, *arguments, **named))
        setattr(self, LEAVE, leave)
        if self.sock is not None:
            self.sock.settimeout(leave.shortened(self.timeout))
        put(self, method, url, *arguments, **named)

    return putrequest


def _connected(connect: Callable[..., None]) -> Callable[..., None]:
    def connect_(self: Any) -> None:
        leave: Leave | None = self.__dict__.pop(LEAVE, None)
        if leave is None or not governed(self):
            return connect(self)
        timeout = self.timeout
        self.timeout = leave.shortened(timeout)
        try:
            with counted(self.host, self):
                connect(self)
        finally:
            self.timeout = timeout

    return connect_


def _ask(connection: Any, method: str, url: str, headers: Any = (), body: Any = None) -> Leave:
    """Raises PermissionError, which urllib wraps as it does every error of a connection."""
    try:
        return ask_now(method, _url(connection, url), headers, body, via=_proxy(connection, url))
    except RequestRefused as refused:
        raise PermissionError(errno.EACCES, str(refused)) from refused


def _url(connection: Any, target: str) -> str:
    tunnel = getattr(connection, "_tunnel_host", None)
    host, port = (tunnel, connection._tunnel_port) if tunnel else (connection.host, connection.port)
    secure = tunnel is not None or connection.default_port == 443
    usual = port in (None, 443 if secure else 80)
    shown = f"[{host}]" if ":" in host else host
    return url_of(f"{'https' if secure else 'http'}://{shown}{'' if usual else f':{port}'}", target)


def _proxy(connection: Any, target: str) -> Place | None:
    """What is connected to, where the request says that it is for another host."""
    if not getattr(connection, "_tunnel_host", None) and not is_absolute(target):
        return None
    return connection.host, connection.port


def _answer(connection: Any, leave: Leave, send: Callable[[], None]) -> None:
    assert leave.answer is not None
    connection.close()
    connection.sock = CannedSocket(leave.answer.raw())
    with counted(connection.host, connection):
        send()
