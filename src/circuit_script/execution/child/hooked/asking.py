"""What a library's hook asks the broker before a request leaves, and what it gets to know."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from circuit_script.execution.authoring.calls import allowed
from circuit_script.execution.session import active, current_record

MAX_BODY = 1024 * 1024  # bytes of a request's body that the broker is told
TRACEPARENT = "traceparent"
PAID = 8  # connections that a request pays for: a library tries one address of its host after another
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(slots=True)
class OnItsWay:
    """A request that the broker knows of: it pays for ``left`` connections to its ``host``, until it is ``over``.

    ``by`` is the connection that sends it, where another hook would count it again; ``refused`` is why one was not
    allowed, which a library may drop.
    """

    host: str
    by: Any = None
    refused: str = ""
    left: int = PAID
    over: bool = False  # a task that was begun within the request may go on after it


Place = tuple[str, int | None]  # a host and its port

on_its_way: ContextVar[OnItsWay | None] = ContextVar("on_its_way", default=None)


@dataclass(frozen=True, slots=True)
class Leave:
    """The request may leave, and take so many ``seconds``. ``answer`` is there when it must not: a test gives it.
    ``traceparent`` is the header by which it belongs to its execution's trace."""

    seconds: float
    answer: Canned | None = None
    traceparent: str | None = None

    def shortened(self, timeout: Any) -> float:
        """A timeout of the library's, no longer than the time that is left; None and Python's default are without
        end."""
        if timeout is None or not isinstance(timeout, (int, float)):
            default = socket.getdefaulttimeout()
            return self.seconds if default is None else min(default, self.seconds)
        return min(float(timeout), self.seconds)


@dataclass(frozen=True, slots=True)
class Canned:
    """An answer that no server gave."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """The headers that go with the body as it is."""
        kept = [pair for pair in self.headers if pair[0].lower() not in _FRAMING]
        kept += [("content-length", str(len(self.body))), ("connection", "close")]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]

    def raw(self) -> bytes:
        """The answer as it would have come over a connection."""
        lines = [b"HTTP/1.1 %d Canned" % self.status, *(b"%s: %s" % pair for pair in self.pairs())]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


_FRAMING = ("content-length", "transfer-encoding", "connection")


def governed(by: Any = None) -> bool:
    """Whether an execution runs whose requests are counted, and this connection does not send one that is."""
    if active() is None:
        return False
    way = on_its_way.get()
    return by is None or way is None or way.over or way.by is not by


def is_absolute(target: str) -> bool:
    """Whether a request's target names its host, as one to a proxy does; "/to?url=https://…" does not."""
    return _ABSOLUTE.match(target) is not None


def url_of(origin: str, target: str) -> str:
    """The address that is asked for at an origin, such as "https://example.com:8443", by a request's target."""
    if is_absolute(target):
        return target
    return origin + (target if target.startswith("/") else f"/{target}")  # "*", and "@example.org", which is no host


def ask_now(method: str, url: str, headers: Any = (), body: Any = None, *, via: Place | None = None) -> Leave:
    """Tell the broker of a request, and block until it allows it. ``via`` is what is connected to, where that is not
    the URL's host. Raises RequestRefused, LimitExceeded."""
    running = active()
    assert running is not None
    return _leave(allowed(running.request_now("request", _asked(method, url, headers, body, via))))


async def ask(method: str, url: str, headers: Any = (), body: Any = None, *, via: Place | None = None) -> Leave:
    """As `ask_now`, without blocking the loop, if it is one of asyncio's."""
    running = active()
    assert running is not None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ask_now(method, url, headers, body, via=via)
    return _leave(allowed(await running.request("request", _asked(method, url, headers, body, via), dict[str, Any])))


@contextmanager
def counted(host: str, by: Any = None) -> Iterator[OnItsWay]:
    """Connections to the host in this block are of a request that the broker knows of."""
    token = on_its_way.set(way := OnItsWay(host, by))
    try:
        yield way
    finally:
        way.over = True
        on_its_way.reset(token)


def _asked(method: str, url: str, headers: Any, body: Any, via: Place | None) -> dict[str, Any]:
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    told = bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) and len(body) <= MAX_BODY else None
    return {
        "method": _text(method).upper(),
        "url": url,
        "headers": [[_text(name), _text(value)] for name, value in _pairs(headers)],
        "body": told,
        "record": current_record.get(),
        "via": via,
    }


def _pairs(headers: Any) -> Iterable[tuple[Any, Any]]:
    if headers is None:
        return ()
    items = getattr(headers, "items", None)
    return list(items() if items is not None else headers)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _leave(answer: dict[str, Any]) -> Leave:
    canned = answer.get("answer")
    if canned is None:
        return Leave(answer["seconds"], traceparent=answer.get(TRACEPARENT))
    headers = tuple((name, value) for name, value in canned["headers"])
    return Leave(answer["seconds"], Canned(canned["status"], headers, canned["body"]))
