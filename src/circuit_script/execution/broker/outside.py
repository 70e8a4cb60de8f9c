"""What a child asks of the world outside, whose answer it needs now: checked, counted, bounded, journaled."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import httpx
import msgspec

from circuit_script.errors import CalloutRefused, IrreversibleRefused, QuotaExceeded, RequestRefused
from circuit_script.execution.broker.callouts.addresses import Address, parsed
from circuit_script.execution.broker.callouts.fetch import Answered, Callout, CalloutParts, Fetcher, Result
from circuit_script.execution.broker.callouts.filling import Filling, without
from circuit_script.execution.broker.callouts.hosts import LONGEST_HOST, canonical
from circuit_script.execution.broker.choices import READING, Choices
from circuit_script.execution.broker.traced import address
from circuit_script.execution.irreversible import CONNECT, HTTP
from circuit_script.execution.outcome import Work, spread
from circuit_script.governor import LimitExceeded, Meter
from circuit_script.telemetry.spans import Recorder, current
from circuit_script.telemetry.w3c import HEADER

SHORTEST = 0.05  # seconds that a callout is given at least
MAX_NAMES = 32  # that a library has looked up, and a connection may be meant for


class Journal(Protocol):
    """Replies of calls that already left. ``owner`` is the index of the record, None for the whole batch. One that has
    ``heard`` is also told of those that are not kept, as another attempt may get better ones; one that has ``paid``,
    what a model's answer cost that it gave again."""

    def find(self, owner: int | None, key: bytes) -> bytes | None: ...

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None: ...


