"""What became of a write of which no answer came.

An update, a delete and an upsert of a contact may simply be done again. What was made is looked for: a contact by its
e-mail or phone, or by the reference in the custom field that is made for it; the others among what their contact has.
Found is what equals it, was made since the effect was and is no other effect's. A message that is not found may still
be on its way, so it is never sent again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from circuit_script.clock import time_of
from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Delivered, Effect, Fields, Later
from circuit_script.connectors.gohighlevel.asking import Asking, place
from circuit_script.connectors.gohighlevel.fields import CustomFields, json_text
from circuit_script.connectors.gohighlevel.objects import APRIL, JULY, KINDS, empty, listed, text_of
from circuit_script.connectors.gohighlevel.reading import Reading
from circuit_script.connectors.gohighlevel.writing import MARKER, Wrong, is_reference, parts_of
from circuit_script.connectors.messengers import Claims
from circuit_script.connectors.values import moment

APART = 300.0  # seconds by which the vendor's clock may be behind ours
INDEXED = 3.0  # seconds that its searches may be behind its records
NOT_THERE = "no answer came, and the vendor has no such record"

Found = Delivered | Later | None


class Doubt:
    """Looks for what was made. Raises Failed."""

    def __init__(
        self, asking: Asking, customs: CustomFields, reading: Reading, claims: Claims, *, indexed: float = INDEXED
    ) -> None:
        self._asking = asking
        self._claims = claims
        self._reading = reading
        self._customs = customs
        self._indexed = indexed

    async def look_up(self, effect: Effect) -> Found:
        """Delivered, Later (it was not done), or None: nobody can know."""
        kind = KINDS.get(effect.target)
        if kind is None:
            return Later(NOT_THERE)
        try:
            identifier, fields = parts_of(effect)
        except Wrong as wrong:
            return Later(str(wrong))
        if effect.operation != "insert" and not is_reference(identifier):
            return await self._changed(effect, identifier, fields)
        contact = str(fields.get("contactId") or "")
        match effect.target:
            case "Contact":
                return await self._contact(effect, fields)
            case "Message":
                return await self._message(effect, fields, contact)
            case "Note":
                found = await self._of(effect, "/contacts/{contact}/notes", "notes", contact)
                return await self._like(effect, found, {"body": fields.get("body")}, "dateAdded")
            case "Task":
                found = await self._of(effect, "/contacts/{contact}/tasks", "tasks", contact)
                return await self._like(
                    effect, found, {each: fields.get(each) for each in ("title", "body", "dueDate")}, None
                )
            case "Appointment":
                found = await self._of(effect, "/contacts/{contact}/appointments", "events", contact)
                return await self._like(
                    effect, found, {each: fields.get(each) for each in ("calendarId", "startTime")}, None
                )
            case "Opportunity":
                return await self._twice(lambda: self._opportunity(effect, fields, contact))
            case "Tag":
                location = await self._asking.location(effect.tenant)
                path = place("/locations/{location}/tags", location=location)
                tags = listed(await self._asking.ask(effect.tenant, JULY, "GET", path), "tags")
                wanted = str(fields.get("name", "")).lower()
                found = [each for each in tags if each.get("name") == wanted]  # of a name there is one, whoever made it
                return Delivered(str(found[0].get("id"))) if found else Later(NOT_THERE)
            case _:
                return Later(NOT_THERE)

    async def _contact(self, effect: Effect, fields: Fields) -> Found:
        customs = await self._customs.for_reading(effect.tenant)
        marker = customs.find("contact", MARKER)
        email, phone = fields.get("email"), fields.get("phone")
        if not (email or phone or marker):
            return None
        if effect.operation == "upsert" and (email or phone):
            return Later("it finds whom it has made")
        location = await self._asking.location(effect.tenant)
        params = {"locationId": location, **({"email": str(email)} if email else {}),
                  **({"number": str(phone)} if phone and not email else {})}  # fmt: skip
        if email or phone:
            answer = await self._asking.ask(effect.tenant, JULY, "GET", "/contacts/search/duplicate", params=params)
            person = answer.get("contact") if isinstance(answer, dict) else None
            if isinstance(person, dict) and self._is_ours(effect, person, marker.id if marker else None):
                return Delivered(str(person["id"]))
        wanted = ({"field": f"customFields.{marker.id}", "operator": "eq", "value": str(effect.id)} if marker else
                  {"field": "email" if email else "phone", "operator": "eq", "value": str(email or phone)})  # fmt: skip
        body = {"locationId": location, "pageLimit": 20, "filters": [wanted],
                "sort": [{"field": "dateAdded", "direction": "desc"}]}  # fmt: skip

        async def search() -> Found:
            found = listed(
                await self._asking.ask(effect.tenant, JULY, "POST", "/contacts/search", json=body), "contacts"
            )
            ours = next((each for each in found if self._is_ours(effect, each, marker.id if marker else None)), None)
            return Later(NOT_THERE) if ours is None else Delivered(str(ours["id"]))

        return await self._twice(search)

    def _is_ours(self, effect: Effect, person: Mapping[str, Any], marker: str | None) -> bool:
        if not person.get("id"):
            return False
        if marker is not None:
            entries = person.get("customFields")
            return any(
                isinstance(each, dict) and each.get("id") == marker and each.get("value") == str(effect.id)
                for each in (entries if isinstance(entries, list) else ())
            )
        return self._since(effect, person.get("dateAdded"))

    async def _changed(self, effect: Effect, identifier: str, fields: Fields) -> Found:
        """A change may be made again, unless it stands there already."""
        kind = KINDS[effect.target]
        if kind.one is None or kind.of_contact:
            return Later("it may be done again")
        customs = await self._customs.for_reading(effect.tenant)
        row = await self._reading.one(effect.tenant, kind, identifier, customs.keys(kind.model or ""))
        there = row is not None and all(same(row.get(name), value) for name, value in fields.items())
        return Delivered(identifier) if there else Later("it may be done again")

    async def _message(self, effect: Effect, fields: Fields, contact: str) -> Found:
        kind = str(fields.get("messageType") or fields.get("type") or "SMS")
        said = fields.get("html") or fields.get("message") or fields.get("body")
        params: dict[str, Any] = {"locationId": await self._asking.location(effect.tenant), "contactId": contact,
                                  "limit": 50}  # fmt: skip
        if kind == "Email":
            params["channel"] = "Email"
        path = "/conversations/messages/export"
        found = listed(await self._asking.ask(effect.tenant, APRIL, "GET", path, params=params), "messages")
        sent = [each for each in found if each.get("direction") == "outbound"]
        ours = await self._like(effect, sent, {"body": said}, "dateAdded")
        return ours if isinstance(ours, Delivered) else None

    async def _opportunity(self, effect: Effect, fields: Fields, contact: str) -> Found:
        params = {"location_id": await self._asking.location(effect.tenant), "contact_id": contact, "status": "all",
                  "limit": 100}  # fmt: skip
        answer = await self._asking.ask(effect.tenant, JULY, "GET", "/opportunities/search", params=params)
        wanted = {each: fields.get(each) for each in ("name", "pipelineId")}
        return await self._like(effect, listed(answer, "opportunities"), wanted, "createdAt")

    async def _of(self, effect: Effect, path: str, name: str, contact: str) -> Sequence[Mapping[str, Any]]:
        try:
            return listed(await self._asking.ask(effect.tenant, JULY, "GET", place(path, contact=contact)), name)
        except Failed as failed:
            if failed.missing:
                return []
            raise

    async def _twice(self, look: Callable[[], Awaitable[Found]]) -> Found:
        """Searches may be behind: what is not found is looked for once more."""
        found = await look()
        if isinstance(found, Later) and self._indexed:
            await asyncio.sleep(self._indexed)
            found = await look()
        return found

    async def _like(
        self, effect: Effect, found: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], made: str | None
    ) -> Delivered | Later:
        like = [
            str(each.get("id"))
            for each in found
            if all(value is None or _alike(each.get(name), value) for name, value in wanted.items())
            and (made is None or self._since(effect, each.get(made)))
        ]
        free = await self._claims.free(effect, like)
        if not free:
            return Later(NOT_THERE)
        self._claims.claim(effect, free[0])
        return Delivered(free[0])

    def _since(self, effect: Effect, made: Any) -> bool:
        """Whether a record was made since the effect was, as far as two clocks can tell."""
        if effect.id.version != 7:
            return True
        instant = moment(str(made))
        since = moment(text_of(time_of(effect.id).timestamp() - APART))
        return instant is None or since is None or instant >= since


def same(one: Any, other: Any) -> bool:
    """Whether a value stands there as it was written: nothing is as good as empty."""
    return (empty(one) and empty(other)) or _alike(one, other)


def _alike(one: Any, other: Any) -> bool:
    if one == other or str(one) == str(other):
        return True
    if isinstance(other, list | dict):
        return bool(one == json_text(other))
    first = moment(one)
    return first is not None and first == moment(other)
