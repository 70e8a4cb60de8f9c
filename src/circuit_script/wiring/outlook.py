"""Whether those outside can be reached: vendors, providers of models, addresses of effects."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from circuit_script.config import Settings
from circuit_script.connectors.registry import vendor_urls
from circuit_script.execution.broker.callouts.transport import authorities, no_cookies
from circuit_script.telemetry.guardian import ApiSeen

PATIENCE = 10.0  # seconds for one address
AT_ONCE = 8
AGAIN = 2.0  # seconds until who could not be reached is asked once more: a lost packet is no outage


@dataclass(frozen=True, slots=True)
class Place:
    """An address by name. ``ask`` says that a GET may be sent there; else a connection is made and closed."""

    name: str
    url: str
    ask: bool = False


def places_of(settings: Settings) -> list[Place]:
    """Whom circuit.toml names. Addresses of effects and of models are not asked: that might be taken for a delivery."""
    return list(_places(settings))


def _places(settings: Settings) -> Iterator[Place]:
    for name, url in settings.guardian.apis.items():
        yield Place(name, url, ask=True)
    for name, address in settings.addresses.items():
        yield Place(name, address.url)
    for name, url in vendor_urls(settings).items():
        yield Place(name, url)
    for name, provider in settings.llm.providers.items():
        if name != "openai" or "llm" in settings.model_fields_set:  # known to all apps, used by some
            yield Place(name, provider.url)


async def look_outside(places: Sequence[Place], trusted: ssl.SSLContext | None = None) -> list[ApiSeen]:
    """Each place, a few at once, each within bounded time; who fails gets a second chance. ``trusted`` are authorities
    other than this process's."""
    if not places:
        return []
    turn = asyncio.Semaphore(AT_ONCE)
    context = trusted or authorities()

    async def one(place: Place) -> ApiSeen:
        async with turn:
            seen = await _look(place, context)
            if seen.fault or (seen.status or 0) >= 500:
                await asyncio.sleep(AGAIN)
                seen = await _look(place, context)
            return seen

    return list(await asyncio.gather(*map(one, places)))


async def _look(place: Place, context: ssl.SSLContext) -> ApiSeen:
    ends: datetime | None = None
    status: int | None = None
    host = ""
    try:
        parts = urlsplit(place.url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        async with asyncio.timeout(PATIENCE):
            ends = await _connect(host, port, context if secure else None)
            if place.ask:
                status = await _ask(place.url, context)
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        return ApiSeen(place.name, host, fault=_words(error), certificate_ends=ends, asked=place.ask)
    return ApiSeen(place.name, host, status, certificate_ends=ends, asked=place.ask)


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> datetime | None:
    """Connect and close; the end of the certificate, where there is one."""
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        certificate = writer.get_extra_info("peercert") if context else None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC) if certificate else None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _ask(url: str, context: ssl.SSLContext) -> int:
    """The status of a GET; of its body nothing is read."""
    async with (
        httpx.AsyncClient(verify=context, follow_redirects=False, cookies=no_cookies(), timeout=PATIENCE) as client,
        client.stream("GET", url, headers={"user-agent": "circuit-script"}) as answer,
    ):
        return answer.status_code


def _words(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is refused: {error.verify_message}"
        case TimeoutError():
            return f"no answer within {PATIENCE:g} s"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return " ".join(str(error).split())[:200] or type(error).__name__
