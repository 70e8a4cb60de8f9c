"""Salesforce: records of an org as a CRM of ours, and writes of them as effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx

from circuit_script.connectors.api import Credentials, Failed
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    Fields,
    InDoubt,
    Later,
    Operation,
    Page,
    Plan,
    Query,
)
from circuit_script.connectors.salesforce.bulk import Bulk
from circuit_script.connectors.salesforce.described import Schemas
from circuit_script.connectors.salesforce.facts import facts_of
from circuit_script.connectors.salesforce.faults import FAULTS, code_of, wait_of
from circuit_script.connectors.salesforce.names import Names, is_id
from circuit_script.connectors.salesforce.reads import Reads
from circuit_script.connectors.salesforce.settings import SalesforceSettings
from circuit_script.connectors.salesforce.usage import CountingApi
from circuit_script.connectors.salesforce.writes import Collections, Item, Verb
from circuit_script.connectors.stands import stands
from circuit_script.connectors.ways import deliver_by_way
from circuit_script.errors import RequestRefused
from circuit_script.schemas.facts import FieldFacts

NAME = "salesforce"
MOST = 10_000  # effects at once
LONGEST_KEY = 255  # characters of an external id
MARGIN = 120.0  # seconds for what comes before and after a job
CHANGED = "LastModifiedDate"  # every object that has records of people's has it; filtered and ordered by
_VERBS: Mapping[str, Verb] = {"insert": "insert", "update": "update", "upsert": "upsert", "delete": "delete"}


@dataclass(frozen=True, slots=True)
class _Way:
    """How an effect goes: what is asked of Salesforce, and the external id by which it is asked, if one is."""

    verb: Verb
    sobject: str
    external: str | None = None


class Salesforce:
    """A `Connector`, `CRM` and `LooksUp`.

    An update or a delete may be sent again. An insert (and an upsert of what has no id yet) of which no answer came is
    looked up by its external id, where the object has one; else a person is asked.
    """

    name = NAME

    def __init__(
        self, client: httpx.AsyncClient, credentials: Credentials, settings: SalesforceSettings | None = None
    ) -> None:
        self._settings = settings = settings or SalesforceSettings()
        self._api = CountingApi(
            client, credentials, name=NAME, faults=FAULTS, code_of=code_of, wait_of=wait_of, timeout=15.0
        )
        self._names = Names(settings)
        self._schemas = Schemas(self._api, settings.version)
        self._reads = Reads(self._api, settings.version, self._names, self._schemas)
        self._collections = Collections(self._api, settings.version, self._names)
        self._bulk = Bulk(self._api, settings.version, self._names, self._collections, seconds=settings.bulk_seconds)
        seconds = settings.bulk_seconds + MARGIN
        repeats = Operation(InDoubt.REPEAT, bulk=MOST, timeout=seconds)
        makes = Operation(InDoubt.LOOK_UP, bulk=MOST, timeout=seconds, makes_ids=True)
        self.operations: Mapping[str, Operation] = {
            "insert": makes,
            "update": repeats,
            "upsert": makes,
            "delete": replace(repeats, irreversible=True),
        }
        self.objects: frozenset[str] = self._names.objects
        self.changed_field: Mapping[str, str] = {each: self._names.ours(each, CHANGED) for each in self.objects}

    @property
    def usage(self) -> Mapping[str, tuple[int, int]]:
        """Requests of 24 hours that each tenant's org has used, and may use, as it said last."""
        return self._api.usage

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        return await self._reads.page(tenant, query, after, size)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return await self._reads.get(tenant, object_, ids)

    def explain(self, query: Query) -> Plan:
        return self._reads.explain(query)

    async def described(self, tenant: str, object_: str) -> list[FieldFacts]:
        """Every field of an object in the tenant's org. Raises Failed, RequestRefused, VendorUnavailable."""
        return facts_of(await self._schemas.asked(tenant, self._names.sobject(object_)), self._names, object_)

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return await deliver_by_way(effects, partial(self._way, operation), self._write)

    async def _write(self, way: _Way, items: list[Item]) -> Sequence[Delivery]:
        writer = self._bulk if len(items) >= self._settings.bulk_from else self._collections
        return await writer.write(way.verb, way.sobject, way.external, items)

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            way, item = self._way(effect.operation, effect)
        except RequestRefused as error:
            return Later(error.detail)
        if way.verb != "insert":
            return await self._stands(way, item) if effect.operation == "upsert" else Later("it may be sent again")
        external = self._names.external(effect.target)
        if external is None or not (key := item.fields.get(external)):
            return None
        try:
            found = await self._reads.find(effect.tenant, effect.target, external, str(key))
        except Failed as failed:
            if failed.code == "INVALID_FIELD":
                return None
            raise
        return Later("Salesforce has no record with its id") if found is None else Delivered(found)

    async def _stands(self, way: _Way, item: Item) -> Delivered | Later:
        """An upsert that changes nothing any more has been done; another may be sent again."""
        effect, key = item.effect, item.key
        if way.external is not None:
            key = await self._reads.find(effect.tenant, effect.target, way.external, str(item.key))
        [row] = await self._reads.get(effect.tenant, effect.target, [key or ""])
        fields = {self._names.ours(effect.target, name): value for name, value in item.fields.items()}
        return Delivered(row["id"]) if row is not None and stands(row, fields) else Later("it may be sent again")

    def _way(self, operation: str, effect: Effect) -> tuple[_Way, Item]:
        """Raises RequestRefused for what Salesforce cannot be asked."""
        sobject = self._names.sobject(effect.target)
        external = self._names.external(effect.target)
        said = effect.payload.get("fields")
        fields = self._names.record(effect.target, said if isinstance(said, Mapping) else {})
        key = str(effect.payload.get("id") or effect.record or "")
        match _VERBS.get(operation):
            case "update" | "delete" as verb:
                if not is_id(key):
                    raise RequestRefused(
                        f"{key[:80]!r} is no id of Salesforce's.", cure="Use the id that it gave the record."
                    )
                return _Way(verb, sobject), Item(effect, key, {} if verb == "delete" else fields)
            case "upsert" if is_id(key):
                return _Way("update", sobject), Item(effect, key, fields)
            case "upsert" if external is not None:
                own = _own_key(fields, external, key)
                return _Way("upsert", sobject, external), Item(effect, own, fields)
            case "insert" | "upsert":
                if external is not None:
                    fields.setdefault(external, _checked(key))
                return _Way("insert", sobject), Item(effect, None, fields)
            case _:
                raise RequestRefused(f"Salesforce has no operation {operation!r}.")


def _own_key(fields: dict[str, Any], external: str, key: str) -> str:
    """The external id of a record that is upserted: the field's own value, else our id."""
    said = fields.pop(external, None)
    return _checked(str(said) if said not in (None, "") else key)


def _checked(key: str) -> str:
    if not 0 < len(key) <= LONGEST_KEY:
        raise RequestRefused(f"{key[:80]!r} cannot be an external id.")
    return key
