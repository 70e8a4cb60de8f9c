"""What stands before every page: where a request comes from, and what a page may load and do."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp

from circuit_script.access import is_same_origin, read_cookie

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
PageOf = Callable[[bytes, str | None], str | None]

SOCKET = "/_nicegui_ws"
SAFE = ("GET", "HEAD", "OPTIONS")
SOCKETS = 4  # of one page at once: a browser that comes back may still have its former one
# What a page's own script takes for a reason to load the page again, which leads to the door: Engine.IO's opening, then
# Socket.IO's refusal.
SENT_AWAY = (
    '0{"sid":"-","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000}',
    '44{"message":"Implicit handshake failed"}',
)
# The frame's script library builds functions from text of ours ('unsafe-eval'), and styles elements in place. A script
# that somebody's data brought has no nonce.
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Guard:
    """The ASGI application around the dashboard's. ``url`` is the address by which people reach it, if it has one;
    ``page_of`` tells the page for which a socket may speak, by its query and the session's cookie."""

    def __init__(self, app: ASGIApp, page_of: PageOf, url: str = "") -> None:
        self._app = app
        self._page_of = page_of
        self._url = url
        self._sockets: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-prefix"]
        scope["headers"] = headers  # of a prefix only a proxy that we were told of could speak
        if self._needs_origin(scope) and not self._is_ours(headers):
            return await _refuse(scope, receive, send)
        if scope["type"] == "websocket":
            return await self._socket(scope, receive, send)
        if scope["path"].startswith(SOCKET):  # by requests, of any length, instead of a socket
            return await _refuse(scope, receive, send)
        await self._app(scope, receive, _Answer(send, self._url, scope["path"]))

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
        page = self._page_of(scope["query_string"], read_cookie(cookies, secure=self._url.startswith("https:")))
        if page is None or self._sockets[page] >= SOCKETS:
            return await _send_away(receive, send)
        self._sockets[page] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._sockets[page] -= 1
            if not self._sockets[page]:
                del self._sockets[page]

    def _needs_origin(self, scope: Scope) -> bool:
        return scope["type"] == "websocket" or scope["method"] not in SAFE or scope["path"].startswith(SOCKET)

    def _is_ours(self, headers: list[tuple[bytes, bytes]]) -> bool:
        said = {name: value.decode("latin-1") for name, value in headers}
        return is_same_origin(said.get(b"origin"), said.get(b"sec-fetch-site"), said.get(b"host"), self._url)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"This did not come from a page of ours."
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_away(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    for words in SENT_AWAY:
        await send({"type": "websocket.send", "text": words})
    await send({"type": "websocket.close", "code": 1000})


class _Answer:
    """Sends an answer on; a page's scripts get the nonce by which its policy knows them."""

    def __init__(self, send: Send, url: str, path: str) -> None:
        self._send = send
        self._https = url.startswith("https:")
        self._path = path
        self._start: Message | None = None  # of a page, which waits for its whole body
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *HEADERS]
            if self._https:
                headers.append((b"strict-transport-security", b"max-age=31536000"))
            message = {**message, "headers": headers}
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            if kind.startswith(b"text/html"):
                self._start = message
                return
            headers.append((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"))
            await self._send(message)
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._page(self._start)

    async def _page(self, start: Message) -> None:
        nonce = secrets.token_urlsafe(16)
        # Data in a page has its "<" written as "&lt;": what begins like this is the page's own.
        body = self._body.replace(b"<script", f'<script nonce="{nonce}"'.encode())
        policy = POLICY.format(nonce=nonce)
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        headers += [(b"content-length", str(len(body)).encode()), (b"content-security-policy", policy.encode())]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
