"""Pages and records of each object, as the vendor hands them over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Fields
from circuit_script.connectors.gohighlevel.asking import Asking, place
from circuit_script.connectors.gohighlevel.fields import NONE, CustomFields, Customs
from circuit_script.connectors.gohighlevel.objects import (
    APRIL,
    JULY,
    KINDS,
    Kind,
    listed,
    row_of,
)
from circuit_script.connectors.gohighlevel.searching import _YEAR_1970, PAGE, done_here, search_of
from circuit_script.connectors.query import All, Condition, Page, Plan, Query, Where, positive, words
from circuit_script.connectors.values import moment
from circuit_script.errors import QueryRefused, RequestRefused

NAME = "gohighlevel"
AT_ONCE = 10  # requests for one list of ids
YEARS = 2  # of appointments around now, where a query names no time
_YEAR = 365.25 * 86_400
OPPORTUNITIES, MESSAGES, CONVERSATIONS, TASKS = 100, 500, 100, 100  # rows of a page

_OPPORTUNITY = {"pipelineId": "pipeline_id", "pipelineStageId": "pipeline_stage_id", "contactId": "contact_id",
                "status": "status", "assignedTo": "assigned_to", "id": "id"}  # fmt: skip


class Reading:
    """Reads of all tenants. Raises Failed, QueryRefused, RequestRefused and NotConnected."""

    def __init__(self, asking: Asking, customs: CustomFields) -> None:
        self._asking = asking
        self._customs = customs

    async def page(self, tenant: str, query: Query, after: str | None, size: int) -> Page:
        kind = kind_of(query.object)
        location = await self._asking.location(tenant)
        customs = await self._customs.for_reading(tenant) if kind.model else NONE
        cursor = _cursor(after)
        keys = customs.keys(kind.model or "")
        found, more = await self._found(tenant, location, kind, query, cursor, size, customs)
        rows = []
        for each in found:
            try:
                rows.append(row_of(kind, each, keys))
            except ValueError:  # what has no id is no record of anybody
                continue
        return Page(rows, None if more is None else json.dumps(more))

    async def twins(self, tenant: str, object_: str) -> Mapping[str, str]:
        """The key of each custom field of an object, by its id."""
        model = kind_of(object_).model
        return (await self._customs.for_reading(tenant)).twins(model) if model else {}

    async def twins_at_hand(self, tenant: str, object_: str) -> Mapping[str, str]:
        """The same, as far as it is known; it is hardly waited for. Raises nothing."""
        kind = KINDS.get(object_)
        return (await self._customs.at_hand(tenant)).twins(kind.model) if kind and kind.model else {}

    async def _found(
        self, tenant: str, location: str, kind: Kind, query: Query, cursor: Any, size: int, customs: Customs
    ) -> tuple[Sequence[Any], Any]:
        match kind.name:
            case "Contact":
                return await self._contacts(tenant, location, query, cursor, size, customs)
            case "Opportunity":
                return await self._opportunities(tenant, location, query, cursor, size)
            case "Message":
                return await self._messages(tenant, location, query, cursor, size)
            case "Conversation":
                return await self._conversations(tenant, location, query, cursor, size)
            case "Task":
                return await self._tasks(tenant, location, query, cursor, size)
            case "Appointment":
                return _piece(await self._appointments(tenant, location, query), cursor, size)
            case "Note":
                contact = _needed(query, "Note", "contactId")
                path = place("/contacts/{contact}/notes", contact=contact)
                answer = await self._all_of(tenant, JULY, path, "notes")
                return _piece([{"contactId": contact, **each} for each in answer], cursor, size)
            case _:
                path, params, name, version = _small(kind, location)
                return _piece(await self._all_of(tenant, version, path, name, params), cursor, size)

    async def _all_of(
        self, tenant: str, version: str, path: str, name: str, params: dict[str, Any] | None = None
    ) -> Sequence[Any]:
        try:
            return listed(await self._asking.ask(tenant, version, "GET", path, params=params), name)
        except Failed as failed:
            if failed.missing:
                return []
            raise

    async def _contacts(
        self, tenant: str, location: str, query: Query, cursor: Any, size: int, customs: Customs
    ) -> tuple[Sequence[Any], Any]:
        body = {"locationId": location, "pageLimit": min(size, PAGE), **search_of(query, customs).body}
        if cursor is not None:
            body["searchAfter"] = cursor
        found = listed(await self._asking.ask(tenant, JULY, "POST", "/contacts/search", json=body), "contacts")
        full = len(found) == body["pageLimit"]
        return found, (found[-1].get("searchAfter") or None) if full else None

    async def _opportunities(
        self, tenant: str, location: str, query: Query, cursor: Any, size: int
    ) -> tuple[Sequence[Any], Any]:
        params = {"location_id": location, "limit": min(size, OPPORTUNITIES), "status": "all"}
        params |= {_OPPORTUNITY[name]: value for name, value in equals(query.where).items() if name in _OPPORTUNITY}
        if cursor is not None:
            params |= {"startAfter": cursor[0], "startAfterId": cursor[1]}
        answer = await self._asking.ask(tenant, JULY, "GET", "/opportunities/search", params=params)
        found = listed(answer, "opportunities")
        meta = answer.get("meta") if isinstance(answer, dict) else None
        more = None
        if len(found) == params["limit"] and isinstance(meta, dict) and meta.get("startAfterId"):
            more = [str(meta.get("startAfter")), str(meta["startAfterId"])]
        return found, more

    async def _messages(
        self, tenant: str, location: str, query: Query, cursor: Any, size: int
    ) -> tuple[Sequence[Any], Any]:
        """E-mails are a channel of their own there: they come after the others."""
        channel, place_ = cursor or ("", "")
        limit = min(max(size, 10), MESSAGES)
        params: dict[str, Any] = {"locationId": location, "limit": limit}
        wanted = equals(query.where)
        params |= {name: wanted[name] for name in ("contactId", "conversationId") if name in wanted}
        if channel:
            params["channel"] = channel
        if place_:
            params["cursor"] = place_
        answer = await self._asking.ask(tenant, APRIL, "GET", "/conversations/messages/export", params=params)
        found = listed(answer, "messages")
        more = answer.get("nextCursor") if isinstance(answer, dict) else None
        if more and found:
            return found, [channel, str(more)]
        return found, None if channel else ["Email", ""]

    async def _conversations(
        self, tenant: str, location: str, query: Query, cursor: Any, size: int
    ) -> tuple[Sequence[Any], Any]:
        limit = min(size, CONVERSATIONS)
        params: dict[str, Any] = {"locationId": location, "limit": limit, "sort": "desc", "sortBy": "last_message_date"}
        wanted = equals(query.where)
        params |= {name: wanted[name] for name in ("contactId", "id") if name in wanted}
        if cursor is not None:
            params["startAfterDate"] = cursor
        answer = await self._asking.ask(tenant, APRIL, "GET", "/conversations/search", params=params)
        found = listed(answer, "conversations")
        return found, found[-1].get("lastMessageDate") if len(found) == limit else None

    async def _tasks(
        self, tenant: str, location: str, query: Query, cursor: Any, size: int
    ) -> tuple[Sequence[Any], Any]:
        body: dict[str, Any] = {"limit": min(size, TASKS), "skip": int(cursor or 0)}
        wanted = equals(query.where)
        if "contactId" in wanted:
            body["contactId"] = [wanted["contactId"]]
        path = place("/locations/{location}/tasks/search", location=location)
        found = listed(await self._asking.ask(tenant, JULY, "POST", path, json=body), "tasks")
        return found, body["skip"] + len(found) if len(found) == body["limit"] else None

    async def _appointments(self, tenant: str, location: str, query: Query) -> list[Any]:
        wanted = equals(query.where)
        if "contactId" in wanted:
            return list(await self._all_of(
                tenant, JULY, place("/contacts/{contact}/appointments", contact=wanted["contactId"]), "events"
            ))  # fmt: skip
        begin, end = span(query.where, time.time())
        params = {"locationId": location, "startTime": str(round(begin * 1000)), "endTime": str(round(end * 1000))}
        if "assignedUserId" in wanted:
            asked = [{"userId": wanted["assignedUserId"]}]
        elif "calendarId" in wanted:
            asked = [{"calendarId": wanted["calendarId"]}]
        else:
            every = await self._all_of(tenant, APRIL, "/calendars/", "calendars", {"locationId": location})
            asked = [{"calendarId": str(each.get("id"))} for each in every]
        found: dict[Any, Any] = {}
        for each in asked:
            for event in await self._all_of(tenant, APRIL, "/calendars/events", "events", params | each):
                found.setdefault(event.get("id"), event)
        return list(found.values())

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        kind = kind_of(object_)
        if kind.one is None:
            rows = (await self.page(tenant, Query(object_), None, 10_000)).rows
            by_id = {row["id"]: row for row in rows}
            return [by_id.get(each) for each in ids]
        customs = await self._customs.for_reading(tenant) if kind.model else NONE
        keys = customs.keys(kind.model or "")
        door = asyncio.Semaphore(AT_ONCE)

        async def one(identifier: str) -> Fields | None:
            async with door:
                return await self.one(tenant, kind, identifier, keys)

        return list(await asyncio.gather(*map(one, ids)))

    async def one(self, tenant: str, kind: Kind, identifier: str, keys: dict[str, str]) -> Fields | None:
        """One record; None when there is none."""
        assert kind.one is not None
        contact, id_ = "", identifier
        if kind.of_contact:
            contact, _, id_ = identifier.rpartition("/")
            if not contact:
                raise RequestRefused(
                    f"a {kind.name} is found by its contact, too.",
                    cure=f'Give the id as "contact/{identifier[:60]}", or query by contactId.',
                )
        if id_ in ("", ".", "..") or contact in (".", ".."):
            return None
        location = await self._asking.location(tenant)
        path = place(kind.one, id_=id_, contact=contact, location=location)
        try:
            answer = await self._asking.ask(tenant, kind.version, "GET", path)
        except Failed as failed:
            if failed.missing or (failed.status in (400, 422) and not _likely(identifier)):
                return None
            raise
        found = answer.get(kind.wrapped) if kind.wrapped and isinstance(answer, dict) else answer
        try:
            return row_of(kind, found, keys) if isinstance(found, dict) else None
        except ValueError:
            return None


def explain(query: Query) -> Plan:
    """How `Reading.page` would answer, in words."""
    kind = kind_of(query.object)
    unordered = "puts them in order here: the vendor cannot" if query.order_by else ""
    match kind.name:
        case "Contact":
            search = search_of(query, None)
            asked = json.dumps({**search.body, "pageLimit": PAGE}, ensure_ascii=False)
            notes = done_here(search.here)
            if not search.ordered:
                notes += (unordered,)
            return Plan(NAME, (f"POST /contacts/search {asked}",), notes, search.ordered)
        case "Opportunity":
            request, can = "GET /opportunities/search", frozenset(_OPPORTUNITY)
        case "Message":
            request, can = "GET /conversations/messages/export", frozenset({"contactId", "conversationId"})
        case "Conversation":
            request, can = "GET /conversations/search", frozenset({"contactId", "id"})
        case "Task":
            request, can = "POST /locations/{location}/tasks/search", frozenset({"contactId"})
        case "Note":
            request, can = "GET /contacts/{contactId}/notes", frozenset({"contactId"})
        case "Appointment":
            can = frozenset({"contactId", "calendarId", "assignedUserId"})
            request = "GET /calendars/events"
            if "contactId" in equals(query.where):
                request = "GET /contacts/{contactId}/appointments"
            elif not can & equals(query.where).keys():
                request += " for each calendar"
        case _:
            request, can = f"GET {_small(kind, '{location}')[0]}", frozenset()
    wanted = equals(query.where)
    told = {name: value for name, value in wanted.items() if name in can}
    rest = [
        each
        for each in parts_of(query.where)
        if not (isinstance(each, Condition) and each.op == "eq" and each.field in told)
    ]
    here = tuple(f"filters by {words(each)}: the vendor cannot be asked for it" for each in rest)
    if kind.name == "Appointment" and "contactId" not in wanted and not _bounded(query.where):
        here += (f"looks {YEARS} years back and ahead: a query for appointments without a time has to end somewhere",)
    return Plan(NAME, (f"{request} {json.dumps(told)}" if told else request,),
                here + ((unordered,) if unordered else ()), not query.order_by)  # fmt: skip


def kind_of(object_: str) -> Kind:
    """Raises QueryRefused for what GoHighLevel does not have."""
    if (kind := KINDS.get(object_)) is None:
        raise QueryRefused(f"GoHighLevel has no {object_[:80]!r}.", cure=f"It has {', '.join(sorted(KINDS))}.")
    return kind


def parts_of(where: Where) -> Sequence[Where]:
    """What must hold, each by itself."""
    flat = positive(where)
    return flat.parts if isinstance(flat, All) else (flat,)


def equals(where: Where) -> dict[str, str]:
    """Fields that must equal one text."""
    return {
        each.field: each.value
        for each in parts_of(where)
        if isinstance(each, Condition) and each.op == "eq" and isinstance(each.value, str) and each.value
    }


def _bounded(where: Where) -> bool:
    return any(
        isinstance(each, Condition) and each.field == "startTime" and each.op != "is_null" for each in parts_of(where)
    )


def span(where: Where, now: float) -> tuple[float, float]:
    """From when to when appointments are asked for, in seconds since 1970: what a query says of ``startTime``."""
    begin, end = now - YEARS * _YEAR, now + YEARS * _YEAR
    for each in parts_of(where):
        if not isinstance(each, Condition) or each.field != "startTime" or (instant := moment(each.value)) is None:
            continue
        seconds = instant / 1_000_000 - _YEAR_1970
        if each.op in ("gt", "ge"):
            begin = seconds
            end = max(end, begin + YEARS * _YEAR)
        elif each.op in ("lt", "le"):
            end = seconds
            begin = min(begin, end - YEARS * _YEAR)
        elif each.op == "eq":
            begin, end = seconds, seconds
    return begin - 1, end + 1


def _needed(query: Query, kind: str, name: str) -> str:
    if (found := equals(query.where).get(name)) is None:
        raise QueryRefused(
            f"GoHighLevel gives a {kind} by its {name} only.", cure=f"Ask for one {name}: {name}=contact['id']."
        )
    return found


def _small(kind: Kind, location: str) -> tuple[str, dict[str, Any] | None, str, str]:
    """What is little enough to come as a whole: path, parameters, the list's name, version."""
    match kind.name:
        case "Calendar":
            return "/calendars/", {"locationId": location}, "calendars", APRIL
        case "Pipeline":
            return "/opportunities/pipelines", {"locationId": location}, "pipelines", JULY
        case "Tag":
            return f"/locations/{location}/tags", None, "tags", JULY
        case _:
            return f"/locations/{location}/customFields", {"model": "all"}, "customFields", JULY


def _piece(found: Sequence[Any], cursor: Any, size: int) -> tuple[Sequence[Any], Any]:
    start = int(cursor or 0)
    return found[start : start + size], start + size if start + size < len(found) else None


def _cursor(after: str | None) -> Any:
    try:
        return None if after is None else json.loads(after)
    except ValueError:
        raise QueryRefused("this is no place in a list of GoHighLevel's.") from None


def _likely(identifier: str) -> bool:
    """Whether it looks like an id of the vendor's: one that does not, it refuses as malformed."""
    return identifier.isascii() and identifier.isalnum() and 15 <= len(identifier) <= 40
