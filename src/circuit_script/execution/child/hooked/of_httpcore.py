"""httpcore and httpcore2, and with them httpx, httpx2 and the SDKs on them. Each request counts, redirects too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from circuit_script.errors import RequestRefused
from circuit_script.execution.child.hooked.asking import (
    TRACEPARENT,
    Leave,
    Place,
    ask,
    ask_now,
    counted,
    governed,
    url_of,
)

PARTS = ("connect", "read", "write", "pool")


def patch(module: ModuleType) -> None:
    errors = _errors(module)
    if (pool := getattr(module, "AsyncConnectionPool", None)) is not None:
        pool.handle_async_request = _async(errors, pool.handle_async_request)
    elif (pool := getattr(module, "ConnectionPool", None)) is not None:
        pool.handle_request = _sync(errors, pool.handle_request)


def _errors(module: Any) -> Any:
    from importlib import import_module

    return import_module(f"{module.__name__.partition('.')[0]}._exceptions")


def _async(errors: Any, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def handle_async_request(self: Any, request: Any) -> Any:
        if not governed():
            return await handle(self, request)
        try:
            leave = await ask(request.method, _url(request), request.headers, _body(request), via=_proxy(self))
        except RequestRefused as refused:
            raise errors.ConnectError(str(refused)) from refused
        if leave.answer is not None:
            return _answer(request, leave)
        _prepare(request, leave)
        with counted(_peer(self, request)) as way:
            try:
                return await handle(self, request)
            except errors.ConnectError as error:
                if not way.refused:
                    raise
                raise errors.ConnectError(way.refused) from error  # who tries several addresses tells no reason

    return handle_async_request


def _sync(errors: Any, handle: Callable[..., Any]) -> Callable[..., Any]:
    def handle_request(self: Any, request: Any) -> Any:
        if not governed():
            return handle(self, request)
        try:
            leave = ask_now(request.method, _url(request), request.headers, _body(request), via=_proxy(self))
        except RequestRefused as refused:
            raise errors.ConnectError(str(refused)) from refused
        if leave.answer is not None:
            return _answer(request, leave)
        _prepare(request, leave)
        with counted(_peer(self, request)) as way:
            try:
                return handle(self, request)
            except errors.ConnectError as error:
                if not way.refused:
                    raise
                raise errors.ConnectError(way.refused) from error  # who tries several addresses tells no reason

    return handle_request


def _prepare(request: Any, leave: Leave) -> None:
    """Shorten its timeout, and say which trace it belongs to."""
    if leave.traceparent is not None:
        request.headers = [*request.headers, (TRACEPARENT.encode(), leave.traceparent.encode())]
    given = request.extensions.get("timeout") or {}
    request.extensions = {**request.extensions, "timeout": {part: leave.shortened(given.get(part)) for part in PARTS}}


def _answer(request: Any, leave: Leave) -> Any:
    from importlib import import_module

    assert leave.answer is not None
    library = import_module(type(request).__module__.partition(".")[0])
    return library.Response(leave.answer.status, headers=leave.answer.pairs(), content=leave.answer.body)


def _url(request: Any) -> str:
    url = request.url
    port = "" if url.port is None else f":{url.port}"
    host = _host(request)
    shown = f"[{host}]" if ":" in host else host
    return url_of(f"{url.scheme.decode()}://{shown}{port}", url.target.decode("latin-1"))


def _proxy(pool: Any) -> Place | None:
    """The proxy that the pool connects to, if it has one."""
    url = getattr(pool, "_proxy_url", None) or getattr(getattr(pool, "_proxy", None), "url", None)
    return None if url is None else (_name(url), url.port)


def _peer(pool: Any, request: Any) -> str:
    proxy = _proxy(pool)
    return _host(request) if proxy is None else proxy[0]


def _host(request: Any) -> str:
    return _name(request.url)


def _name(url: Any) -> str:
    host: str = url.host.decode("ascii", "replace")
    return host.strip("[]")


def _body(request: Any) -> bytes | None:
    """The body, where it is there already and whole; a stream is left alone."""
    stream = request.stream
    for name in ("_stream", "_content"):
        if isinstance(found := getattr(stream, name, None), bytes):
            return found
    return None
