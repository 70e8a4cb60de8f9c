"""Resend's e-mail API: https://resend.com/docs/api-reference/emails.

An e-mail alone goes out under the effect's id as its ``Idempotency-Key``, which Resend keeps for a day: until then it
may be sent again. A batch has one key for all; what is sent again may be another batch, so an e-mail of one, as any
after that day, is looked for among those that were sent since: by the tag that names its effect, or by all it says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from circuit_script.clock import now, time_of
from circuit_script.connectors.api import QUOTED, Access, Api, Failed
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Rate,
    Refused,
    Unknown,
)
from circuit_script.connectors.messengers import Claims, Reads, instant, keys, listed, mapping_of, sender_of, since
from circuit_script.connectors.pace import MustWait, Pace
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.resend.faults import FAULTS, code_of, wait_of
from circuit_script.connectors.resend.mails import TAG, mail_of
from circuit_script.schemas.messages import Wrong

NAME = "resend"
URL = "https://api.resend.com"
MOST = 100  # e-mails of one batch
PATIENCE = 30.0  # seconds for one request
LOOKING = 150.0  # seconds in which a whole batch is looked for
KEPT = timedelta(hours=23)  # for which a key is good, and an hour to spare
PAGE = 100
MOST_PAGES = 10
LISTED = 3.0  # seconds that Resend's lists may be behind
RATE = Rate(2, 1.0, 2, "connector")  # of a team, whatever is asked


class Resend:
    """E-mail of all tenants, each by its own key."""

    name = NAME

    def __init__(self, parts: Parts, *, wait: float = LISTED) -> None:
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
        rate = parts.settings.rates.get("send")
        calls, seconds = (rate.calls, rate.seconds) if rate else (RATE.calls, RATE.seconds)
        self._pace = Pace(max(1, int(calls)), seconds)
        self._wait = wait
        self.operations: Mapping[str, Operation] = {
            "send": Operation(InDoubt.LOOK_UP, timeout=LOOKING, rate=RATE, irreversible=True),
            "batch": Operation(InDoubt.LOOK_UP, bulk=MOST, timeout=LOOKING, rate=RATE, irreversible=True),
        }

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        if operation == "send":
            return [await self._send(each) for each in effects]
        results: dict[int, Delivery] = {}
        mails: list[tuple[int, dict[str, Any]]] = []
        for place, effect in enumerate(effects):
            try:
                mail = mail_of(effect, sender_of(self._settings, effect))
                if "attachments" in mail:
                    raise Wrong("an e-mail of a batch has no attachments.")
            except Wrong as wrong:
                results[place] = Refused(str(wrong))
            else:
                mails.append((place, mail))
        if mails:
            found = await self._batch([effects[place] for place, _ in mails], [mail for _, mail in mails])
            if isinstance(found, Refused) and not results:
                return found  # as a whole: it is tried in halves
            if not isinstance(found, list):
                # Of a batch of which one was refused here, the others are tried again without it.
                found = [Later(found.reason) if isinstance(found, Refused) else found] * len(mails)
            results |= {place: result for (place, _), result in zip(mails, found, strict=True)}
        return [results[place] for place in range(len(effects))]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        made = time_of(effect.id) if effect.id.version == 7 else None
        if effect.operation == "send" and made is not None and now() - made < KEPT:
            return Later("it may be sent again: Resend knows its key")
        try:
            mail = mail_of(effect, sender_of(self._settings, effect))
            found = await self._find(effect, mail)
            if not found and self._wait:  # it may only not be listed yet
                await asyncio.sleep(self._wait)
                found = await self._find(effect, mail)
        except Wrong as wrong:
            return Later(str(wrong))
        except (Failed, MustWait):
            return None
        if found is None or len(found) > 1:
            return None
        if not found:
            return Later("no answer came, and Resend has no such e-mail")
        return Delivered(found[0]) if self._claims.claim(effect, found[0]) else None

    async def _send(self, effect: Effect) -> Delivery:
        try:
            mail = mail_of(effect, sender_of(self._settings, effect))
            key = {"idempotency-key": str(effect.id)}
            answer = await self._api.send(effect.tenant, "POST", "/emails", writes=True, json=mail, headers=key)
        except Wrong as wrong:
            return Refused(str(wrong))
        except Failed as failed:
            return failed.delivery
        return self._sent(effect, mapping_of(answer))

    async def _batch(self, effects: Sequence[Effect], mails: Sequence[dict[str, Any]]) -> list[Delivery] | Delivery:
        digest = hashlib.sha256("".join(str(each.id) for each in effects).encode()).hexdigest()
        headers = {"idempotency-key": f"batch-{digest[:48]}", "x-batch-validation": "permissive"}
        try:
            answer = await self._api.send(
                effects[0].tenant, "POST", "/emails/batch", writes=True, json=list(mails), headers=headers
            )
        except Failed as failed:
            return failed.delivery
        said = mapping_of(answer)
        wrong = {each["index"]: _plain(each.get("message")) for each in listed(said.get("errors"))
                 if isinstance(each.get("index"), int)}  # fmt: skip
        made = listed(said.get("data"))
        taken = [place for place in range(len(effects)) if place not in wrong]
        if len(made) != len(taken):
            return Unknown(f"Resend made {len(made)} e-mails of {len(taken)}, and does not say which")
        results: list[Delivery] = [Refused(wrong.get(place, "")) for place in range(len(effects))]
        for place, each in zip(taken, made, strict=True):
            results[place] = self._sent(effects[place], each)
        return results

    def _sent(self, effect: Effect, said: Mapping[str, Any]) -> Delivered:
        identifier = said.get("id")
        if not isinstance(identifier, str) or not 0 < len(identifier) <= 100:
            return Delivered()
        self._claims.claim(effect, identifier)
        return Delivered(identifier)

    async def _find(self, effect: Effect, mail: Mapping[str, Any]) -> list[str] | None:
        """The e-mails that may be this effect's; None: there are too many to know. Raises Failed, MustWait."""
        earliest = since(effect)
        likely: list[str] = []
        params: dict[str, str] = {"limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            said = await self._ask(effect.tenant, "/emails", params)
            rows = listed(said.get("data"))
            moments = [instant(each.get("created_at")) for each in rows]
            for each, made in zip(rows, moments, strict=True):
                if (made is None or made >= earliest) and _alike(each, mail, ("to", "subject")):
                    likely.append(str(each.get("id")))
            if said.get("has_more") is not True or not rows or any(made and made < earliest for made in moments):
                break
            params["after"] = str(rows[-1].get("id"))
        else:
            return None
        found = []
        for identifier in await self._claims.free(effect, likely):
            row = await self._ask(effect.tenant, f"/emails/{_safe(identifier)}", {})
            named = {str(each.get("name")): each.get("value") for each in listed(row.get("tags"))}
            if TAG in named:
                if named[TAG] == str(effect.id):
                    return [identifier]
            elif _alike(row, mail, ("to", "subject", "text", "html")):
                found.append(identifier)
        return found

    async def _ask(self, tenant: str, path: str, params: dict[str, str]) -> dict[str, Any]:
        async with self._pace.turn(tenant, LOOKING):
            return mapping_of(await self._api.send(tenant, "GET", path, params=params))


def make(parts: Parts) -> Resend:
    return Resend(parts)


async def _access(read: Reads, url: str) -> Access:
    return Access({"authorization": f"Bearer {await read('key')}"}, url)


def _alike(row: Mapping[str, Any], mail: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether what Resend says of an e-mail is what it was sent, as far as it says it."""
    for name in names:
        said, sent = row.get(name), mail.get(name)
        if name == "to":
            said = sorted(map(str, [said] if isinstance(said, str) else said or ()))
            sent = sorted(map(str, sent or ()))
        elif name in ("text", "html"):
            if said is None or sent is None:
                continue  # it may make the one out of the other
            said, sent = str(said).strip(), str(sent).strip()
        if said != sent:
            return False
    return True


def _plain(said: object) -> str:
    """What Resend says about one e-mail, on one line."""
    return "".join(each if each.isprintable() else " " for each in str(said)[:QUOTED])


def _safe(identifier: str) -> str:
    return "".join(each for each in identifier if each.isascii() and (each.isalnum() or each in "-_"))[:100]
