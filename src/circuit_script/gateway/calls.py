"""Calls of endpoints: from HTTP to the worker of this host, and back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from starlette.middleware.cors import CORSMiddleware

from circuit_script import problems
from circuit_script.access.cookies import without_sessions
from circuit_script.endpoints.client import Link, Stream, WorkerGone
from circuit_script.endpoints.idempotency import WITHOUT_EFFECT
from circuit_script.endpoints.protocol import Answer, Call, Offer
from circuit_script.endpoints.reply import PAGES
from circuit_script.endpoints.routes import MAX_PATH, Found, Routes
from circuit_script.execution.headers import UNSENT
from circuit_script.execution.outcome import HttpRequest
from circuit_script.gateway.answers import Answers, nothing
from circuit_script.gateway.bodies import Bodies, BodyRefused, Gone
from circuit_script.gateway.protocol import ABORT
from circuit_script.gateway.streaming import pass_on
from circuit_script.gateway.webhooks import Receive, Scope, Send
from circuit_script.tenants.callers import Header, NotAdmitted, admit, without_keys
from circuit_script.tenants.keys import KeyRing

MAX_CALLS = 300  # at once; each takes a connection to the worker
GRACE = 2.0  # seconds after its deadline in which the worker must have said so
FOUND = "circuit.found"  # in a request's scope
READ_PATIENCE = 60.0  # seconds in which a caller must have read a whole answer
PAGE = "endpoint-call"
EXPOSED = ("execution-id", "idempotent-replayed", "retry-after")

log = logging.getLogger(__name__)
T = TypeVar("T")


class Refused(Exception):
    """An answer that needs no worker."""

    def __init__(self, status: int, reason: str, detail: str, **headers: str) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers
        super().__init__(detail)


class Endpoints:
    """An ASGI application: what the live release offers. ``expected`` says that there is something to offer."""

    def __init__(
        self,
        *,
        link: Link,
        ring: KeyRing,
        bodies: Bodies,
        answers: Answers,
        origins: Sequence[str] = (),
        expected: bool = False,
    ) -> None:
        self._link = link
        self._ring = ring
        self._bodies = bodies
        self._expected = expected
        self._answers = answers
        self._calls = 0
        self._routes = Routes([])
        self._routes_of: object = None
        self._app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]] = self._answer
        if origins:
            self._app = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
            )

    def find(self, scope: Scope) -> bool:
        """Whether this path is ours: an endpoint's, or one that a worker would have to say more of."""
        news = self._link.news
        if news is None:
            return self._expected
        if news is not self._routes_of:
            self._routes, self._routes_of = Routes(news.offers), news
            self._expected = bool(news.offers)  # while the worker is away for a moment
        found = scope[FOUND] = self._routes.find(scope["method"], scope["path"])
        return found is not None or len(scope["path"]) > MAX_PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._call(scope, receive, send)
        except (Refused, NotAdmitted) as refused:
            await self._refuse(scope, send, refused)
        except BodyRefused as refused:
            closing = {"connection": "close"} if refused.status in (413, 501) else {}
            await self._refuse(scope, send, Refused(refused.status, refused.reason, refused.detail, **closing))
        except Gone:
            pass

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        offer, method = self._offer(scope)
        headers: list[Header] = scope["headers"]
        if sum(name == b"host" for name, _ in headers) > 1:
            raise Refused(400, "host", "The request has more than one Host header.")
        tenant = await admit(self._ring, headers, offer.spec.auth)
        key = None if method in WITHOUT_EFFECT else _only(headers, b"idempotency-key")
        if self._calls >= MAX_CALLS:
            raise Refused(503, "overloaded", "Too many calls are under way.")
        self._calls += 1
        try:
            async with self._bodies.of(scope, receive) as body:
                request = _request(scope, method, headers, body)
                call = Call(offer.name, tenant, request, offer.spec.deadline, key, offer.spec.auth)
                await self._pass(scope, receive, send, call)
        finally:
            self._calls -= 1

    def _offer(self, scope: Scope) -> tuple[Offer, str]:
        found: Found | None = scope.get(FOUND)
        if len(scope["path"]) > MAX_PATH:
            raise Refused(414, "long-path", f"A path has up to {MAX_PATH:,} characters.")
        if found is None:
            raise Refused(503, "no-worker", "The worker of this host is starting.", **{"retry-after": "1"})
        if found.offer is None:
            if scope["method"] == "OPTIONS":
                raise Refused(204, "", "", allow=found.allow)
            raise Refused(405, "wrong-method", found.wrong_method, allow=found.allow)
        return found.offer, found.method

    async def _refuse(self, scope: Scope, send: Send, refused: Refused | NotAdmitted) -> None:
        headers = dict(refused.headers)
        body = b""
        if refused.status != 204:
            headers = problems.headers_of(refused.status) | headers
            body = problems.render(refused.status, refused.detail, refused.reason, page=PAGES.get(refused.reason, PAGE))
        await self._answers.send(scope, send, Answer(refused.status, list(headers.items()), body))

    async def _pass(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        """Make the call, unless the caller hangs up before."""
        gone = asyncio.ensure_future(_gone(receive))
        try:
            try:
                async with asyncio.timeout(call.seconds + GRACE):
                    answer = await _unless(gone, self._link.call(call))
            except WorkerGone as away:
                words = "The worker stopped before it answered: the call may or may not have counted."
                if not away.asked:
                    words = "No worker answers on this host: nothing was executed."
                raise Refused(
                    503, "worker-gone" if away.asked else "no-worker", words, **{"retry-after": "1"}
                ) from None
            except TimeoutError:
                words = "The worker did not answer in time: the call may or may not have counted."
                raise Refused(504, "worker-silent", words) from None
            try:
                async with asyncio.timeout(READ_PATIENCE + (call.seconds if isinstance(answer, Stream) else 0)):
                    if isinstance(answer, Stream):
                        await pass_on(answer, self._answers.paced(scope, send), gone, silent=scope["method"] == "HEAD")
                    else:
                        await self._answers.send(scope, send, answer)
            except TimeoutError:  # who does not read must not hold its connection for ever
                scope.get(ABORT, nothing)()
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


async def _unless(gone: asyncio.Future[None], work: Coroutine[Any, Any, T]) -> T:
    """Its result. Raises Gone, and cancels it, when the caller hangs up first."""
    task = asyncio.ensure_future(work)
    both: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, WorkerGone):
                await task
        del task, both  # what it raised holds us, and we must not hold it


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _only(headers: Sequence[Header], wanted: bytes) -> str | None:
    found = [value for name, value in headers if name == wanted]
    if len(found) > 1:
        raise Refused(400, "idempotency-key", "The request has more than one Idempotency-Key.")
    return found[0].decode("latin-1") if found else None


def _request(scope: Scope, method: str, headers: Sequence[Header], body: bytes) -> HttpRequest:
    """The request as an app may see it: without what concerns this connection only, with its true length."""
    named = {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")} - {
        b"host"
    }
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in without_sessions(without_keys(headers))
        if name not in named
    ]
    kept = [(name, value) for name, value in kept if name not in UNSENT]
    if body or method in ("POST", "PUT", "PATCH"):
        kept.append(("content-length", str(len(body))))
    client = scope.get("client")
    return HttpRequest(
        method=method,
        path=scope["raw_path"].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=tuple(kept),
        body=body,
        scheme=scope["scheme"],
        client=client[0] if client else "",
    )
