"""Twilio's Messages API, 2010-04-01: https://www.twilio.com/docs/messaging/api/message-resource.

Twilio knows no idempotency keys. A message of which no answer came is looked for among those to the same number: the
one with the same text since the effect was made that is no other effect's. Of several, a person says which.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from circuit_script.connectors.api import Access, Api, Failed
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Rate,
    Refused,
    SlowDown,
)
from circuit_script.connectors.messengers import Claims, Reads, keys, listed, mapping_of, opened, sender_of, since
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.twilio.faults import FAULTS, MEANINGS, code_of, wait_of
from circuit_script.connectors.twilio.pace import SPAN, Loops, Segments
from circuit_script.errors import SecretsUnavailable
from circuit_script.schemas.messages import Wrong, count, number, sms

NAME = "twilio"
URL = "https://api.twilio.com"
PATIENCE = 10.0  # seconds for one request
LISTED = 3.0  # seconds that Twilio's lists may be behind
PAGE = 100
MOST_PAGES = 5
RATE = Rate(1, 1.0, 1, "target")  # a long code's

_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_MESSAGE = re.compile(r"(SM|MM)[0-9a-fA-F]{32}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}|[0-9]{3,8}")  # alphanumeric senders and short codes
_TYPED = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})


class Twilio:
    """Text messages of all tenants, each with its own account. A target is a sender, or the tenant's usual one."""

    name = NAME

    def __init__(self, parts: Parts, *, listed: float = LISTED, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = parts.settings
        url = (parts.settings.url or URL).rstrip("/")
        self._api = Api(
            parts.client,
            keys(parts, NAME, lambda read: _access(read, url)),
            name=NAME,
            faults=FAULTS,
            code_of=code_of,
            wait_of=wait_of,
            timeout=PATIENCE,
        )
        self._claims = Claims(NAME, parts.database)
        said = parts.settings.rates.get("sms")
        self._segments = Segments(said.seconds / said.calls if said else RATE.seconds / RATE.calls, clock=clock)
        self._loops = Loops(clock=clock)
        self._listed = listed
        self.operations: Mapping[str, Operation] = {
            "sms": Operation(InDoubt.LOOK_UP, timeout=60.0, rate=RATE, irreversible=True)
        }

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return [await self._send(each) for each in effects]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            to, body = number(effect.payload.get("to")), sms(effect.payload.get("body"))
            found = await self._find(effect, to, body)
            if not found and self._listed:  # it may only not be listed yet
                await asyncio.sleep(self._listed)
                found = await self._find(effect, to, body)
        except Wrong as wrong:
            return Later(str(wrong))
        except Failed:
            return None
        if found is None or len(found) > 1:
            return None
        if not found:
            return Later("no answer came, and Twilio has no such message")
        self._claims.claim(effect, found[0])
        return Delivered(found[0])

    async def _send(self, effect: Effect) -> Delivery:
        try:
            to, body = number(effect.payload.get("to")), sms(effect.payload.get("body"))
            form = {"To": to, "Body": body, **self._from(effect)}
        except Wrong as wrong:
            return Refused(str(wrong))
        sender = (effect.tenant, sender_of(self._settings, effect))
        if wait := self._segments.wait(sender):
            return SlowDown("the segments of longer messages of this sender are still leaving", wait)
        if self._loops.goes_round(sender, to):
            return Refused(f"more messages to this number within {SPAN:g} s than people write: it looks like a loop")
        if self._settings.callback:
            form["StatusCallback"] = self._settings.callback
        try:
            path = await self._path(effect.tenant)
            self._segments.took(sender, count(body).segments)
            self._loops.took(sender, to)
            answer = await self._api.send(effect.tenant, "POST", path, writes=True, data=form)
        except Failed as failed:
            return _explained(failed)
        return self._done(effect, mapping_of(answer))

    def _done(self, effect: Effect, said: Mapping[str, Any]) -> Delivery:
        """Twilio has taken it, whatever else it says."""
        sid = said.get("sid")
        if not isinstance(sid, str) or _MESSAGE.fullmatch(sid) is None:
            return Delivered()
        self._claims.claim(effect, sid)
        return Delivered(sid)

    def _from(self, effect: Effect) -> dict[str, str]:
        """Raises Wrong."""
        sender = sender_of(self._settings, effect)
        if not sender:
            raise Wrong("there is nobody whom it is from: say [connectors.twilio] sender in circuit.toml.")
        if _SERVICE.fullmatch(sender):
            return {"MessagingServiceSid": sender}
        return {"From": sender if _NAME.fullmatch(sender) else number(sender, "sender")}

    async def _path(self, tenant: str) -> str:
        """Raises Failed."""
        access = await opened(self._api, tenant)
        return f"/2010-04-01/Accounts/{access.account}/Messages.json"

    async def _find(self, effect: Effect, to: str, body: str) -> list[str] | None:
        """The messages that may be this effect's; None: there are too many to know. Raises Failed."""
        path = await self._path(effect.tenant)
        earliest, wanted = since(effect), _plain(body)
        found: list[str] = []
        params: dict[str, str] | None = {"To": to, "PageSize": str(PAGE)}
        for _ in range(MOST_PAGES):
            said = mapping_of(await self._api.send(effect.tenant, "GET", path, params=params))
            messages = listed(said.get("messages"))
            made = [_moment(each.get("date_created")) for each in messages]
            for each, moment in zip(messages, made, strict=True):
                outbound = str(each.get("direction", "")).startswith("outbound")
                fresh = moment is None or moment >= earliest
                if outbound and fresh and each.get("to") == to and _plain(str(each.get("body") or "")) == wanted:
                    found.append(str(each.get("sid")))
            params = _next(said.get("next_page_uri"), path)
            if params is None or any(moment is not None and moment < earliest for moment in made):
                return await self._claims.free(effect, found)
        return None


def make(parts: Parts) -> Twilio:
    return Twilio(parts)


async def _access(read: Reads, url: str) -> Access:
    sid, token = await read("account_sid"), await read("auth_token")
    if _ACCOUNT.fullmatch(sid) is None:
        raise SecretsUnavailable("twilio.account_sid is no SID of an account: AC and 32 digits.")
    basic = base64.b64encode(f"{sid}:{token}".encode()).decode()
    return Access({"authorization": f"Basic {basic}"}, url, sid)


def _explained(failed: Failed) -> Delivery:
    said = MEANINGS.get(failed.code or "")
    if said is None or not isinstance(failed.delivery, Refused):
        return failed.delivery
    return Refused(f"{said} ({failed.delivery.reason})")


def _plain(text: str) -> str:
    """As Twilio may have made it: its services put plain signs in the place of typographic ones."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_TYPED)).split())


def _moment(value: object) -> datetime | None:
    """An RFC 2822 date; None for what is none."""
    try:
        found = parsedate_to_datetime(str(value))
    except (ValueError, OverflowError, IndexError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _next(uri: object, path: str) -> dict[str, str] | None:
    """What asks for the next page, of the same list."""
    try:
        parts = urlsplit(str(uri or ""))
    except ValueError:
        return None
    return dict(parse_qsl(parts.query)) if parts.path == path and parts.query else None
