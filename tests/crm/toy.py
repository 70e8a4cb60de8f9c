"""Toy: a whole connector to a CRM, as short as one can be. CONTRIBUTING tells how it is made; real ones differ in what
their vendors ask for, not in shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from circuit_script.connectors.api import Access, Api, Failed, Fault
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    Fields,
    InDoubt,
    Later,
    Operation,
    Refused,
)
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.query import All, Condition, Page, Plan, Query, split, words
from circuit_script.connectors.values import moment
from circuit_script.errors import NotConnected

URL = "https://api.toy.example"
MOST = 50  # rows in one request

# What its errors mean, where that is not what HTTP says anyway.
FAULTS = (
    Fault(404, "missing"),
    Fault(503, "down"),
)


class Tokens:
    """A key for each tenant, which stands among the secrets as ``toy.key``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def of(self, tenant: str) -> Access:
        account = self._parts.account(tenant)
        if not account or self._parts.secrets is None:
            raise NotConnected(tenant, Toy.name)
        key = await self._parts.secrets.get(tenant, "toy.key")
        return Access({"authorization": f"Bearer {key}"}, self._parts.settings.url or URL, account)

    async def refused(self, tenant: str, access: Access) -> bool:
        return (await self.of(tenant)).headers != access.headers  # somebody may have put a new one there


class Toy:
    name = "toy"
    objects = frozenset({"Contact", "Task"})
    operations: Mapping[str, Operation] = {
        "insert": Operation(InDoubt.LOOK_UP, bulk=MOST, timeout=5.0, makes_ids=True),
        "upsert": Operation(InDoubt.LOOK_UP, bulk=MOST, timeout=5.0, makes_ids=True),
        "update": Operation(InDoubt.REPEAT, bulk=MOST, timeout=5.0),
        "delete": Operation(InDoubt.REPEAT, bulk=MOST, timeout=5.0, irreversible=True),
    }

    def __init__(self, api: Api) -> None:
        self._api = api

    # Writes: one request for a bulk, one result for each row of it.

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        rows = [{"key": str(each.id), **each.payload} for each in effects]
        path = f"/objects/{quote(effects[0].target, safe='')}/{operation}"
        try:
            answer = await self._api.send(effects[0].tenant, "POST", path, writes=True, json={"rows": rows})
        except Failed as failed:
            return [failed.delivery] * len(effects)
        return [_delivery(each) for each in answer.json()["results"]]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            answer = await self._api.send(effect.tenant, "GET", f"/keys/{effect.id}")
        except Failed as failed:
            return Later("it was not done") if failed.missing else None
        return Delivered(answer.json()["id"])

    # Reads: what the vendor can filter it is asked for, the rest is filtered by whoever reads.

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        asked = {**_asked(query), "after": after, "size": min(size, 100)}
        found = await self._api.send(tenant, "POST", f"/objects/{quote(query.object, safe='')}/search", json=asked)
        body = found.json()
        return Page([_row(each) for each in body["rows"]], body["after"])

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        found = await self._api.send(tenant, "POST", f"/objects/{quote(object_, safe='')}/get", json={"ids": list(ids)})
        rows = {each["id"]: _row(each) for each in found.json()["rows"]}
        return [rows.get(each) for each in ids]

    def explain(self, query: Query) -> Plan:
        _, here = split(query.where, _can)
        left = () if here == All(()) else (f"{words(here)}: the vendor filters by equal values only",)
        if query.order_by:
            left += ("the order: the vendor has none",)
        return Plan(self.name, (f"POST /objects/{query.object}/search {_asked(query)}",), left, not query.order_by)


def _can(condition: Condition) -> bool:
    """It compares text with text; a moment is another text in each time zone."""
    value = condition.value
    return condition.op == "eq" and isinstance(value, str) and moment(value) is None and condition.field != "id"


def _asked(query: Query) -> dict[str, Any]:
    asked, _ = split(query.where, _can)
    parts = asked.parts if isinstance(asked, All) else (asked,)
    equal = [each for each in parts if isinstance(each, Condition) and _can(each)]
    return {"equal": [[each.field, each.value] for each in equal]}


def _row(said: Mapping[str, Any]) -> Fields:
    return {**said["fields"], "id": str(said["id"])}


def _delivery(said: Mapping[str, Any]) -> Delivery:
    if "id" in said:
        return Delivered(str(said["id"]))
    return Refused(f"{said.get('field') or 'it'}: {said.get('error', 'refused')}"[:200])


def make(parts: Parts) -> Toy:
    return Toy(Api(parts.client, Tokens(parts), name=Toy.name, faults=FAULTS))
