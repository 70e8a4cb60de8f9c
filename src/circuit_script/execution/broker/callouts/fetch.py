"""One callout from its leaving to its answer: inside its time, tried again where it may be, its body bounded."""

from __future__ import annotations

import asyncio
import random
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import httpx

from circuit_script.errors import CalloutRefused, RequestRefused
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.gunzip import Gunzip
from circuit_script.execution.broker.callouts.resolver import Wait, waiting
from circuit_script.governor import LimitExceeded

ATTEMPTS = 3
BACKOFF = 0.25  # seconds; doubled with each attempt, and then anything up to it
LONGEST_WAIT = 10.0  # seconds that a child waits for another attempt; beyond it the handler hears of the failure
FAIR = 1.0  # seconds; who gave a host less cannot say that it failed
MAX_HEADERS = 100
MAX_LINE = 500  # characters of what is said of a failure
SECRET = re.compile(r"key|token|secret|sig|pass|auth|code|session", re.IGNORECASE)  # parameters of an address
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
REFUSED = frozenset({"CONNECT", "TRACE"})  # methods: one makes a tunnel, one tells what it was sent
# Headers that we say ourselves: of a body that is whole, a connection that is ours and a host that was checked.
OURS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "trailers", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
TO_PROXIES = "proxy-"
AGAIN = frozenset({429, 502, 503, 504})
UNWELL = frozenset({500, 502, 503, 504})
# What the host has done, by the names of httpx; the rest is the doing of who asked, or ours.
THEIRS = frozenset(
    {"ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "CloseError",
     "RemoteProtocolError"}
)  # fmt: skip

Headers = Sequence[tuple[str, str]]
Sleep = Callable[[float], Awaitable[None]]
SpendQuota = Callable[[str], Awaitable[None]]


class Named(Protocol):
    """The secrets of this process, each with the hosts that it may be sent to. Raises SecretMissing,
    SecretsUnavailable."""

    async def get(self, tenant: str, name: str) -> str: ...

    async def hosts(self, tenant: str, name: str) -> tuple[str, ...]: ...


async def no_quota(tenant: str) -> None:
    """The quota of a tenant without one."""


@dataclass(frozen=True, slots=True)
class CalloutParts:
    """What the callouts of one worker share. ``spend`` counts one callout of a tenant against its quota, and raises
    RequestRefused when there is none left; ``attempts`` is how often a callout that may be repeated leaves at most;
    ``reaches`` whether what libraries send leaves at all; ``secrets`` are those that handlers may name."""

    guard: Guard = field(default_factory=Guard)
    breakers: Breakers = field(default_factory=Breakers)
    spend: SpendQuota = no_quota
    attempts: int = ATTEMPTS
    sleep: Sleep = asyncio.sleep
    reaches: bool = True
    secrets: Named | None = None


@dataclass(frozen=True, slots=True)
class Callout:
    """One request. ``seconds`` bounds all of it, with its repetitions; ``ceiling`` is of the body that comes back."""

    method: str
    url: httpx.URL
    headers: Headers
    body: bytes | None
    seconds: float
    ceiling: int
    attempts: int = ATTEMPTS

    @property
    def repeatable(self) -> bool:
        """Whether nothing happens twice when it leaves twice."""
        return self.method in IDEMPOTENT or any(name.lower() == "idempotency-key" for name, _ in self.headers)

    @property
    def host(self) -> str:
        """The host, with its port where it is not the usual one, as the breaker knows it."""
        return self.url.netloc.decode("ascii", "replace")

    @property
    def shown(self) -> str:
        """What it is, for a person: without what may be a secret in its address."""
        bare = self.url.copy_with(userinfo=b"", query=None, fragment=None)
        query = "&".join(
            f"{name}={'…' if SECRET.search(name) else value}" for name, value in self.url.params.multi_items()
        )
        return f"{self.method} {bare}{'?' if query else ''}{query}"[:MAX_LINE]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back."""

    status: int
    headers: Headers
    body: bytes

    def told(self) -> dict[str, Any]:
        """As the child gets it."""
        return {"status": self.status, "headers": [list(pair) for pair in self.headers], "body": self.body}


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing came back. ``kind`` is the name of httpx's exception, ``said`` its words; ``ours`` when the time ended
    before the host was asked."""

    kind: str
    said: str
    ours: bool = False

    @property
    def again(self) -> bool:
        """Whether another attempt may find the host well; one that used up its time has none left."""
        return self.kind in ("ConnectError", "ReadError", "WriteError", "RemoteProtocolError", "CloseError")

    def told(self) -> dict[str, Any]:
        return {"failed": self.kind, "said": self.said}


Result = Answered | NoAnswer


