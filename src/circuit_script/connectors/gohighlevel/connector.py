"""GoHighLevel as the platform uses it: a connector whose records are read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx

from circuit_script.connectors.api import Api, Credentials, Failed
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    Fields,
    InDoubt,
    Later,
    Operation,
    Rate,
)
from circuit_script.connectors.gohighlevel import facts, faults, reading
from circuit_script.connectors.gohighlevel.asking import Asking
from circuit_script.connectors.gohighlevel.doubt import INDEXED, Doubt
from circuit_script.connectors.gohighlevel.fields import CustomFields
from circuit_script.connectors.gohighlevel.oauth import GoHighLevelGrants
from circuit_script.connectors.gohighlevel.objects import KINDS
from circuit_script.connectors.gohighlevel.writing import Writing
from circuit_script.connectors.messengers import Claims
from circuit_script.connectors.pace import Pace
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.query import Page, Plan, Query
from circuit_script.connectors.tokens import Connections, NoSecrets
from circuit_script.db.pool import Pool
from circuit_script.errors import QueryRefused, VendorUnavailable
from circuit_script.schemas.facts import FieldFacts

BURST = 5
SENT = frozenset({"Message"})  # objects whose records leave when they are made


def operations_of(pace: Pace) -> Mapping[str, Operation]:
    """The operations and what they promise. Together with its burst the courier's rate stays within the limit in any
    stretch of the window; reads share it by `Pace`."""
    burst = min(BURST, pace.calls // 2)
    rate = Rate(pace.calls - burst, pace.seconds, burst, "connector")
    return {
        "insert": Operation(InDoubt.LOOK_UP, rate=rate, timeout=20.0, makes_ids=True, irreversible_for=SENT),
        "upsert": Operation(InDoubt.LOOK_UP, rate=rate, timeout=20.0, makes_ids=True, irreversible_for=SENT),
        "update": Operation(InDoubt.REPEAT, rate=rate),
        "delete": Operation(InDoubt.REPEAT, rate=rate, irreversible=True),
    }


class GoHighLevel:
    """Reads and writes of all tenants' locations. There is no bulk: one effect is one request."""

    name = reading.NAME
    objects = frozenset(KINDS)
    operations: Mapping[str, Operation]
    changed_field: Mapping[str, str] = MappingProxyType({"Contact": "dateUpdated"})  # nothing else can be asked by it

    def __init__(
        self, api: Api, pace: Pace | None = None, *, database: Pool | None = None, indexed: float = INDEXED
    ) -> None:
        pace = pace or Pace(faults.CALLS, faults.SECONDS)
        self.operations = operations_of(pace)
        self._asking = Asking(api, pace)
        customs = CustomFields(self._asking)
        self._reading = reading.Reading(self._asking, customs)
        self._claims = Claims(reading.NAME, database)
        self._writing = Writing(self._asking, customs)
        self._doubt = Doubt(self._asking, customs, self._reading, self._claims, indexed=indexed)

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        results = [await self._writing.write(operation, each) for each in effects]
        for each, result in zip(effects, results, strict=True):
            if operation == "insert" and isinstance(result, Delivered) and result.vendor_id is not None:
                self._claims.claim(each, result.vendor_id)
        return results

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            return await self._doubt.look_up(effect)
        except Failed:
            return None
        except QueryRefused as refused:  # nor can it have been sent
            return Later(str(refused))

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        try:
            return await self._reading.page(tenant, query, after, size)
        except Failed as failed:
            raise _unavailable(failed) from None

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        try:
            return await self._reading.get(tenant, object_, ids)
        except Failed as failed:
            raise _unavailable(failed) from None

    async def twins(self, tenant: str, object_: str) -> Mapping[str, str]:
        """The key of each custom field by its id: rows say a value under both. Raises VendorUnavailable."""
        try:
            return await self._reading.twins(tenant, object_)
        except Failed as failed:
            raise _unavailable(failed) from None

    async def twins_at_hand(self, tenant: str, object_: str) -> Mapping[str, str]:
        """The same for events on the road: what is remembered of it, or nothing. Raises nothing."""
        return await self._reading.twins_at_hand(tenant, object_)

    async def described(self, tenant: str, object_: str) -> list[FieldFacts]:
        """The custom fields of an object in the tenant's location. Raises Failed, RequestRefused, VendorUnavailable."""
        return await facts.described(self._asking, tenant, object_)

    async def ask(self, tenant: str, version: str, path: str) -> Any:
        """The JSON of one read, for what is no record. Raises VendorUnavailable."""
        try:
            return await self._asking.ask(tenant, version, "GET", path)
        except Failed as failed:
            raise _unavailable(failed) from None

    def explain(self, query: Query) -> Plan:
        return reading.explain(query)


def _unavailable(failed: Failed) -> VendorUnavailable:
    return VendorUnavailable(f"GoHighLevel: {failed.delivery.reason}")


def connect(
    client: httpx.AsyncClient,
    credentials: Credentials,
    pace: Pace | None = None,
    *,
    database: Pool | None = None,
    indexed: float = INDEXED,
) -> GoHighLevel:
    """The connector over a client and the tenants' access."""
    api = Api(client, credentials, name=reading.NAME, faults=faults.FAULTS, code_of=faults.code_of,
              wait_of=faults.wait_of)  # fmt: skip
    return GoHighLevel(api, pace, database=database, indexed=indexed)


def make(parts: Parts) -> GoHighLevel:
    """The connector as circuit.toml says; a token lies in the database, or is the secret ``gohighlevel.token``."""
    base_url = parts.settings.url or faults.BASE_URL
    secrets = parts.secrets or NoSecrets()
    grants = GoHighLevelGrants(parts.client, secrets, base_url=base_url, client_id=parts.settings.client_id)
    sealer = parts.sealer
    database = parts.database if sealer is not None else None
    credentials = Connections(database, sealer, grants, secrets=secrets, account_of=parts.account)
    return connect(parts.client, credentials, database=parts.database)
