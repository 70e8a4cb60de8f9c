"""Reads of HubSpot: all records of an object as a list, others by search, those that are known by their ids.

A search gives 10,000 rows at most, so its pages go by ids: each asks for those behind the last one. It sees a change
some seconds after it was made; the list, and what is read by ids, see it at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from circuit_script.connectors.connector import Fields
from circuit_script.connectors.hubspot.filters import asked, body_of, groups_of
from circuit_script.connectors.hubspot.names import IDENTITY, Names, is_id
from circuit_script.connectors.hubspot.pace import Paced
from circuit_script.connectors.hubspot.properties import Kinds, Schemas
from circuit_script.connectors.hubspot.settings import CONTACT
from circuit_script.connectors.query import EVERYTHING, AnyOf, Condition, Page, Plan, Query, Where, split, words
from circuit_script.errors import QueryRefused, RequestRefused, VendorUnavailable

LISTED, FOUND, READ, LINKED = 100, 200, 100, 1000  # records in one request: list, search, by ids, associations
LONGEST_LIST = 6000  # characters of the properties in an address
_CURSOR = re.compile(r"[A-Za-z0-9_=-]{1,200}", re.ASCII)


class Reads:
    """Queries of one connector."""

    def __init__(self, api: Paced, names: Names, schemas: Schemas) -> None:
        self._api = api
        self._names = names
        self._schemas = schemas

    async def page(self, tenant: str, query: Query, after: str | None, size: int) -> Page:
        """A cursor is the id of the last row, of a list HubSpot's own. Raises as ``get``, and
        RequestRefused."""
        if after is not None and _CURSOR.fullmatch(after) is None:
            raise QueryRefused("this is no place in the pages of a query.")
        object_ = self._names.object(query.object)
        kinds = await self._schemas.of(tenant, object_)
        wanted = self._wanted(query, kinds)
        where = self._asked(query, kinds, strict=True)[0]
        if where == AnyOf(()):
            return Page([], None)
        if where == EVERYTHING:
            records, more = await self._list(tenant, object_, wanted, after, size)
        elif after is not None and not is_id(after):
            raise QueryRefused("this is no place in the pages of this query.")
        elif (ids := _ids(where)) is not None:
            known = sorted({each for each in ids if is_id(each)}, key=int)
            rest = [each for each in known if after is None or int(each) > int(after)]
            records = await self._by_ids(tenant, object_, wanted, rest[: max(1, size)])
            more = rest[max(1, size) - 1] if len(rest) > max(1, size) else None
        else:
            records, more = await self._search(tenant, object_, query, where, kinds, wanted, after, size)
        return Page(await self._rows(tenant, query.object, records, kinds, self._wants_contact(query)), more)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        """Records by their ids, parallel to them. Raises Failed, VendorUnavailable."""
        theirs = self._names.object(object_)
        kinds = await self._schemas.of(tenant, theirs)
        wanted = list(dict.fromkeys(each for each in ids if is_id(each)))
        records = await self._by_ids(tenant, theirs, self._usual(object_, kinds), wanted)
        rows = await self._rows(tenant, object_, records, kinds, self._names.has_contact(object_))
        found = {row["id"]: row for row in rows}
        return [found.get(each) for each in ids]

    async def find(self, tenant: str, object_: str, name: str, value: str) -> str | None:
        """The id of the record of which a unique property has this value. Raises Failed, VendorUnavailable."""
        body = {"properties": [IDENTITY], "idProperty": name, "inputs": [{"id": value}]}
        answer = await self._api.send(
            tenant, "POST", f"/crm/v3/objects/{self._names.object(object_)}/batch/read", json=body
        )
        ids = [str(each.get("id")) for each in results_of(answer)]
        return ids[0] if len(ids) == 1 and is_id(ids[0]) else None

    def explain(self, query: Query) -> Plan:
        """By what is known of the properties without asking: what accounts said before, else the usual ones."""
        object_ = self._names.object(query.object)
        kinds = self._schemas.agreed(object_)
        where, here = self._asked(query, kinds, strict=False)
        said = [] if here == EVERYTHING else [f"{words(here)}: HubSpot compares otherwise, or not at all"]
        ordered = not query.order_by
        if not ordered:
            said.append("the order: HubSpot orders by one property, and gives 10,000 records in it")
        said.append(f"limit {query.limit:,}")
        if where == EVERYTHING:
            request = f"GET /crm/v3/objects/{object_}?limit={LISTED}"
        elif (ids := _ids(where)) is not None:
            request = f"POST /crm/v3/objects/{object_}/batch/read of {len(ids):,} ids"
        else:
            body, _ = body_of(self._groups(query, where, kinds, strict=False), "0", [], FOUND)
            request = f"POST /crm/v3/objects/{object_}/search {body['filterGroups']}"
        return Plan("hubspot", (request,), tuple(said), ordered=ordered)

    # --- what is asked

    def _kind(self, object_: str, field: str, kinds: Kinds, *, strict: bool) -> tuple[str, str] | None:
        if field == CONTACT and self._names.has_contact(object_):
            return CONTACT, "association"
        name = self._names.theirs(object_, field)
        if name not in kinds and strict:
            raise RequestRefused(
                f"{object_} has no property {field[:80]!r} in HubSpot, or not one that it shows us.",
                cure=f"Say what it is called there: [connectors.hubspot.fields.{object_}] {field[:80]} = …",
            )
        return name, kinds.get(name, "string")

    def _asked(self, query: Query, kinds: Kinds, *, strict: bool) -> tuple[Where, Where]:
        for each in query.order_by:
            self._kind(query.object, each.field, kinds, strict=strict)

        def can(condition: Condition) -> bool:
            known = self._kind(query.object, condition.field, kinds, strict=strict)
            if condition.field == "id" and condition.op == "in":
                return bool(condition.value) and None not in condition.value
            if condition.field == CONTACT and not self._names.has_contact(query.object):
                return False
            return asked(condition, known) is not None

        return split(query.where, can)

    def _groups(self, query: Query, where: Where, kinds: Kinds, *, strict: bool) -> list[list[dict[str, Any]]]:
        return groups_of(where, lambda field: self._kind(query.object, field, kinds, strict=strict))

    def _wants_contact(self, query: Query) -> bool:
        return self._names.has_contact(query.object) and (not query.read or CONTACT in query.read)

    def _wanted(self, query: Query, kinds: Kinds) -> list[str]:
        """The properties that are read."""
        if not query.read:
            return self._usual(query.object, kinds)
        known = (self._kind(query.object, each, kinds, strict=True) for each in query.read)
        return sorted({each[0] for each in known if each is not None and each[0] != CONTACT})

    def _usual(self, object_: str, kinds: Kinds) -> list[str]:
        """Those that we have names for, and those that people made: not the hundreds that HubSpot keeps for itself."""
        mapped = set(self._names.mapped(object_).values())
        own = {each for each in (self._names.external(object_),) if each}
        return sorted(each for each in kinds if each in mapped | own or not each.startswith("hs_"))

    # --- requests

    async def _list(
        self, tenant: str, object_: str, wanted: list[str], after: str | None, size: int
    ) -> tuple[list[Mapping[str, Any]], str | None]:
        records: list[Mapping[str, Any]] = []
        named = ",".join(wanted)
        by_ids = len(named) > LONGEST_LIST
        while True:
            limit = max(1, min(LISTED, size - len(records)))
            params = {"limit": str(limit), "properties": IDENTITY if by_ids else named}
            if after is not None:
                params["after"] = after
            answer = await self._api.send(tenant, "GET", f"/crm/v3/objects/{object_}", params=params)
            found = results_of(answer)
            records += await self._by_ids(tenant, object_, wanted, _ids_of(found)) if by_ids else found
            after = _after(answer)
            if after is None or not found or len(records) >= size:  # who reads counts pages without a row
                return records, after

    async def _search(
        self,
        tenant: str,
        object_: str,
        query: Query,
        where: Where,
        kinds: Kinds,
        wanted: list[str],
        after: str | None,
        size: int,
    ) -> tuple[list[Mapping[str, Any]], str | None]:
        groups = self._groups(query, where, kinds, strict=True)
        body, whole = body_of(groups, after or "0", wanted, max(1, min(FOUND, size)))
        answer = await self._api.search(tenant, f"/crm/v3/objects/{object_}/search", body)
        found = sorted(results_of(answer), key=lambda each: int(each["id"]))
        last = _ids_of(found)[-1] if found and _after(answer) is not None else None
        if not whole:
            found = await self._by_ids(tenant, object_, wanted, _ids_of(found))
        return found, last

    async def _by_ids(
        self, tenant: str, object_: str, wanted: list[str], ids: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(ids), READ):
            inputs = [{"id": each} for each in ids[start : start + READ]]
            body = {"properties": wanted, "inputs": inputs}
            answer = await self._api.send(tenant, "POST", f"/crm/v3/objects/{object_}/batch/read", json=body)
            found |= {str(each["id"]): each for each in results_of(answer)}
        return [found[each] for each in ids if each in found]

    async def _rows(
        self, tenant: str, object_: str, records: Sequence[Mapping[str, Any]], kinds: Kinds, contact: bool
    ) -> list[Fields]:
        rows = [self._names.row(object_, each, kinds) for each in records]
        if contact:
            theirs = self._names.object(object_)
            for start in range(0, len(rows), LINKED):
                part = rows[start : start + LINKED]
                body = {"inputs": [{"id": row["id"]} for row in part]}
                path = f"/crm/v4/associations/{theirs}/contacts/batch/read"
                links = _links(await self._api.send(tenant, "POST", path, json=body))
                for row in part:
                    row[CONTACT] = links.get(row["id"])
        return rows


def results_of(answer: httpx.Response) -> list[Mapping[str, Any]]:
    """The records of an answer. Raises VendorUnavailable for what has none."""
    said = _json(answer)
    listed = said.get("results") if isinstance(said, Mapping) else None
    if not isinstance(listed, list):
        raise VendorUnavailable("hubspot answered with something else than records.")
    return [each for each in listed if isinstance(each, Mapping) and is_id(str(each.get("id")))]


def _links(answer: httpx.Response) -> dict[str, str]:
    """Of each record the first contact that it belongs to."""
    said = _json(answer)
    found: dict[str, str] = {}
    for each in said.get("results") or [] if isinstance(said, Mapping) else []:
        try:
            found.setdefault(str(each["from"]["id"]), str(each["to"][0]["toObjectId"]))
        except (KeyError, IndexError, TypeError):
            continue
    return found


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise VendorUnavailable("hubspot answered with something else than JSON.") from None


def _after(answer: httpx.Response) -> str | None:
    """Where the next page begins, as HubSpot says; None at the end."""
    said = _json(answer)
    paging = said.get("paging") if isinstance(said, Mapping) else None
    following = paging.get("next") if isinstance(paging, Mapping) else None
    if not following:
        return None
    found = str(following.get("after") if isinstance(following, Mapping) else "")
    if _CURSOR.fullmatch(found) is None:
        raise VendorUnavailable("hubspot does not say where its next records are.")
    return found


def _ids_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each["id"]) for each in records]


def _ids(where: Where) -> tuple[str, ...] | None:
    """The ids that alone are asked for."""
    if isinstance(where, Condition) and where.field == "id" and where.op in ("eq", "in"):
        return (str(where.value),) if where.op == "eq" else tuple(str(each) for each in where.value)
    return None
