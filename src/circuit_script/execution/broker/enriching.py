"""What a handler asks about leads in bulk. The requests that this takes are callouts of its execution: held against the
same rules as its own, counted, in its trace, and made once."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from circuit_script.enrichment import SOURCES, Call, Enrichment, Lead, NotAnswered, Reply
from circuit_script.enrichment.asking import LATER, UNAVAILABLE, text
from circuit_script.errors import CalloutRefused, QuotaExceeded, RequestRefused, SecretMissing, SecretsUnavailable
from circuit_script.execution.broker.callouts.addresses import not_public, parsed
from circuit_script.execution.broker.callouts.fetch import Answered, Callout, CalloutParts, Fetcher, Result
from circuit_script.execution.broker.callouts.filling import without
from circuit_script.execution.broker.outside import Journal
from circuit_script.execution.outcome import Work, spread
from circuit_script.governor import LimitExceeded, Meter
from circuit_script.telemetry.spans import CLIENT, ERROR, INTERNAL, REFUSED, Recorder

MOST = 10_000  # records of one request
KEEP = 4 * 1024 * 1024  # bytes of an answer that is kept for another try
ATTEMPTS = 2
BACKOFF = 0.5  # seconds before the second attempt, at most
AT_ONCE = 500  # leads that are read before others have their turn
LEAST = 0.25  # seconds that must be left for a call to be worth it


class Enriching:
    """One execution's questions about leads."""

    __slots__ = ("_asked", "_client", "_enrichment", "_journal", "_meter", "_parts", "_remaining", "_work", "put_off",
                 "recorder")  # fmt: skip

    def __init__(
        self,
        work: Work,
        *,
        meter: Meter,
        journal: Journal,
        client: httpx.AsyncClient,
        remaining: Callable[[], float],
        parts: CalloutParts,
        enrichment: Enrichment | None,
    ) -> None:
        self.put_off: set[float] = set()  # the seconds for which something waits for its tenant's quota
        self.recorder: Recorder | None = None
        self._work = work
        self._meter = meter
        self._journal = journal
        self._client = client
        self._remaining = remaining
        self._parts = parts
        self._enrichment = enrichment
        self._asked: Counter[tuple[int | None, bytes]] = Counter()

    async def enrich(self, asked: dict[str, Any]) -> dict[str, Any]:
        """{"rows": one for each of the leads}, or {"refused"} when the tenant's quota is used up. Raises
        RequestRefused, LimitExceeded, DatabaseUnavailable."""
        enrichment, sources = self._known(asked)
        self._meter.spend("db_queries")
        owner = self._owner(asked)
        fingerprint = _fingerprint(asked["leads"], sources)
        self._asked[owner, fingerprint] += 1
        key = fingerprint + self._asked[owner, fingerprint].to_bytes(4, "big")
        if (known := self._journal.find(owner, key)) is not None:
            return {"rows": msgspec.msgpack.decode(known)}
        mark = None
        if self.recorder is not None:
            about = {"records": len(asked["leads"]), "sources": ", ".join(sources)}
            mark = self.recorder.begin("enrich", INTERNAL, about)
        leads = await _leads(asked["leads"])
        asking = Asking(self._work, self._meter, self._client, self._parts, self._remaining, self.recorder)
        try:
            done = await enrichment.enrich(self._work.tenant, leads, sources, asking)
        except QuotaExceeded as refused:
            if mark is not None:
                mark.status = REFUSED
            return self._refused(refused)
        except BaseException:
            if mark is not None:
                mark.status = ERROR
            raise
        finally:
            if mark is not None:
                mark.attributes["calls"] = asking.calls
                mark.end()
        if done.whole and len(packed := msgspec.msgpack.encode(done.rows)) <= KEEP:
            await self._journal.keep(owner, key, packed)  # what is missing now may be there the next time
        elif (heard := getattr(self._journal, "heard", None)) is not None:
            heard(owner, key, lambda: msgspec.msgpack.encode(done.rows))
        return {"rows": done.rows}

    def _known(self, asked: Mapping[str, Any]) -> tuple[Enrichment, tuple[str, ...]]:
        if self._enrichment is None:
            raise RequestRefused("leads are not enriched here.")
        raw, sources = asked["leads"], tuple(dict.fromkeys(str(each) for each in asked["sources"]))
        if not isinstance(raw, list):
            raise RequestRefused(f"records are a list, not a {type(raw).__name__}.")
        if len(raw) > MOST:
            raise RequestRefused(f"{len(raw):,} records cannot be enriched at once.", cure=f"Give {MOST:,} at most.")
        for each in sources:
            if each not in SOURCES:
                raise RequestRefused(f"there is no source {each[:50]!r}.", cure=f"There are {', '.join(SOURCES)}.")
        return self._enrichment, sources

    def _refused(self, refused: QuotaExceeded) -> dict[str, Any]:
        """As of any callout: where its tenant's tier says so, the record waits for the quota."""
        work = self._work
        waits = refused.defer if work.at_ceiling is None else work.at_ceiling == "defer"
        defers = waits and work.request is None
        after = spread(refused.retry_after or 60.0) if defers else refused.retry_after
        if defers and after is not None:
            self.put_off.add(after)
        return {"refused": [refused.detail, refused.cure, refused.page, after], "defer": defers}

    def _owner(self, asked: Mapping[str, Any]) -> int | None:
        owner = self._work.owner(asked.get("record"))
        return 0 if owner is None and len(self._work.records) == 1 else owner


