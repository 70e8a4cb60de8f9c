"""Reads of Salesforce: SOQL by pages, and records by their ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import Fields, Refused
from circuit_script.connectors.query import Order, Page, Plan, Query, conditions
from circuit_script.connectors.salesforce.described import Described, FieldType, Schemas
from circuit_script.connectors.salesforce.names import DAYS, Names, is_id
from circuit_script.connectors.salesforce.soql import Statement, literal, statement
from circuit_script.errors import QueryRefused, RequestRefused, VendorUnavailable

LEAST, MOST = 200, 2000  # rows of one page of Salesforce's
LONGEST_URL = 12_000  # bytes of a query in an address; longer ones travel in a body
PATIENCE = 60.0
_LOCATOR = re.compile(r"[A-Za-z0-9]{10,40}-[0-9]{1,9}", re.ASCII)
_PLACE = re.compile(r"([A-Za-z0-9]{10,40}-[0-9]{1,9})?(?:\+([0-9]{1,4}))?", re.ASCII)
_MOMENTS = frozenset({"CreatedDate", "LastModifiedDate", "SystemModstamp", "StartDateTime", "EndDateTime"})
_NUMBERS = frozenset({"Amount"})


class Reads:
    """Queries of one connector."""

    def __init__(self, api: Api, version: str, names: Names, schemas: Schemas) -> None:
        self._api = api
        self._base = f"/services/data/v{version}"
        self._version = version
        self._names = names
        self._schemas = schemas

    async def page(self, tenant: str, query: Query, after: str | None, size: int) -> Page:
        """A cursor is Salesforce's own locator of a page (none of the first), and how many of its rows were read
        where they were more than was asked for. Raises Failed, RequestRefused, VendorUnavailable."""
        promised = self.explain(query).ordered
        sobject = self._names.sobject(query.object)
        described = await self._schemas.of(tenant, sobject)
        types = {name: field.kind for name, field in described.items()}
        locator, skip = _place(after)
        if locator:
            said = _json(await self._api.send(tenant, "GET", f"{self._base}/query/{locator}", timeout=PATIENCE))
        else:
            made = self._statement(query, sobject, described)
            if promised and not made.ordered:  # another org's field of this name is a number, this one's is text
                raise VendorUnavailable(f"the fields of {query.object} were not known yet; ask again.")
            said = await self._ask(tenant, made.text, min(MOST, max(LEAST, skip + size)))
        rows = self._rows(query.object, said, types)
        end = skip + max(1, size)
        return Page(rows[skip:end], f"{locator}+{end}" if end < len(rows) else self._next(said))

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        """Records by their ids, parallel to them. Raises Failed, VendorUnavailable."""
        sobject = self._names.sobject(object_)
        described = await self._schemas.of(tenant, sobject)
        types = {name: field.kind for name, field in described.items()}
        wanted = list(dict.fromkeys(each for each in ids if is_id(each)))
        found: dict[str, Fields] = {}
        for start in range(0, len(wanted), MOST):
            part = wanted[start : start + MOST]
            answer = await self._api.send(
                tenant,
                "POST",
                f"{self._base}/composite/sobjects/{sobject}",
                json={"ids": part, "fields": sorted(described)},
                timeout=PATIENCE,
            )
            said = _json(answer)
            if not isinstance(said, list) or len(said) != len(part):
                raise VendorUnavailable("salesforce answered with something else than a record for each id.")
            for identifier, record in zip(part, said, strict=True):
                if isinstance(record, Mapping):
                    found[identifier] = self._names.row(object_, record, types)
        return [found.get(each) for each in ids]

    async def find(self, tenant: str, object_: str, field: str, value: str) -> str | None:
        """The id of the record whose external id this is. Raises Failed, VendorUnavailable."""
        text = f"SELECT Id FROM {self._names.sobject(object_)} WHERE {field} = {literal(value)} LIMIT 2"
        said = await self._ask(tenant, text, LEAST)
        records = said.get("records") if isinstance(said, Mapping) else None
        if not isinstance(records, list):
            raise VendorUnavailable("salesforce answered a query with something else than records.")
        ids = [each.get("Id") for each in records if isinstance(each, Mapping)]
        return ids[0] if len(ids) == 1 and is_id(ids[0]) else None

    def explain(self, query: Query) -> Plan:
        """By what is known of the fields without asking: what orgs said before, else the usual ones."""
        sobject = self._names.sobject(query.object)
        made = self._statement(query, sobject, None)
        request = f"GET {self._base}/query?q={made.text}"
        return Plan("salesforce", (request,), made.here, ordered=made.ordered)

    def _statement(self, query: Query, sobject: str, described: Described | None) -> Statement:
        known = self._schemas.agreed(sobject) if described is None else described

        def types(field: str) -> FieldType | None:
            theirs = self._names.theirs(query.object, field)
            if described is None:
                return known.get(theirs) or _usual(theirs)
            if theirs not in described:
                raise RequestRefused(
                    f"{query.object} has no field {field[:80]!r} in Salesforce, or not one that it shows us.",
                    cure=f"Say what it is called there: [connectors.salesforce.fields.{query.object}] {field[:80]} = …",
                )
            return described[theirs]

        if query.fields:
            asked = {*query.fields, *(each.field for each in conditions(query.where)), *_fields(query.order_by)}
            theirs = {self._names.theirs(query.object, each) for each in asked}
            for each in asked:
                types(each)
        else:
            # Without a tenant, only what every one has: names of fields are their org's own.
            theirs = set(self._names.mapped(query.object).values()) if described is None else set(described)
        return statement(query, sobject, ["Id", *sorted(theirs - {"Id"})], types)

    async def _ask(self, tenant: str, text: str, size: int) -> Any:
        address = f"query?q={quote(text, safe='')}"
        options = {"sforce-query-options": f"batchSize={size}"}
        if len(address) <= LONGEST_URL:
            return _json(
                await self._api.send(tenant, "GET", f"{self._base}/{address}", headers=options, timeout=PATIENCE)
            )
        asked = {"batchRequests": [{"method": "GET", "url": f"v{self._version}/{address}"}]}
        answer = _json(
            await self._api.send(
                tenant, "POST", f"{self._base}/composite/batch", json=asked, headers=options, timeout=PATIENCE
            )
        )
        results = answer.get("results") if isinstance(answer, Mapping) else None
        first = results[0] if isinstance(results, list) and results and isinstance(results[0], Mapping) else {}
        if first.get("statusCode") == 200:
            return first.get("result")
        errors = first.get("result")
        words = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], Mapping) else {}
        code = str(words.get("errorCode") or "")[:80]
        raise Failed(Refused(f"{code}: {str(words.get('message') or 'it was refused')[:200]}"), code=code)

    def _rows(self, object_: str, said: Any, types: Mapping[str, str]) -> list[Fields]:
        records = said.get("records") if isinstance(said, Mapping) else None
        if not isinstance(records, list):
            raise VendorUnavailable("salesforce answered a query with something else than records.")
        return [self._names.row(object_, each, types) for each in records if isinstance(each, Mapping)]

    def _next(self, said: Any) -> str | None:
        """The locator of the next page, out of the address that Salesforce gives."""
        if said.get("done") is not False:
            return None
        found = str(said.get("nextRecordsUrl") or "").rpartition("/")[2]
        if not _LOCATOR.fullmatch(found):
            raise VendorUnavailable("salesforce does not say where its next records are.")
        return found


def _place(after: str | None) -> tuple[str, int]:
    """The locator of a cursor, and the rows of its page that were read. Raises QueryRefused."""
    found = _PLACE.fullmatch(after or "")
    if found is None or after == "":
        raise QueryRefused("this is no place in the pages of a query.")
    return found[1] or "", int(found[2] or 0)


def _fields(order_by: Sequence[Order]) -> list[str]:
    return [each.field for each in order_by]


def _usual(name: str) -> FieldType | None:
    """What a field is in every org, where that is known by its name."""
    if name == "Id":
        return FieldType(name, "id")
    if name in DAYS:
        return FieldType(name, "date")
    if name in _MOMENTS:
        return FieldType(name, "datetime")
    if name in _NUMBERS:
        return FieldType(name, "currency")
    return FieldType(name, "string")


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise VendorUnavailable("salesforce answered with something else than JSON.") from None
