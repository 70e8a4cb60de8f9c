"""HubSpot: records of an account as a CRM of ours, and writes of them as effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx

from circuit_script.clock import now
from circuit_script.connectors.api import Api, Credentials
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
from circuit_script.connectors.hubspot.facts import facts_of
from circuit_script.connectors.hubspot.faults import FAULTS, code_of, wait_of
from circuit_script.connectors.hubspot.names import Names, is_id, stamp
from circuit_script.connectors.hubspot.pace import Paced
from circuit_script.connectors.hubspot.properties import Schemas
from circuit_script.connectors.hubspot.reads import Reads
from circuit_script.connectors.hubspot.settings import CONTACT, TIMED, WITH_CONTACT, HubSpotSettings
from circuit_script.connectors.hubspot.writes import MOST, Batches, Item, Verb
from circuit_script.connectors.stands import stands
from circuit_script.connectors.ways import deliver_by_way
from circuit_script.errors import RequestRefused
from circuit_script.schemas.facts import FieldFacts

NAME = "hubspot"
PATIENCE = 120.0  # seconds for a bulk, which may be tried in halves
LONGEST_KEY = 255
# Of contacts, and of all else. A search filters by it; its rows have it where it has a name of ours.
CHANGED = frozenset({"lastmodifieddate", "hs_lastmodifieddate"})


@dataclass(frozen=True, slots=True)
class _Way:
    """How an effect goes: what is asked of HubSpot, and the unique property by which it is asked, if one is."""

    verb: Verb
    object: str
    unique: str | None = None


class HubSpot:
    """A `Connector`, `CRM` and `LooksUp`.

    An update or a delete may be sent again. An insert (and an upsert of what has no id yet) of which no answer came is
    looked up by its unique property, where the object has one; else a person is asked.
    """

    name = NAME

    def __init__(
        self, client: httpx.AsyncClient, credentials: Credentials, settings: HubSpotSettings | None = None
    ) -> None:
        settings = settings or HubSpotSettings()
        self._api = Api(client, credentials, name=NAME, faults=FAULTS, code_of=code_of, wait_of=wait_of, timeout=15.0)
        self._names = Names(settings)
        self._schemas = Schemas(self._api)
        self._reads = Reads(Paced(self._api, settings.searches), self._names, self._schemas)
        self._batches = Batches(self._api)
        repeats = Operation(InDoubt.REPEAT, bulk=MOST, timeout=PATIENCE, rate=settings.rate)
        makes = Operation(InDoubt.LOOK_UP, bulk=MOST, timeout=PATIENCE, rate=settings.rate, makes_ids=True)
        self.operations: Mapping[str, Operation] = {
            "insert": makes,
            "update": repeats,
            "upsert": makes,
            "delete": replace(repeats, irreversible=True),
        }
        self.objects: frozenset[str] = self._names.objects
        self.changed_field: Mapping[str, str] = {
            each: ours
            for each in self.objects
            for ours, theirs in self._names.mapped(each).items()
            if theirs in CHANGED
        }

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        return await self._reads.page(tenant, query, after, size)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return await self._reads.get(tenant, object_, ids)

    def explain(self, query: Query) -> Plan:
        return self._reads.explain(query)

    async def described(self, tenant: str, object_: str) -> list[FieldFacts]:
        """Every property of an object in the tenant's account. Raises Failed, RequestRefused, VendorUnavailable."""
        return facts_of(await self._schemas.asked(tenant, self._names.object(object_)), self._names, object_)

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return await deliver_by_way(
            effects,
            partial(self._way, operation),
            lambda way, items: self._batches.write(way.verb, way.object, way.unique, items),
        )

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            way, item = self._way(effect.operation, effect)
        except RequestRefused as error:
            return Later(error.detail)
        if way.verb != "create":
            return await self._stands(way, item) if effect.operation == "upsert" else Later("it may be sent again")
        unique = self._names.external(effect.target)
        if unique is None or not (key := item.properties.get(unique)):
            return None
        found = await self._reads.find(effect.tenant, effect.target, unique, key)
        return Later("HubSpot has no record with its id") if found is None else Delivered(found)

    async def _stands(self, way: _Way, item: Item) -> Delivered | Later:
        """An upsert that changes nothing any more has been done; another may be sent again."""
        effect, key = item.effect, item.key
        if way.unique is not None:
            key = await self._reads.find(effect.tenant, effect.target, way.unique, str(item.key))
        [row] = await self._reads.get(effect.tenant, effect.target, [key or ""])
        fields = effect.payload.get("fields")
        done = row is not None and stands(row, fields if isinstance(fields, Mapping) else {})
        return Delivered(key) if done else Later("it may be sent again")

    def _way(self, operation: str, effect: Effect) -> tuple[_Way, Item]:
        """Raises RequestRefused for what HubSpot cannot be asked."""
        object_ = self._names.object(effect.target)
        unique = self._names.external(effect.target)
        said = effect.payload.get("fields")
        fields: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
        properties = self._names.properties(effect.target, fields)
        key = str(effect.payload.get("id") or effect.record or "")
        if operation not in self.operations:
            raise RequestRefused(f"HubSpot has no operation {operation!r}.")
        if operation == "delete" or operation == "update" or (operation == "upsert" and is_id(key)):
            if not is_id(key):
                raise RequestRefused(f"{key[:80]!r} is no id of HubSpot's.", cure="Use the id that it gave the record.")
            if operation == "delete":
                return _Way("archive", object_), Item(effect, key, {})
            if CONTACT in fields and self._names.has_contact(effect.target):
                raise RequestRefused(f"{CONTACT} of a {effect.target} is said when it is made, and stays.")
            return _Way("update", object_), Item(effect, key, properties)
        if operation == "upsert" and unique is not None:
            own = _checked(properties.pop(unique, "") or key)
            if CONTACT in fields and self._names.has_contact(effect.target):
                raise RequestRefused(f"{CONTACT} of a {effect.target} is said by an insert.")
            return _Way("upsert", object_, unique), Item(effect, own, _timed(object_, properties))
        if unique is not None:
            properties.setdefault(unique, _checked(key))
        properties = {name: value for name, value in properties.items() if value != ""}
        links = _links(object_, fields.get(CONTACT))
        return _Way("create", object_), Item(effect, None, _timed(object_, properties), links)


def _timed(object_: str, properties: dict[str, str]) -> dict[str, str]:
    """With the time that an activity must have: its beginning, else now."""
    if object_ in TIMED:
        properties.setdefault("hs_timestamp", properties.get("hs_meeting_start_time") or stamp(now()))
    return properties


def _links(object_: str, contact: Any) -> list[dict[str, Any]]:
    if object_ not in WITH_CONTACT or contact in (None, ""):
        return []
    if not is_id(str(contact)):
        raise RequestRefused(f"{str(contact)[:80]!r} is no id of a contact of HubSpot's.")
    kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": WITH_CONTACT[object_]}
    return [{"to": {"id": str(contact)}, "types": [kind]}]


def _checked(key: str) -> str:
    if not 0 < len(key) <= LONGEST_KEY:
        raise RequestRefused(f"{key[:80]!r} cannot be an id of ours.")
    return key
