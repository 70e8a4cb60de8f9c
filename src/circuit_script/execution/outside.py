"""What a child asks of the world outside, whose answer it needs now: counted, bounded, journaled."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import httpx
import msgspec

from circuit_script.errors import RequestRefused
from circuit_script.execution.outcome import Work
from circuit_script.governor import LimitExceeded, Meter

MAX_HEADERS = 100
GZIP = 16 + zlib.MAX_WBITS


class Journal(Protocol):
    """Replies of calls that already left. ``owner`` is the index of the record, None for the whole batch."""

    def find(self, owner: int | None, key: bytes) -> bytes | None: ...

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None: ...


class Outside:
    """One execution's callouts."""

    __slots__ = ("_calls", "_client", "_journal", "_meter", "_remaining", "_work")

    def __init__(
        self, work: Work, *, meter: Meter, journal: Journal, client: httpx.AsyncClient, remaining: Callable[[], float]
    ) -> None:
        self._work = work
        self._meter = meter
        self._journal = journal
        self._client = client
        self._remaining = remaining
        self._calls: Counter[tuple[int | None, bytes]] = Counter()

    async def connect(self, asked: dict[str, Any]) -> None:
        self._meter.spend("callouts")

    async def http(self, asked: dict[str, Any]) -> dict[str, Any]:
        owner = self._work.owner(asked.get("record"))
        if owner is None and len(self._work.records) == 1:
            owner = 0
        fingerprint = hashlib.blake2b(msgspec.msgpack.encode([
            asked["method"], asked["url"], sorted((asked.get("headers") or {}).items()), asked.get("body"),
        ]), digest_size=16).digest()  # fmt: skip
        self._calls[owner, fingerprint] += 1
        key = fingerprint + self._calls[owner, fingerprint].to_bytes(4, "big")
        if (known := self._journal.find(owner, key)) is not None:
            return dict(msgspec.msgpack.decode(known))
        self._meter.spend("callouts")
        answer = await self._fetch(asked)
        if answer["status"] < 400:  # what failed may succeed the next time
            await self._journal.keep(owner, key, msgspec.msgpack.encode(answer))
        return answer

    async def _fetch(self, asked: dict[str, Any]) -> dict[str, Any]:
        ceiling = self._work.limits.callout_bytes
        body = asked.get("body")
        if body is not None and len(body) > ceiling:
            raise self._meter.exceeded(LimitExceeded("callout_bytes", len(body), ceiling))
        patience = max(0.05, min(float(asked.get("timeout") or 30.0), self._remaining()))
        headers = {"accept-encoding": "gzip", **(asked.get("headers") or {})}
        try:
            request = self._client.stream(
                asked["method"], asked["url"], headers=headers, content=body, timeout=patience
            )
            async with request as response:
                received = await _received(response, ceiling)
                kept = dict(list(response.headers.items())[:MAX_HEADERS])
                return {"status": response.status_code, "headers": kept, "body": received}
        except LimitExceeded as breach:
            raise self._meter.exceeded(breach) from None
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error) as error:
            raise RequestRefused(f"{asked['method']} {asked['url']}: {type(error).__name__}: {error}.") from None


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
VERBS: Mapping[str, Callable[[Outside, dict[str, Any]], Awaitable[Any]]] = {
    "connect": Outside.connect,
    "http": Outside.http,
}


async def _received(response: httpx.Response, ceiling: int) -> bytes:
    """The body, decompressed here: a few bytes may stand for gigabytes, so the ceiling is held while it grows.

    Another coding than gzip is left to who asked for it.
    """
    packed = response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
    unpack = zlib.decompressobj(wbits=GZIP)
    body = bytearray()
    async for chunk in response.aiter_raw():
        while chunk:
            body += unpack.decompress(chunk, ceiling + 1 - len(body)) if packed else chunk
            if len(body) > ceiling:
                raise LimitExceeded("callout_bytes", len(body), ceiling)
            chunk = unpack.unconsumed_tail if packed else b""
    if packed:
        del response.headers["content-encoding"]
    return bytes(body)