class Outside:
    """One execution's callouts: those it asks us to make (``http``), and those that a library makes by itself, of
    which it tells us first (``request``, ``connect``)."""

    __slots__ = ("_calls", "_fetcher", "_guard", "_journal", "_meter", "_parts", "_remaining", "_work", "choices",
                 "put_off", "recorder")  # fmt: skip

    def __init__(
        self,
        work: Work,
        *,
        meter: Meter,
        journal: Journal,
        client: httpx.AsyncClient,
        remaining: Callable[[], float],
        parts: CalloutParts,
    ) -> None:
        self.put_off: set[float] = set()  # the seconds for which something waits for its tenant's quota
        self.recorder: Recorder | None = None  # what requests leave with tells of the trace that they belong to
        self.choices = Choices(work)
        self._work = work
        self._meter = meter
        self._journal = journal
        self._remaining = remaining
        self._parts = parts
        self._calls: Counter[tuple[int | None, bytes]] = Counter()
        tenant, ceiling, usage = work.tenant, work.limits.callouts, meter.usage
        self._guard = parts.guard.of(tenant)
        self._fetcher = Fetcher(
            tenant,
            client,
            parts,
            spend=lambda: _spend(meter, parts, tenant),  # of no method: what holds its own lingers
            left=lambda: usage.callouts < ceiling,
        )

    async def http(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a callout for the child. Its answer is that of an earlier attempt, if the record got one."""
        owner = self._owner(asked)
        bare, filling = self._callout(asked), Filling.of(asked.get("secrets"))
        callout = filling.shown(bare) if filling.places else bare
        self.choices.check_request(callout.method, _host(callout.url))
        fingerprint = _fingerprint(callout)
        self._calls[owner, fingerprint] += 1
        key = fingerprint + self._calls[owner, fingerprint].to_bytes(4, "big")
        if (known := self._journal.find(owner, key)) is not None:
            return self._read(callout, dict(msgspec.msgpack.decode(known)))
        self._guard.check_host(_host(callout.url), self._work.egress)
        self._meter.note(fingerprint, callout.shown, owner=owner)
        reply: bytes | None = None
        values: tuple[str, ...] = ()
        try:
            if filling.places and self._parts.reaches:  # else nothing leaves
                callout, values = await filling.filled(bare, self._work.tenant, self._parts.secrets, self._guard)
            result = await self._fetched(self._traced(callout))
            if values:
                result = without(result, values)
            reply = _reply(result)
            if reply is not None and callout.method not in READING:
                self._meter.changed(fingerprint)
        finally:
            self._meter.cycles.answered(fingerprint, reply, owner=owner)
        answer = result.told()
        if isinstance(result, Answered) and result.status < 400:  # what failed may succeed the next time
            await self._journal.keep(owner, key, msgspec.msgpack.encode(answer))
        elif (heard := getattr(self._journal, "heard", None)) is not None:
            heard(owner, key, lambda: msgspec.msgpack.encode(answer))
        return self._read(callout, answer)

    def _read(self, callout: Callout, answer: dict[str, Any]) -> dict[str, Any]:
        if answer.get("body") or answer.get("headers"):
            self.choices.read(f"{callout.method} {address(str(callout.url))}")
        return answer

    async def request(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A library is about to send a request; ``via`` is the host and port that it connects to, where that is not the
        URL's. Answers the seconds that it may take."""
        url = _url(str(asked.get("method", "")), str(asked["url"]))
        host, port = _host(url), url.port or (443 if url.scheme == "https" else 80)
        self.choices.check_request(str(asked.get("method", "")), host)
        if any(str(name).lower() == "upgrade" for name, _ in asked.get("headers") or ()):  # into nobody knows what
            self.choices.check(HTTP, CONNECT, target=host)
        self._guard.check_host(host, self._work.egress)
        if (via := asked.get("via")) is not None:
            host, port = str(via[0]), int(via[1] or 0)
            self._guard.check_host(host, self._work.egress)
        await _spend(self._meter, self._parts, self._work.tenant)
        if self._parts.reaches:
            await self._check_reachable(host, port)
        leave: dict[str, Any] = {"seconds": max(SHORTEST, self._remaining())}
        if (header := self._header(asked.get("headers") or ())) is not None:
            leave[HEADER] = header
        self.choices.read(f"{asked.get('method', '')} {address(str(url))}")  # a library hears the answer, not we
        return leave

    async def connect(self, asked: dict[str, Any]) -> None:
        """A library opens a connection, or sends a first datagram. ``way`` is the host of a request that was told: it
        pays for a connection to that host."""
        host, port = str(asked["host"]), int(asked.get("port") or 0)
        way = None if asked.get("way") is None else str(asked["way"])
        names = [str(each) for each in asked.get("names") or ()][:MAX_NAMES]
        try:
            address = parsed(host)
        except ValueError:
            host = _as_the_system_reads(host)
            self._guard.check_host(host, self._work.egress)
            await self._check_all(host, port)
            paid = way is not None and canonical(way) == canonical(host)
        else:
            await self._guard.check_connection(address, port, names, self._work.egress)
            paid = way is not None and await self._leads(way, port, address)
        if not paid:
            self.choices.check(HTTP, CONNECT, target=host)
            self.choices.read(f"a connection to {host}")
            await _spend(self._meter, self._parts, self._work.tenant)

    async def _leads(self, way: str, port: int, address: Address) -> bool:
        try:
            return parsed(way) == address
        except ValueError:
            return await self._guard.has(way, port, address)

    async def _check_reachable(self, host: str, port: int) -> None:
        """Refuse a request to nothing but private addresses before it leaves; each connection is checked again."""
        try:
            async with asyncio.timeout(max(SHORTEST, self._remaining())):
                await self._guard.checked(host, port)
        except (OSError, ValueError):  # the library gets to know it by itself
            return

    async def _check_all(self, host: str, port: int) -> None:
        try:
            await self._guard.check_all(host, port)
        except OSError as error:
            raise RequestRefused(f"{host}: {error}.") from None

    async def _fetched(self, callout: Callout) -> Result:
        ceiling, size = callout.ceiling, len(callout.body or b"")
        if size > ceiling:
            raise self._meter.exceeded(LimitExceeded("callout_bytes", size, ceiling))
        try:
            return await self._fetcher.fetch(callout)
        except LimitExceeded as breach:
            raise self._meter.exceeded(breach) from None

    def _traced(self, callout: Callout) -> Callout:
        """The callout as it leaves: with the trace that it belongs to, unless its author has said another."""
        if (header := self._header(callout.headers)) is None:
            return callout
        return replace(callout, headers=(*callout.headers, (HEADER, header)))

    def _header(self, said: Iterable[Sequence[Any]]) -> str | None:
        """The ``traceparent`` of the request that is under way; None where it has one, or nobody records."""
        mark = current.get()
        if self.recorder is None or mark is None or any(str(pair[0]).lower() == HEADER for pair in said):
            return None
        return self.recorder.header(mark)

    def _callout(self, asked: dict[str, Any]) -> Callout:
        """Raises ValueError, TypeError for what is no request."""
        said, method = asked.get("headers") or (), asked["method"]
        pairs = said.items() if isinstance(said, Mapping) else said
        headers = tuple((str(name), str(value)) for name, value in pairs)
        if any(sign in text for pair in headers for text in pair for sign in "\r\n\0"):
            raise ValueError("a header has a line's end in it")
        url = _url(method, asked["url"])
        if url.scheme not in ("http", "https"):
            raise RequestRefused(f"{method} {url}: this is no address of HTTP.")
        wanted, remaining = asked.get("timeout"), self._remaining()
        seconds = remaining if wanted is None else min(float(wanted), remaining)
        if not math.isfinite(seconds):
            raise ValueError("a timeout is a number of seconds")
        retries = asked.get("retries")
        attempts = self._parts.attempts if retries is None else 1 + max(0, int(retries))
        bytes_ = self._work.limits.callout_bytes
        return Callout(method.upper(), url, headers, asked.get("body"), max(SHORTEST, seconds), bytes_, attempts)

    def _owner(self, asked: dict[str, Any]) -> int | None:
        owner = self._work.owner(asked.get("record"))
        return 0 if owner is None and len(self._work.records) == 1 else owner


def _url(method: str, said: str) -> httpx.URL:
    """Raises RequestRefused."""
    try:
        url = httpx.URL(said)
    except httpx.InvalidURL as error:
        raise RequestRefused(f"{method} {said[:LONGEST_HOST]}: {error}.") from None
    if not url.host:
        raise RequestRefused(f"{method} {url}: this is no address of HTTP.")
    if len(url.raw_host) > LONGEST_HOST:
        raise RequestRefused(f"{method} {_host(url)[:LONGEST_HOST]}…: a host has {LONGEST_HOST} characters at most.")
    return url


def _host(url: httpx.URL) -> str:
    """The host as it is connected to; `httpx.URL.host` is as a person reads it, which others write otherwise."""
    return url.raw_host.decode("ascii")


def _as_the_system_reads(host: str) -> str:
    """A name as Python's sockets have it (IDNA 2003). Raises RequestRefused."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError as error:
        raise RequestRefused(f"{host[:LONGEST_HOST]}: {error}.") from None


async def _spend(meter: Meter, parts: CalloutParts, tenant: str) -> None:
    """Count one callout of the execution, and of its tenant."""
    meter.spend("callouts")
    await parts.spend(tenant)


def _defers(work: Work, refused: CalloutRefused) -> bool:
    """Whether the record waits for its tenant's quota; an endpoint's caller does not."""
    if not isinstance(refused, QuotaExceeded) or work.request is not None:
        return False
    return refused.defer if work.at_ceiling is None else work.at_ceiling == "defer"


def _fingerprint(callout: Callout) -> bytes:
    packed = msgspec.msgpack.encode([callout.method, str(callout.url), sorted(callout.headers), callout.body])
    return hashlib.blake2b(packed, digest_size=16).digest()


def _reply(result: Result) -> bytes | None:
    if not isinstance(result, Answered) or result.status >= 400:
        return None
    return hashlib.blake2b(result.body, digest_size=16, salt=result.status.to_bytes(2, "big")).digest()


def _told(ask: Callable[[Outside, dict[str, Any]], Awaitable[Any]]) -> Callable[[Outside, dict[str, Any]], Any]:
    """Answer a refusal as a value: the child raises it as what it is, with all that it says."""

    async def asked(outside: Outside, arguments: dict[str, Any]) -> Any:
        try:
            return await ask(outside, arguments)
        except IrreversibleRefused as refused:
            return {"refused": [refused.detail, refused.cure, refused.page, None], "defer": False}
        except CalloutRefused as refused:
            defers = _defers(outside._work, refused)
            after = spread(refused.retry_after or 60.0) if defers else refused.retry_after
            if defers and after is not None:
                outside.put_off.add(after)
            return {"refused": [refused.detail, refused.cure, refused.page, after], "defer": defers}

    return asked


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
VERBS: Mapping[str, Callable[[Outside, dict[str, Any]], Awaitable[Any]]] = {
    "connect": _told(Outside.connect),
    "http": _told(Outside.http),
    "request": _told(Outside.request),
}
