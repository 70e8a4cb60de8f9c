"""Answers one request in the child: runs an ASGI app for it, and sends what it says to the parent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from circuit_script.execution.authoring.endpoints import phrase_of
from circuit_script.execution.headers import is_name
from circuit_script.execution.outcome import HttpRequest
from circuit_script.execution.protocol import Chunk, Head
from circuit_script.execution.session import Session, active
from circuit_script.governor import MB

PIECE = 1 * MB  # of a body in one frame
EVENT_STREAM = "text/event-stream"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_BREAK = re.compile(r"[\r\n\0]")


class Misrouted(BaseException):
    """The app would answer with another handler's route than the one that was admitted, limited and logged.

    Derives from BaseException so that no error handler of the author makes an answer of it.
    """


def must_be(handler: str) -> None:
    """See that the running execution, if any, is this handler's. Raises Misrouted."""
    running = active()
    if running is not None and running.run.handler != handler:
        raise Misrouted(
            f"the route of this request is of the handler {handler!r}, but it was admitted for "
            f"{running.run.handler!r}: nothing was run. Give the two routes paths of which no request fits both, let "
            "nothing in the app change a request's method or path, and let [web] app name the Flask app itself."
        )


async def answer(app: ASGIApp, session: Session) -> str | None:
    """Let ``app`` answer the session's request, to its end. Returns why what it wrote must not count, or None.

    Raises what the app raises, and RuntimeError, TypeError or ValueError when its answer breaks ASGI or HTTP.
    """
    request = session.run.request
    assert request is not None
    exchange = Exchange(session, request)
    try:
        await app(scope_of(request), exchange.receive, exchange.send)
    except BaseExceptionGroup as group:
        raise leaf_of(group) from None
    finally:
        exchange.hang_up()
    if not exchange.complete:
        raise RuntimeError("the app returned before its answer was complete")
    return f"it answered {exchange.status} {phrase_of(exchange.status)}" if exchange.status >= 400 else None


def leaf_of(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that task groups wrap around it: a limit comes before all else."""
    while isinstance(error, BaseExceptionGroup):
        error = min(error.exceptions, key=lambda each: isinstance(each, Exception))
    return error


def scope_of(request: HttpRequest) -> dict[str, Any]:
    """The request as ASGI's scope."""
    host = next((value for name, value in request.headers if name == "host"), "")
    name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1", "replace"),
        "query_string": request.query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers],
        "client": (request.client, 0) if request.client else None,
        "server": (name, int(port) if port else {"https": 443}.get(request.scheme, 80)) if name else None,
        "state": {},
    }


class Exchange:
    """One request and its answer, as ASGI's receive and send."""

    def __init__(self, session: Session, request: HttpRequest) -> None:
        self._session = session
        self._request = request
        self._asked = False
        self._over = asyncio.Event()
        self.status = 0
        self.complete = False

    async def receive(self) -> Message:
        """The body, whole; then, once the answer is complete, that the caller has left."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Hand a part of the answer to the parent."""
        kind = message["type"]
        if kind == "http.response.start" and not self.status:
            self._begin(message)
        elif kind == "http.response.body" and self.status and not self.complete:
            self._go_on(message)
        else:
            raise RuntimeError(f"the app sent {kind!r} where an answer does not have it")

    def hang_up(self) -> None:
        """Whoever still waits for the caller learns that it is gone."""
        self._over.set()

    def _begin(self, message: Message) -> None:
        headers = [_header(name, value) for name, value in message.get("headers", ())]
        status = int(message["status"])
        if not 200 <= status <= 599:
            raise ValueError(f"the status of an answer is from 200 to 599, not {status}")
        kind = next((value for name, value in headers if name == "content-type"), "")
        streamed = kind.partition(";")[0].strip().lower() == EVENT_STREAM
        self._session.say(Head(status, headers, streamed, self._session.number))
        self.status = status

    def _go_on(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"the body of an answer is bytes, not {type(body).__name__}")
        if self._request.method != "HEAD":
            view = memoryview(body)
            for start in range(0, len(view), PIECE):
                self._session.say(Chunk(bytes(view[start : start + PIECE]), self._session.number))
        if not message.get("more_body", False):
            self.complete = True
            self.hang_up()


def _header(name: bytes, value: bytes) -> tuple[str, str]:
    decoded = bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1").strip()
    if not is_name(decoded[0]):
        raise ValueError(f"{decoded[0]!r} is not the name of a header")
    if _BREAK.search(decoded[1]):
        raise ValueError(f"the header {decoded[0]!r} holds a line break: it would begin another header")
    return decoded
