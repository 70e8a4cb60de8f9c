"""One old service: what it is given is what came, and what it says goes back as it is.

Path, query, headers and body go on unchanged, but for what belongs to one connection only (RFC 9110, 7.6.1). An answer
of up to 64 KB is read whole before any of it goes back, so that one that breaks off makes the sender send again; of a
larger one nothing is held but the piece on its way. Redirects are not followed, cookies not kept.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from circuit_script.errors import ConfigError, IntakeRefused
from circuit_script.events.mirrors import OldAnswer
from circuit_script.events.sources import Reason, Request
from circuit_script.gateway.protocol import ABORT
from circuit_script.gateway.upstream import Broken, Headers, Unsendable, Upstream, Wire, head_of
from circuit_script.gateway.webhooks import Scope, Send
from circuit_script.settings_mirror import MirrorSettings

MOST_AT_ONCE = 100  # requests to one old service
MOST_WAITING = 300  # that wait for their turn; they hold their connections to us
WHOLE = 64 * 1024  # bytes of an answer that is held, and kept

# What belongs to one connection; each side has its own length and host.
_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
_NOT_SENT = _HOP | {b"host", b"content-length", b"expect"}
_NOT_RETURNED = _HOP | {b"content-length", b"date"}  # the gateway says the date itself
_ACCOUNT = b"{account}"


class OldAway(Exception):
    """It was not reached, or did not answer in time, or broke off."""


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    headers: Headers
    length: bytes | None

    def value(self, name: bytes) -> str:
        return next((value.decode("latin-1") for each, value in self.headers if each == name), "")


class Mirror:
    """Forwards deliveries of one source."""

    def __init__(self, source: str, settings: MirrorSettings) -> None:
        """Raises ConfigError where the address stands in a variable that says none."""
        try:
            address = settings.address
        except ValueError as error:
            raise ConfigError(f"[mirror.{source}] url: {error}.", cure="Set it, and start again.") from None
        self.timeout = settings.timeout
        self._upstream = Upstream(httpx.URL(address.replace("{account}", "account")))
        self._target = _target(address)
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting = 0

    def close(self) -> None:
        self._upstream.close()

    async def pass_on(self, request: Request, scope: Scope, send: Send) -> OldAnswer:
        """Forward it, and send back what the old service says. Raises OldAway where nothing has been sent back, and
        IntakeRefused for what cannot be forwarded or must wait."""
        if self._waiting >= MOST_WAITING:
            raise OldAway("too many deliveries wait for it")
        head = self._made(request, scope)
        began = time.monotonic()
        returning = _Returning(scope, send)
        try:
            async with asyncio.timeout(self.timeout):
                self._waiting += 1
                try:
                    await self._turn.acquire()
                finally:
                    self._waiting -= 1
                try:
                    kept = await self._exchange(head, request, returning)
                finally:
                    self._turn.release()
        except (Broken, TimeoutError) as error:
            if returning.begun:  # half an answer must not look like a whole one
                returning.abort()
                return OldAnswer(0, "", b"", 1000 * (time.monotonic() - began))
            raise OldAway(" ".join(str(error).split()) or type(error).__name__) from error
        answered, body = kept
        ms = 1000 * (time.monotonic() - began)
        return OldAnswer(answered.status, answered.value(b"content-type")[:200], _plain(body, answered), ms)

    def _made(self, request: Request, scope: Scope) -> bytes:
        """The head of what the old service is sent."""
        headers = _end_to_end(scope["headers"], _NOT_SENT)
        names = {name for name, _ in headers}
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if host and b"x-forwarded-host" not in names:
            headers.append((b"x-forwarded-host", host))
        headers.insert(0, (b"host", self._upstream.host))
        if request.body or request.method not in ("GET", "HEAD"):
            headers.append((b"content-length", b"%d" % len(request.body)))
        target = self._target
        if _ACCOUNT in target:
            if request.account in (".", ".."):  # which would name another place of the old service
                raise IntakeRefused(404, Reason.UNKNOWN_ACCOUNT, "No such account.")
            target = target.replace(_ACCOUNT, quote(request.account or "", safe="").encode())
        if request.query:
            target += (b"&" if b"?" in target else b"?") + request.query
        try:
            return head_of(request.method, target, headers)
        except Unsendable as error:
            raise IntakeRefused(
                400, Reason.UNFORWARDABLE, "The request's headers or path cannot be sent on."
            ) from error

    async def _exchange(self, sent: bytes, request: Request, returning: _Returning) -> tuple[_Head, bytes]:
        wire = await self._upstream.send(sent, request.body, head_only=request.method == "HEAD")
        try:
            await wire.answered()
            length = next((value for name, value in wire.headers if name == b"content-length"), None)
            head = _Head(wire.status, _end_to_end(wire.headers, _NOT_RETURNED), length)
            body = bytearray()
            while piece := await wire.piece():
                body += piece
                if len(body) > WHOLE:
                    break
            else:
                await returning.whole(head, bytes(body))
                return head, bytes(body)
            kept = bytes(body[:WHOLE])
            await returning.piecewise(head, bytes(body), wire)
            return head, kept
        finally:
            self._upstream.release(wire)


class _Returning:
    """The way back to who sent the delivery."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.begun = False
        self._scope = scope
        self._send = send

    def abort(self) -> None:
        if (end := self._scope.get(ABORT)) is not None:
            end()

    async def whole(self, head: _Head, body: bytes) -> None:
        headers = list(head.headers)
        if self._scope["method"] == "HEAD" or head.status == 304:
            headers += [] if head.length is None else [(b"content-length", head.length)]
        elif head.status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        await self._start(head.status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def piecewise(self, head: _Head, first: bytes, wire: Wire) -> None:
        length = [] if head.length is None else [(b"content-length", head.length)]
        await self._start(head.status, [*head.headers, *length])
        await self._piece(first)
        while piece := await wire.piece():
            await self._piece(piece)
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: Headers) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _piece(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)  # so that the connection takes it, and says whether it wants more


def _target(address: str) -> bytes:
    """Path and query of the address, with the place of the account as it was written."""
    url = httpx.URL(address.replace("{account}", "account-goes-here"))
    return url.raw_path.replace(b"account-goes-here", _ACCOUNT)


def _end_to_end(headers: Sequence[tuple[bytes, bytes]], without: frozenset[bytes]) -> Headers:
    """What is meant for the other end. A sender may name more that is not, and so only takes from what is its own."""
    named = {
        each.strip().lower() for name, value in headers if name.lower() == b"connection" for each in value.split(b",")
    }
    return [(name.lower(), value) for name, value in headers if name.lower() not in without | named]


def _plain(body: bytes, head: _Head) -> bytes:
    """Its first bytes as text, where they were compressed as most are; a bomb is cut off like any other."""
    match head.value(b"content-encoding").strip().lower():
        case "gzip" | "x-gzip" | "deflate" as coding:
            try:
                return zlib.decompressobj(47 if "gzip" in coding else 15).decompress(body, WHOLE)
            except zlib.error:
                return body
        case _:
            return body
