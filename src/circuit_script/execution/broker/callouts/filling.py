"""Secrets that a handler has named are put into a request's headers as it leaves, and taken out of what comes back.

A secret leaves for the hosts that it was given, by TLS: without, to private addresses only. What the execution is
counted, journaled and traced by has its name in the value's place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from circuit_script.errors import CalloutRefused, SecretMissing, SecretsUnavailable
from circuit_script.execution.broker.callouts.addresses import not_public, parsed
from circuit_script.execution.broker.callouts.fetch import Answered, Callout, Headers, Named, NoAnswer, Result
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.hosts import matches_any

MOST = 10  # secrets of one request
TAKEN_OUT = "[redacted]"
SHORTEST = 4  # characters of a value that is looked for in an answer: what is shorter stands anywhere
QUOTING = frozenset({"LocalProtocolError", "RemoteProtocolError"})  # failures that quote bytes, cut anywhere

Place = tuple[int, int, str]  # of which header, at which of its characters, the secret of which name


@dataclass(frozen=True, slots=True)
class Filling:
    """Where which secrets belong."""

    places: tuple[Place, ...]

    @classmethod
    def of(cls, said: Any) -> Filling:
        """As a child says it. Raises ValueError, TypeError."""
        places = tuple((header, at, str(name)) for header, at, name in said or ())
        if len(places) > MOST:
            raise ValueError(f"a request has {MOST} secrets at most")
        if not all(type(each) is int and each >= 0 for header, at, _ in places for each in (header, at)):
            raise TypeError("a place is a number of a header, and of a character in it")
        return cls(tuple(sorted(places)))

    def shown(self, callout: Callout) -> Callout:
        """With the names in the values' place."""
        return self._with(callout, [f"[secret {name}]" for _, _, name in self.places])

    async def filled(
        self, callout: Callout, tenant: str, secrets: Named | None, guard: Guard
    ) -> tuple[Callout, tuple[str, ...]]:
        """With the values, and these by themselves. Raises CalloutRefused for one that may not go there, or is not
        to be had."""
        if secrets is None:
            raise CalloutRefused(f"{callout.shown}: secrets are not sent from here.", page="secrets")
        host = callout.url.raw_host.decode("ascii")
        values: dict[str, str] = {}
        for name in dict.fromkeys(name for _, _, name in self.places):
            try:
                if not matches_any(allowed := await secrets.hosts(tenant, name), (host,)):
                    raise _not_there(callout, name, host, allowed)
                values[name] = _of_one_line(await secrets.get(tenant, name), callout, name)
            except (SecretMissing, SecretsUnavailable) as error:
                raise CalloutRefused(f"{callout.shown}: {error.detail}", cure=error.cure, page="secrets") from None
        if callout.url.scheme != "https":
            await _only_here(callout, host, guard)
        whole = self._with(callout, [values[name] for _, _, name in self.places])
        asked = [pair for pair in whole.headers if pair[0].lower() != "accept-encoding"]  # gzip, which we can look into
        return replace(whole, headers=tuple(asked)), tuple(values.values())

    def _with(self, callout: Callout, texts: Sequence[str]) -> Callout:
        headers = list(callout.headers)
        for (header, at, _), text in reversed(list(zip(self.places, texts, strict=True))):  # the last first
            if header >= len(headers) or at > len(headers[header][1]):
                raise ValueError("there is no such place for a secret")
            name, value = headers[header]
            headers[header] = (name, f"{value[:at]}{text}{value[at:]}")
        return replace(callout, headers=tuple(headers))


def without(result: Result, values: Sequence[str]) -> Result:
    """What came back, without the values: a host may send back what it was sent."""
    spelled = {form for value in values if len(value) >= SHORTEST for form in _spellings(value)}
    known = sorted(spelled, key=len, reverse=True)
    if isinstance(result, NoAnswer) and result.kind in QUOTING:
        return replace(result, said="what was sent with a secret, or what came, is no HTTP")
    if isinstance(result, NoAnswer):
        return replace(result, said=_text_without(result.said, known))
    if any(
        name.lower() == "content-encoding" and value.strip().lower() != "identity" for name, value in result.headers
    ):
        return NoAnswer("DecodingError", "the answer has a coding that was not asked for")
    headers: Headers = [(name, _text_without(value, known)) for name, value in result.headers]
    body = result.body
    for each in known:
        body = body.replace(each.encode(), TAKEN_OUT.encode())
    if body is not result.body:
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]
    return Answered(result.status, headers, body)


def _spellings(value: str) -> tuple[str, ...]:
    """A value as it is, and as JSON, an address and Python have it."""
    return value, json.dumps(value)[1:-1], quote(value, safe=""), repr(value)[1:-1], repr(value.encode())[2:-1]


def _text_without(text: str, values: Sequence[str]) -> str:
    for each in values:
        text = text.replace(each, TAKEN_OUT)
    return text


def _of_one_line(value: str, callout: Callout, name: str) -> str:
    if any(sign in value for sign in "\r\n\0") or not value.isascii():
        raise CalloutRefused(
            f"{callout.shown}: the secret {name} cannot stand in a header.",
            cure="A header is one line of ASCII: put it in again without the line's end.",
            page="secrets",
        )
    return value


def _not_there(callout: Callout, name: str, host: str, allowed: Sequence[str]) -> CalloutRefused:
    where = f"to {', '.join(allowed)} only" if allowed else "nowhere yet"
    return CalloutRefused(
        f"{callout.shown}: the secret {name} may be sent {where}.",
        cure=f"If it is meant: circuit-script secrets allow {name} --hosts {','.join((*allowed, host))}",
        page="secrets",
    )


async def _only_here(callout: Callout, host: str, guard: Guard) -> None:
    """Raises CalloutRefused for a host that would be sent a secret without TLS, over networks that are others'."""
    try:
        addresses = await guard.checked(host, callout.url.port or 80)
    except (OSError, UnicodeError):
        return  # it is not found: nothing leaves
    if not addresses or any(not_public(parsed(each)) is None for each in addresses):
        raise CalloutRefused(f"{callout.shown}: a secret leaves by https only.", page="secrets")