class Asking:
    """The way of one request to the sources. ``calls`` are those that left."""

    __slots__ = ("_client", "_meter", "_parts", "_recorder", "_remaining", "_work", "calls")

    def __init__(
        self,
        work: Work,
        meter: Meter,
        client: httpx.AsyncClient,
        parts: CalloutParts,
        remaining: Callable[[], float],
        recorder: Recorder | None,
    ) -> None:
        self.calls = 0
        self._work = work
        self._meter = meter
        self._parts = parts
        self._remaining = remaining
        self._recorder = recorder
        self._client = client

    async def __call__(self, call: Call) -> Reply:
        """The answer of a source. Raises NotAnswered; and, as its callouts do, QuotaExceeded, RequestRefused."""
        callout = self._callout(call)
        await self._check(call, callout)
        for attempt in range(1, ATTEMPTS + 1):
            if not self._may():
                raise NotAnswered(f"{LATER}: the execution has used up its callouts")
            if self._remaining() <= LEAST:
                raise NotAnswered(f"{LATER}: the execution has no time left")
            result = await self._once(call, replace(callout, seconds=min(call.seconds, self._remaining())))
            if isinstance(result, Answered) and result.status < 500 and result.status != 429:
                return Reply(result.status, result.body)
            if attempt == ATTEMPTS or not _is_again(result):
                break
            await self._parts.sleep(random.uniform(0, BACKOFF))
        raise _why(call, result)

    async def secret(self, name: str) -> str | None:
        if self._parts.secrets is None:
            return None
        try:
            value = await self._parts.secrets.get(self._work.tenant, name)
        except SecretMissing:
            return None
        except SecretsUnavailable:
            raise NotAnswered(f"{UNAVAILABLE}: the secret {name} cannot be read now") from None
        if not value.isascii() or not value.isprintable():
            raise NotAnswered(f"not configured: the secret {name} is not one line of ASCII")
        return value

    def left(self) -> float:
        return self._remaining()

    def _callout(self, call: Call) -> Callout:
        try:
            url = httpx.URL(call.url)
            if call.params:
                url = url.copy_with(params=call.params)
        except httpx.InvalidURL:
            raise NotAnswered(f"not configured: {call.shown} has no address") from None
        return Callout(call.method, url, tuple(call.headers.items()), call.body, call.seconds, call.ceiling, attempts=1)

    async def _check(self, call: Call, callout: Callout) -> None:
        """Raises NotAnswered for a host that may not be called, or not with a secret."""
        guard, host = self._parts.guard.of(self._work.tenant), callout.url.raw_host.decode("ascii")
        try:
            guard.check_host(host, self._work.egress)
        except CalloutRefused as refused:
            raise NotAnswered(f"refused: {text(refused.detail)}") from None
        if call.secrets and callout.url.scheme != "https" and self._parts.reaches:
            try:
                addresses = await guard.checked(host, callout.url.port or 80)
            except (CalloutRefused, OSError, UnicodeError):
                return  # the call itself says why
            if any(not_public(parsed(each)) is None for each in addresses):
                raise NotAnswered(f"refused: a key leaves for {call.shown} by https only")

    async def _once(self, call: Call, callout: Callout) -> Result:
        mark = None
        if self._recorder is not None:
            url = str(callout.url.copy_with(userinfo=b"", query=None, fragment=None))
            mark = self._recorder.begin("callout", CLIENT, {"method": call.method, "url": url})
        try:
            # Not kept: it would hold us, and we the work, until the garbage is collected.
            fetcher = Fetcher(self._work.tenant, self._client, self._parts, spend=self._spend, left=self._may)
            result = await fetcher.fetch(callout)
            if call.secrets:
                result = without(result, call.secrets)
        except QuotaExceeded:
            if mark is not None:
                mark.status = REFUSED
            raise
        except CalloutRefused as refused:
            if mark is not None:
                mark.status = REFUSED
            if refused.page == "circuit-open":
                raise NotAnswered(f"{UNAVAILABLE}: {call.shown} has failed too often, and is left alone") from None
            raise NotAnswered(f"refused: {call.shown}: {text(refused.detail.rpartition(': ')[2])}") from None
        except LimitExceeded as breach:
            if mark is not None:
                mark.status = ERROR
            if breach.limit == "callout_bytes":
                raise NotAnswered(f"{UNAVAILABLE}: the answer of {call.shown} is too large") from None
            raise
        except BaseException:
            if mark is not None:
                mark.status = ERROR
            raise
        finally:
            if mark is not None:
                mark.end()
        if mark is not None:
            if isinstance(result, Answered):
                mark.attributes["status"] = result.status
            if not isinstance(result, Answered) or result.status >= 400:
                mark.status = ERROR
        return result

    async def _spend(self) -> None:
        self._meter.spend("callouts")
        self.calls += 1
        await self._parts.spend(self._work.tenant)

    def _may(self) -> bool:
        return self._meter.usage.callouts < self._work.limits.callouts


