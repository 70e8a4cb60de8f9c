"""Access that is kept in this process until it ends: for vendors whose tokens anybody with the secret may ask for.

One request for a fresh token at a time, for each tenant; who else wants it waits for that one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from circuit_script.connectors.api import QUOTED, Access
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable

MARGIN = 60.0  # seconds before its end at which a token is not used any more
MOST = 10_000  # tenants
RENEWALS = 5  # within SPAN, because the vendor refused what it had just given: then it is no use to ask again
SPAN = 60.0
MAX_ANSWER = 64 * 1024
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Granted:
    """``lives`` are the seconds for which it is good."""

    access: Access
    lives: float


@dataclass(slots=True)
class _Held:
    access: Access | None = None
    until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewals: deque[float] = field(default_factory=lambda: deque(maxlen=RENEWALS))


class HeldAccess:
    """The `Credentials` of a vendor: ``grant`` gets a fresh access of a tenant and raises as `Credentials.of` does."""

    def __init__(
        self, grant: Callable[[str], Awaitable[Granted]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._grant = grant
        self._clock = clock
        self._tenants: OrderedDict[str, _Held] = OrderedDict()

    async def of(self, tenant: str) -> Access:
        held = self._held(tenant)
        async with held.lock:
            if held.access is None or self._clock() >= held.until:
                return await self._fresh(tenant, held)
            return held.access

    async def refused(self, tenant: str, access: Access) -> bool:
        held = self._held(tenant)
        async with held.lock:
            if held.access is not None and held.access is not access:
                return True  # somebody has asked meanwhile
            now = self._clock()
            if len(held.renewals) == RENEWALS and now - held.renewals[0] < SPAN:
                return False
            held.renewals.append(now)
            held.access = None
            try:
                fresh = await self._fresh(tenant, held)
            except (NotConnected, SecretMissing, SecretsUnavailable):
                return False
            return fresh.headers != access.headers  # a token that stands in the secrets may be the same

    async def _fresh(self, tenant: str, held: _Held) -> Access:
        granted = await self._grant(tenant)
        held.access = granted.access
        held.until = self._clock() + max(granted.lives - MARGIN, granted.lives / 2)
        return granted.access

    def _held(self, tenant: str) -> _Held:
        held = self._tenants.get(tenant)
        if held is None:
            held = self._tenants[tenant] = _Held()
            if len(self._tenants) > MOST:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return held


async def ask_for_token(
    client: httpx.AsyncClient, url: str, form: dict[str, str], *, name: str
) -> tuple[int, dict[str, object]]:
    """The status and the JSON of a token request. Raises SecretsUnavailable where there is no such answer: nothing of
    the form, which holds secrets, is in it."""
    try:
        async with (
            asyncio.timeout(PATIENCE),
            client.stream(
                "POST", url, data=form, headers={"accept": "application/json"}, auth=None, follow_redirects=False
            ) as answer,
        ):
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise SecretsUnavailable(f"{name} answered a request for a token with too much.")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise SecretsUnavailable(f"{name} gave no answer to a request for a token: {type(error).__name__}.") from None
    try:
        said = httpx.Response(answer.status_code, content=bytes(body)).json()
    except (ValueError, RecursionError):
        said = None
    if answer.status_code == 429 or answer.status_code >= 500 or not isinstance(said, dict):
        raise SecretsUnavailable(f"{name} answered a request for a token with HTTP {answer.status_code}.")
    return answer.status_code, said


def not_connected(tenant: str, name: str, secrets: str, reason: str = "") -> NotConnected:
    """A tenant whose ``secrets`` (named in words) are not there, or are refused for this reason."""
    error = NotConnected(tenant, name)
    error.cure = f"Set {secrets}: circuit-script secrets set {name}.… --tenant {tenant}"
    first = "There is no account of this tenant."
    error.args = (" ".join(part for part in (first, error.detail, reason, error.cure) if part),)
    return error


def refusal(said: dict[str, object], *secrets: str) -> str:
    """Why a token was not given, in the vendor's words, without what must not be told."""
    words = [str(said[each]) for each in ("error", "error_description", "status", "message") if said.get(each)]
    text = ": ".join(words)[: 4 * QUOTED]
    for each in secrets:
        if len(each) >= 4:
            text = text.replace(each, "…")
    return "".join(each if each.isprintable() else " " for each in text)[:QUOTED]


def safe_base(url: object, like: str) -> str | None:
    """A vendor's address as it said it: https without a user, or the origin of ``like``; else None."""
    text = str(url or "").rstrip("/")
    try:
        parts, known = urlsplit(text), urlsplit(like)
        if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment or parts.path:
            return None
        same = (parts.scheme, parts.hostname, parts.port) == (known.scheme, known.hostname, known.port)
    except ValueError:
        return None
    return text if parts.scheme == "https" or same else None
