"""aiohttp. Each request counts when it asks for its connection, redirects and repetitions too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from circuit_script.errors import RequestRefused
from circuit_script.execution.child.hooked.asking import TRACEPARENT, Leave, Place, ask, counted, governed
from circuit_script.execution.session import Session, active

_Call = Callable[..., Awaitable[Any]]


def patch(module: ModuleType) -> None:
    if module.__name__ == "aiohttp.connector":
        connector: Any = module
        connector.BaseConnector.connect = _connected(connector, connector.BaseConnector.connect)
    else:
        client: Any = module
        client.ClientSession._request = _requested(client, client.ClientSession._request)


def _connected(module: Any, connect: _Call) -> _Call:
    async def connect_(self: Any, req: Any, *arguments: Any, **named: Any) -> Any:
        if not governed() or not isinstance(self, module.TCPConnector):  # a Unix socket leads to nobody outside
            return await connect(self, req, *arguments, **named)
        try:
            leave = await ask(req.method, str(req.url), req.headers, _body(req), via=_proxy(req))
        except RequestRefused as refused:
            raise module.ClientConnectionError(str(refused)) from refused
        if leave.answer is not None:
            return _answer(module, self, req, leave)
        if leave.traceparent is not None:
            req.headers[TRACEPARENT] = leave.traceparent
        proxy = _proxy(req)
        with counted(proxy[0] if proxy else req.url.raw_host or ""):
            return await connect(self, req, *arguments, **named)

    return connect_


def _requested(module: Any, request: _Call) -> _Call:
    async def _request(self: Any, *arguments: Any, **named: Any) -> Any:
        if (running := active()) is not None:
            given = named.get("timeout", module.sentinel)
            named["timeout"] = _shortened(module, self, given, running)
        return await request(self, *arguments, **named)

    return _request


def _shortened(module: Any, session: Any, given: Any, running: Session) -> Any:
    kind = module.ClientTimeout
    if given is module.sentinel:
        given = session._timeout
    if not isinstance(given, kind):
        given = kind(total=given)
    leave = Leave(max(0.001, running.run.limits["wall_time"] - running.elapsed()))
    return kind(
        total=leave.shortened(given.total or None),  # 0 is without end
        connect=given.connect,
        sock_read=given.sock_read,
        sock_connect=given.sock_connect,
        ceil_threshold=given.ceil_threshold,
    )


class _Nowhere(asyncio.Transport):
    """Takes what is sent; the answer is there already."""

    def write(self, data: Any) -> None:
        """It goes nowhere."""

    def writelines(self, list_of_data: Any) -> None:
        """It goes nowhere."""

    def pause_reading(self) -> None:
        """There is nothing more to read."""

    def resume_reading(self) -> None:
        """There is nothing more to read."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """It has nothing open."""

    def abort(self) -> None:
        """It has nothing open."""


def _answer(module: Any, connector: Any, req: Any, leave: Leave) -> Any:
    assert leave.answer is not None
    protocol = connector._factory()
    protocol.connection_made(_Nowhere())
    protocol.force_close()  # it must not be kept for another request
    protocol.data_received(leave.answer.raw())
    return module.Connection(connector, req.connection_key, protocol, connector._loop)


def _proxy(req: Any) -> Place | None:
    """The proxy that is connected to, if there is one."""
    proxy = getattr(req, "proxy", None)
    return None if proxy is None else (proxy.raw_host or "", proxy.port)


def _body(req: Any) -> Any:
    """The body, where it is there already and whole."""
    body = getattr(req, "body", None)
    return body if isinstance(body, (bytes, str)) else getattr(body, "_value", None)
