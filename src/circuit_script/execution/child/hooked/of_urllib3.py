"""urllib3, and with it requests, botocore and most vendors' SDKs. Each attempt and each redirect counts."""

from __future__ import annotations

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


def patch(module: ModuleType) -> None:
    pool: Any = module.HTTPConnectionPool
    pool._make_request = _made(module, pool._make_request)


def _made(module: Any, make: Callable[..., Any]) -> Callable[..., Any]:
    def _make_request(self: Any, conn: Any, method: str, url: str, *arguments: Any, **named: Any) -> Any:
        if not governed():
            return make(self, conn, method, url, *arguments, **named)
        try:
            leave = ask_now(
                method, _url(self, url), named.get("headers"), named.get("body"), via=_proxy(self, conn, url)
            )
        except RequestRefused as refused:
            raise module.NewConnectionError(conn, str(refused)) from refused
        if leave.answer is not None:
            conn.close()
            conn.sock = CannedSocket(leave.answer.raw())
            conn.is_verified = True  # else it warns
        elif not arguments:
            if leave.traceparent is not None:
                named["headers"] = _with_trace(named.get("headers"), leave.traceparent)
            named["timeout"] = _shortened(module, self, named.get("timeout"), leave)
        with counted(conn.host, conn):
            return make(self, conn, method, url, *arguments, **named)

    return _make_request


def _with_trace(headers: Any, traceparent: str) -> Any:
    """A copy with the trace that the request belongs to: the same headers may serve another one."""
    copied = {} if headers is None else headers.copy() if hasattr(headers, "copy") else dict(headers)
    copied[TRACEPARENT] = traceparent
    return copied


def _shortened(module: Any, pool: Any, timeout: Any, leave: Leave) -> Any:
    """The same timeout, which ends in all when the execution must."""
    kind = module.Timeout
    given = timeout if isinstance(timeout, kind) else kind.from_float(timeout) if timeout is not None else pool.timeout
    total = given.total
    return kind(
        total=leave.seconds if not isinstance(total, (int, float)) else min(total, leave.seconds),
        connect=given._connect,
        read=given._read,
    )


def _url(pool: Any, target: str) -> str:
    usual = pool.port in (None, 443 if pool.scheme == "https" else 80)
    host = f"[{pool.host.strip('[]')}]" if ":" in pool.host else pool.host
    return url_of(f"{pool.scheme}://{host}{'' if usual else f':{pool.port}'}", target)


def _proxy(pool: Any, conn: Any, target: str) -> Place | None:
    """What is connected to in the place of the request's own host."""
    if getattr(conn, "proxy", None) is None and conn.host == pool.host and not is_absolute(target):
        return None
    return conn.host, conn.port
