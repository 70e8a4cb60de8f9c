"""``/webhooks/*``: one raw ASGI route in front of FastAPI, because each microsecond here is paid per event.

Deliveries are posted; some vendors also ask whether we are who they think, which is answered at once and from nothing
but their keys.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from circuit_script import problems
from circuit_script.clock import wall
from circuit_script.errors import IntakeRefused
from circuit_script.events.intake import Accepted, Intake
from circuit_script.events.sources import Reason, Reply, Request, Source
from circuit_script.telemetry.w3c import HEADER as TRACEPARENT

if TYPE_CHECKING:
    from circuit_script.gateway.mirrors import Mirrors

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PREFIX = "/webhooks/"
MAX_ACCOUNT = 255  # characters
DRAINED = 8 * 1024 * 1024  # bytes of a refused body that are read, so that its sender gets to read the answer

_LENGTH = str(len('{"id":""}') + 36).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", _LENGTH)]
_ACCEPTED: Message = {"type": "http.response.start", "status": 202, "headers": _HEADERS}
_LATER = frozenset({Reason.OVERLOADED, Reason.DATABASE_AWAY, Reason.KEYS_AWAY, Reason.OLD_AWAY})
_DUPLICATE: Message = {"type": "http.response.start", "status": 200, "headers": _HEADERS}

log = logging.getLogger(__name__)


class _Gone(Exception):
    """The sender left before its body was complete."""


class Webhooks:
    """Answers as the ledger did: 202 with the delivery's id, 200 with the first one's, or a problem.

    ``max_body`` is in bytes, ``max_held`` those of all bodies that are here and not yet answered. What an old service
    still acts on is its to answer, by ``mirrors``.
    """

    def __init__(self, intake: Intake, max_body: int, max_held: int, mirrors: Mirrors | None = None) -> None:
        self._intake = intake
        self._mirrors = mirrors
        self._max_body = max_body
        self._max_held = max(max_held, max_body)
        self._held = 0
        self._wanted = {
            name: {header.encode(): header for header in (*source.kept_headers, *source.secret_headers, TRACEPARENT)}
            for name, source in intake.sources.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source: Source | None = None
        body = b""
        try:
            source, account = self._find(scope["path"])
            method = scope["method"]
            mirrors = self._mirrors if self._mirrors is not None and self._mirrors.has(source.name) else None
            if mirrors is None and method not in source.methods:
                raise IntakeRefused(405, Reason.WRONG_METHOD, "Deliveries are posted.")
            headers, length, coding = self._headers(scope, source.name)
            if length > self._max_body:
                # Who waits for "100 Continue" has sent nothing yet that would have to be read first.
                await self._too_large(receive, 0 if b"expect" in dict(scope["headers"]) else DRAINED)
            if coding is not None and coding.lower() != b"chunked":
                await _drain(receive, DRAINED)
                raise IntakeRefused(501, Reason.UNKNOWN_CODING, "The only transfer coding known here is chunked.")
            body = await self._body(source, receive)
            self._held += len(body)
            request = Request(
                method, scope["raw_path"].decode("latin-1"), scope["query_string"], headers, body, wall(), account
            )
            if mirrors is None:
                accepted = await self._taken(source, request, send)
            elif await mirrors.forwarding(source) is not None:
                accepted = await mirrors.pass_on(source, request, scope, send)
            else:
                with mirrors.taking(source.name):
                    accepted = await self._taken(source, request, send)
            if accepted is None:
                return
        except IntakeRefused as refused:
            if refused.status in (404, 405, 413, 501):  # the others are counted
                self._intake.refusals.add(source.name if source else "unknown", refused.reason)
            await _refuse(send, refused, source)
        except _Gone:
            pass
        except Exception:
            log.exception("a delivery could not be handled")
            status = source.overload_status if source else 503
            await _refuse(
                send, IntakeRefused(status, Reason.OVERLOADED, "Something is wrong here; send again."), source
            )
        else:
            await _confirm(send, accepted, source.taken)
        finally:
            self._held -= len(body)

    async def _taken(self, source: Source, request: Request, send: Send) -> Accepted | None:
        """By the ledger; None: it was a question, and is answered."""
        if request.method not in source.methods:
            raise IntakeRefused(405, Reason.WRONG_METHOD, "Deliveries are posted.")
        if source.challenges and (reply := self._challenged(source, request)) is not None:
            await _say(send, reply)
            return None
        return await self._intake.accept(source, request)

    def _challenged(self, source: Source, request: Request) -> Reply | None:
        """What is answered to a vendor who asks who we are. Raises IntakeRefused, also for a GET that asks nothing."""
        try:
            reply = source.challenge(request)
        except IntakeRefused as refused:
            self._intake.refusals.add(source.name, refused.reason)
            raise
        if reply is None and request.method != "POST":
            raise IntakeRefused(405, Reason.WRONG_METHOD, "Deliveries are posted.")
        return reply

    def _find(self, path: str) -> tuple[Source, str | None]:
        name, slash, account = path[len(PREFIX) :].partition("/")
        source = self._intake.sources.get(name)
        if source is None or source.has_accounts != bool(slash):
            raise IntakeRefused(404, Reason.UNKNOWN_SOURCE, "No such source.")
        if not slash:
            return source, None
        if not account.isprintable() or "/" in account or not 0 < len(account) <= MAX_ACCOUNT:
            raise IntakeRefused(404, Reason.UNKNOWN_ACCOUNT, "No such account.")
        return source, account

    def _headers(self, scope: Scope, source: str) -> tuple[dict[str, str], int, bytes | None]:
        """The headers that the source reads, the length that the request claims, and its transfer coding."""
        wanted = self._wanted[source]
        headers: dict[str, str] = {}
        length = 0
        coding: bytes | None = None
        for name, value in scope["headers"]:
            known = wanted.get(name)
            if known is not None:
                text = value.decode("latin-1")
                headers[known] = f"{headers[known]}, {text}" if known in headers else text
            elif name == b"content-length" and value.isdigit():
                length = int(value[:20])
            elif name == b"transfer-encoding":
                coding = value if coding is None else coding + b"," + value
        return headers, length, coding

    async def _body(self, source: Source, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if (
            message["type"] == "http.request"
            and not message.get("more_body")
            and len(body) <= self._max_body
            and self._held + len(body) <= self._max_held
        ):
            return body
        return await self._rest(source, message, receive)

    async def _rest(self, source: Source, message: Message, receive: Receive) -> bytes:
        """A body that comes in pieces; its claimed length is not believed."""
        body = bytearray()  # and not a list of pieces, each of which costs more than its bytes
        try:
            while message["type"] == "http.request":
                body += message.get("body", b"")
                self._held += len(message.get("body", b""))
                if len(body) > self._max_body or self._held > self._max_held:
                    break
                if not message.get("more_body"):
                    return bytes(body)
                message = await receive()
            else:
                raise _Gone
            too_large = len(body) > self._max_body
        finally:
            self._held -= len(body)
        body.clear()
        unread = DRAINED if message.get("more_body") else 0
        if too_large:
            await self._too_large(receive, unread)
        self._intake.refusals.add(source.name, Reason.OVERLOADED)
        await _drain(receive, unread)
        raise IntakeRefused(source.overload_status, Reason.OVERLOADED, "Too much is waiting; send again.")

    async def _too_large(self, receive: Receive, unread: int) -> NoReturn:
        await _drain(receive, unread)
        raise IntakeRefused(413, Reason.TOO_LARGE, f"A delivery has at most {self._max_body} bytes.")


async def _drain(receive: Receive, most: int) -> None:
    while most > 0:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        most = most - len(message.get("body", b"")) if message.get("more_body") else 0


async def _confirm(send: Send, accepted: Accepted, reply: Reply | None) -> None:
    first = accepted.duplicate_of
    id_ = str(first or accepted.id).encode()
    if reply is not None:
        return await _say(send, reply, (b"delivery-id", id_))
    await send(_ACCEPTED if first is None else _DUPLICATE)
    await send({"type": "http.response.body", "body": b'{"id":"%s"}' % id_})


async def _say(send: Send, reply: Reply, *headers: tuple[bytes, bytes]) -> None:
    pairs = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    await send({"type": "http.response.body", "body": reply.body})


async def _refuse(send: Send, refused: IntakeRefused, source: Source | None) -> None:
    if source is not None and source.later is not None and refused.reason in _LATER:
        return await _say(send, source.later)
    body = problems.render(refused.status, refused.detail, refused.reason, page=refused.page)
    headers = problems.headers_of(refused.status) | {"content-length": str(len(body))}
    if refused.status == 405:
        headers["allow"] = "POST" if source is None else ", ".join(source.methods)
    if refused.status in (413, 501):
        headers["connection"] = "close"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