class Fetcher:
    """Sends the callouts of one execution. ``spend`` counts one that leaves, and raises what forbids it; ``left`` says
    whether another one would be allowed."""

    __slots__ = ("_client", "_left", "_parts", "_spend", "_tenant")

    def __init__(
        self,
        tenant: str,
        client: httpx.AsyncClient,
        parts: CalloutParts,
        *,
        spend: Callable[[], Awaitable[None]],
        left: Callable[[], bool],
    ) -> None:
        self._tenant = tenant
        self._client = client
        self._parts = parts
        self._spend = spend
        self._left = left

    async def fetch(self, callout: Callout) -> Result:
        """The answer, of whatever status, or that there was none.

        Raises RequestRefused for what may not leave, LimitExceeded for a body over the ceiling.
        """
        if callout.method in REFUSED:
            raise RequestRefused(f"{callout.shown}: callouts are not made with {callout.method}.")
        ends = time.monotonic() + callout.seconds
        result = await self._once(callout, ends)
        for attempt in range(1, min(callout.attempts, self._parts.attempts)):
            wait = _wait(result, attempt) if callout.repeatable else None
            if wait is None or wait >= ends - time.monotonic() or not self._left():
                break
            await self._parts.sleep(wait)
            try:
                result = await self._once(callout, ends)
            except RequestRefused:
                break  # the circuit opened, or the quota ended: the last answer stands
        return result

    async def _once(self, callout: Callout, ends: float) -> Result:
        breakers, tenant, host = self._parts.breakers, self._tenant, callout.host
        breakers.ask(tenant, host)
        told = False
        try:
            await self._spend()
            seconds = max(0.0, ends - time.monotonic())
            result = await self._sent(callout, seconds)
            told = (well := _well(result, seconds)) is not None
            if told:
                (breakers.succeeded if well else breakers.failed)(tenant, host)
            return result
        finally:
            if not told:
                breakers.gave_up(tenant, host)

    async def _sent(self, callout: Callout, seconds: float) -> Result:
        """One attempt. The time is of all of it: a body that comes drop by drop does not outlive it."""
        headers = [pair for pair in callout.headers if not _is_ours(pair[0])]
        if _asks_plain(headers):
            headers.insert(0, ("accept-encoding", "gzip"))
        token = waiting.set(wait := Wait())
        try:
            async with asyncio.timeout(seconds):
                request = self._client.build_request(
                    callout.method,
                    callout.url,
                    headers=headers,
                    content=callout.body,
                    timeout=seconds,
                    extensions={"tenant": self._tenant},
                )
                response = await self._client.send(request, stream=True)
                try:
                    body = await _received(response, callout.ceiling)
                    kept = [(_text(name), _text(value)) for name, value in response.headers.raw[:MAX_HEADERS]]
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            return _late(callout, error, wait, seconds)
        except CalloutRefused as refused:
            raise CalloutRefused(
                f"{callout.shown}: {refused.detail}", cure=refused.cure, retry_after=refused.retry_after
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error) as error:
            kind = type(error).__name__ if isinstance(error, httpx.HTTPError) else "DecodingError"
            return NoAnswer(kind, f"{callout.shown}: {type(error).__name__}: {error}"[:MAX_LINE])
        finally:
            waiting.reset(token)
        unpacked = _is_packed(response)
        if unpacked:
            kept = [pair for pair in kept if pair[0].lower() not in ("content-encoding", "content-length")]
        return Answered(response.status_code, kept, body)


def _well(result: Result, seconds: float) -> bool | None:
    """Whether the host is well, after one attempt that had so many seconds; None when it tells nothing of the host."""
    if isinstance(result, Answered):
        return result.status not in UNWELL
    if result.ours or result.kind not in THEIRS:
        return None
    return False if seconds >= FAIR or result.again else None


def _late(callout: Callout, error: Exception, wait: Wait, seconds: float) -> NoAnswer:
    """What is said when the time was over. The time of connecting is over before that of the whole, by a moment."""
    if wait.ours:
        said = f"{callout.shown}: waited {seconds:.2f} s for {wait.ours}"
        return NoAnswer("ConnectTimeout", said[:MAX_LINE], ours=True)
    if not isinstance(error, httpx.TimeoutException):
        return NoAnswer("ReadTimeout", f"{callout.shown}: no whole answer within {seconds:.2f} s")
    kind = type(error).__name__
    return NoAnswer(kind, f"{callout.shown}: {kind}: {str(error) or f'nothing within {seconds:.2f} s'}")


def _wait(result: Result, attempt: int) -> float | None:
    """Seconds until the next attempt, with full jitter; None when there is none."""
    jitter = random.uniform(0, BACKOFF * 2**attempt)
    if isinstance(result, NoAnswer):
        return jitter if result.again else None
    if result.status not in AGAIN:
        return None
    asked = _retry_after({name.lower(): value for name, value in result.headers})
    wait = jitter + asked
    return wait if wait <= LONGEST_WAIT else None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the host asks us to wait; 0 when it says nothing that can be read."""
    said = headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    return 0.0


def _is_ours(header: str) -> bool:
    name = header.strip().lower()
    return name in OURS or name.startswith(TO_PROXIES)


def _asks_plain(headers: Headers) -> bool:
    return not any(name.lower() == "accept-encoding" for name, _ in headers)


def _is_packed(response: httpx.Response) -> bool:
    return response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


async def _received(response: httpx.Response, ceiling: int) -> bytes:
    """The body, decompressed here. The ceiling is of what comes, and of what it is unpacked to.

    Another coding than gzip is left to who asked for it. Raises LimitExceeded, zlib.error.
    """
    packed = Gunzip(ceiling) if _is_packed(response) else None
    body = bytearray()
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > ceiling:
            raise LimitExceeded("callout_bytes", size, ceiling)
        if packed is None:
            body += chunk
        elif not packed.feed(chunk):
            break
    return bytes(body) if packed is None else packed.end()
