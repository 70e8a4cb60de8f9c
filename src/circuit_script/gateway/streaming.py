"""Streamed answers on their way out: at the caller's pace, and never silent for long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from circuit_script import problems
from circuit_script.endpoints.client import Stream, WorkerGone
from circuit_script.endpoints.reply import EVENTS, PAGES, is_between_events
from circuit_script.gateway.webhooks import Send

KEEP_ALIVE = 15.0  # seconds of silence, after which a comment keeps proxies from closing the connection
COMMENT = b": keep-alive\n\n"
AWAY = "The worker stopped: nothing of this call was committed, unless it had ended."


async def pass_on(stream: Stream, send: Send, gone: asyncio.Future[None], *, silent: bool = False) -> None:
    """Hand on each piece as it comes, until the end or until the caller hangs up. ``silent`` leaves the body out."""
    events = any(name == "content-type" and value.startswith(EVENTS) for name, value in stream.headers)
    await send({"type": "http.response.start", "status": stream.status, "headers": _headers(stream, events)})
    tail = b"\n\n"
    following: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(stream.next())
            both: set[asyncio.Future[Any]] = {following, gone}
            await asyncio.wait(both, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
            between = is_between_events(tail)
            if following.done():
                try:
                    piece = following.result()
                except WorkerGone:
                    return await _broken(send, events and between)
                following = None
                if piece is None:
                    break
                tail = (tail + piece[-4:])[-4:]
            elif gone.done():
                return None
            elif events and between:
                piece = COMMENT
            else:
                continue
            if not silent:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if stream.complete:
            await send({"type": "http.response.body", "body": b""})
    finally:
        stream.close()
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, WorkerGone):
                await following
            del following, both  # what it raised holds us, and we must not hold it


async def _broken(send: Send, tell: bool) -> None:
    """The worker is gone. Where events were sent, one more says so; otherwise the answer just stays incomplete."""
    if tell:
        problem = problems.render(503, AWAY, "worker-gone", page=PAGES["worker-gone"])
        await send({"type": "http.response.body", "body": b"event: error\ndata: %b\n\n" % problem})


def _headers(stream: Stream, events: bool) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stream.headers]
    names = {name for name, _ in headers}
    if events:  # neither caches nor proxies may hold events back
        headers += [
            (name, value)
            for name, value in ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
            if name not in names
        ]
    return headers
