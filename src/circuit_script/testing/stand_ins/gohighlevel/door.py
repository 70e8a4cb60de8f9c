"""The stand-in's HTTP door: what is looked at before an operation runs, and what goes wrong on purpose.

In the vendor's order: the token (401), the ``Version`` header (401 without one, 422 with a wrong one), the scope (401),
the limits (429), then the operation.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from circuit_script.testing.stand_ins.gohighlevel.access import Grant, Tokens
from circuit_script.testing.stand_ins.gohighlevel.contract import Contract
from circuit_script.testing.stand_ins.gohighlevel.limits import Limits
from circuit_script.testing.stand_ins.gohighlevel.routes import Asked, find
from circuit_script.testing.stand_ins.gohighlevel.world import Doc, Said, World, unprocessable

How = Literal["429", "500", "drop_before", "drop_after", "401", "slow"]
MAX_BODY = 8 * 1024 * 1024
V3 = "v3"  # what the vendor's own client asks for; here it has the same paths and shapes
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Heard:
    """One request and what became of it; status 0: its connection was cut."""

    method: str
    path: str
    status: int
    version: str | None
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Door:
    """An ASGI application. ``faults`` are what happens to the next requests, one each, ``latency`` in seconds."""

    world: World
    tokens: Tokens
    limits: Limits
    contract: Contract | None = None
    latency: float = 0.0
    faults: deque[How] = field(default_factory=deque)
    heard: list[Heard] = field(default_factory=list)
    after: Callable[[], None] = lambda: None

    def fail_next(self, how: How, times: int = 1) -> None:
        self.faults.extend([how] * times)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        raw = await _body(receive)
        query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        if self.latency:
            await asyncio.sleep(self.latency)
        token = path.startswith("/oauth/token")
        fault = self.faults.popleft() if self.faults and not token else None
        grant: Grant | None = None
        account = ""
        if fault == "drop_before":
            return await self._cut(method, path, headers, raw, receive)
        try:
            if fault == "500":
                raise Said(500, "Internal server error")
            if fault == "401":
                raise Said(401, "Invalid JWT")
            if path == "/v2/oauth/chooselocation":
                return await self._agreed(dict(query), send)
            found = find(method, path)
            if found is None:
                raise Said(404, f"Cannot {method} {path}")
            route, groups = found
            if route.version is not None:
                grant = self.tokens.of(headers.get("authorization"))
                account = grant.account
                version = headers.get("version")
                if version is None:
                    raise Said(401, "version header was not found.")
                if version not in (route.version, V3):
                    raise unprocessable(f"version must be one of the following values: {route.version}")
                if route.scope is not None and route.scope not in grant.scopes.split():
                    raise Said(401, "The token is not authorized for this scope.")
                if fault == "429" or not self.limits.take(account):
                    raise Said(429, "Too many requests")
            status, answer = route.run(Asked(self.world, self.tokens, groups, dict(query), raw, grant))
        except Said as said:
            status, answer = said.status, said.body
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            status, answer = 422, unprocessable(f"{type(error).__name__}: {error}").body
        body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if self.contract is not None and fault is None and headers.get("version") != V3:
            self.contract.check(method, path, query, headers, raw, status, body)
        self.after()
        if fault == "drop_after":
            return await self._cut(method, path, headers, raw, receive)
        self.heard.append(Heard(method, path, status, headers.get("version"), raw))
        sent = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        if account:
            sent += [(name.encode(), value.encode()) for name, value in self.limits.headers(account).items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def _agreed(self, query: dict[str, str], send: Send) -> None:
        """A person who was sent here has chosen the first location, and agreed: back with a code."""
        redirect = query.get("redirect_uri", "")
        code = self.tokens.code(next(iter(self.world.locations)), redirect)
        where = f"{redirect}?{urlencode({'code': code, 'state': query.get('state', '')})}"
        headers = [(b"location", where.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 302, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _cut(self, method: str, path: str, headers: Doc, raw: bytes, receive: Receive) -> None:
        """Close the connection without an answer."""
        self.heard.append(Heard(method, path, 0, headers.get("version"), raw))
        receive.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's request; ASGI has no word for it
        while (await receive())["type"] != "http.disconnect":
            pass


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > MAX_BODY:
            return bytes(body)