async def _leads(raw: list[Any]) -> list[Lead]:
    """The leads; others have their turn meanwhile."""
    leads: list[Lead] = []
    for start in range(0, len(raw), AT_ONCE):
        leads += map(Lead.of, raw[start : start + AT_ONCE])
        await asyncio.sleep(0)
    return leads


def _is_again(result: Result) -> bool:
    return result.status >= 500 if isinstance(result, Answered) else result.again


def _why(call: Call, result: Result) -> NotAnswered:
    if not isinstance(result, Answered):
        said = "did not answer in time" if result.kind.endswith("Timeout") else "cannot be reached"
        return NotAnswered(f"{UNAVAILABLE}: {call.shown} {said}")
    if result.status == 429:
        return NotAnswered(f"{LATER}: {call.shown} takes no more requests now")
    return NotAnswered(f"{UNAVAILABLE}: {call.shown} answered HTTP {result.status}")


def _fingerprint(leads: Any, sources: tuple[str, ...]) -> bytes:
    packed = msgspec.msgpack.encode(["enrich", sources, leads])
    return hashlib.blake2b(packed, digest_size=16).digest()


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
VERBS: Mapping[str, Callable[[Enriching, dict[str, Any]], Awaitable[Any]]] = {"enrich": Enriching.enrich}
