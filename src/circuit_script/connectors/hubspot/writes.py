"""Writes by batches of up to 100 records, each with a result of its own.

Each input carries a name (``objectWriteTraceId``), by which HubSpot answers for it: 207 says what became of each, in
any order. An answer that speaks of no record is the whole batch's fault: it is tried in halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Later, Refused, Unknown
from circuit_script.connectors.hubspot.faults import keys_of, verdict
from circuit_script.connectors.hubspot.names import is_id

MOST = 100  # records in a request
PATIENCE = 30.0  # seconds
TRACE = "objectWriteTraceId"

Verb = Literal["create", "update", "upsert", "archive"]


@dataclass(frozen=True, slots=True)
class Item:
    """One record that is to be written. ``key`` is its id, or its value of the unique property."""

    effect: Effect
    key: str | None
    properties: Mapping[str, str]
    associations: Sequence[Mapping[str, Any]] = field(default_factory=list)


class Batches:
    """Sends records of one object to one account."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def write(self, verb: Verb, object_: str, unique: str | None, items: Sequence[Item]) -> list[Delivery]:
        """What became of each. After a request of which it is not known that HubSpot goes on taking them, the rest is
        not sent: it gets a result that says so."""
        results: list[Delivery] = []
        for start in range(0, len(items), MOST):
            found, stop = await self._part(verb, object_, unique, items[start : start + MOST])
            results += found
            if stop is not None:
                return results + [stop] * (len(items) - len(results))
        return results

    async def _part(
        self, verb: Verb, object_: str, unique: str | None, items: Sequence[Item]
    ) -> tuple[list[Delivery], Delivery | None]:
        try:
            answer = await self._api.send(
                items[0].effect.tenant,
                "POST",
                f"/crm/v3/objects/{object_}/batch/{verb}",
                json={"inputs": [_input(verb, unique, each) for each in items]},
                writes=True,
                timeout=PATIENCE,
            )
        except Failed as failed:
            delivery = failed.delivery
        else:
            return _read(verb, answer, unique, items), None
        if isinstance(delivery, Unknown):
            reason = f"not sent, as no answer came to what was sent before: {delivery.reason}"
            return [delivery] * len(items), Later(reason)
        if not isinstance(delivery, Refused):
            return [delivery] * len(items), delivery
        if len(items) == 1:
            return [delivery], None
        middle = len(items) // 2
        first, stop = await self._part(verb, object_, unique, items[:middle])
        if stop is not None:
            return first + [stop] * (len(items) - middle), stop
        second, stop = await self._part(verb, object_, unique, items[middle:])
        return first + second, stop


def _input(verb: Verb, unique: str | None, item: Item) -> dict[str, Any]:
    if verb == "archive":
        return {"id": item.key}
    made: dict[str, Any] = {"properties": dict(item.properties), TRACE: str(item.effect.id)}
    if verb == "create":
        return made | {"associations": list(item.associations)}
    if verb == "upsert":
        made["idProperty"] = unique
    return made | {"id": item.key}


def _read(verb: Verb, answer: httpx.Response, unique: str | None, items: Sequence[Item]) -> list[Delivery]:
    if verb == "archive":
        return [Delivered(each.key) for each in items]
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        said = None
    listed = said.get("results") if isinstance(said, Mapping) else None
    errors = said.get("errors") if isinstance(said, Mapping) else None
    results: dict[int, Delivery] = {}
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, Mapping) and (place := _place(each, verb, unique, items)) is not None:
            made = str(each.get("id"))
            results[place] = Delivered(made if is_id(made) else None)
    for each in errors if isinstance(errors, list) else []:
        if not isinstance(each, Mapping):
            continue
        traces, ids = set(keys_of(each, TRACE)), {*keys_of(each, "id"), *keys_of(each, "ids")}
        for place, item in enumerate(items):
            if str(item.effect.id) in traces or (not traces and item.key is not None and item.key in ids):
                results[place] = verdict(each)
    if len(items) == 1 and 0 not in results and isinstance(errors, list) and len(errors) == 1:
        results[0] = verdict(errors[0]) if isinstance(errors[0], Mapping) else Unknown("HubSpot told of an error")
    nothing = Unknown("HubSpot's answer does not say what became of it")
    return [results.get(place, nothing) for place in range(len(items))]


def _place(said: Mapping[str, Any], verb: Verb, unique: str | None, items: Sequence[Item]) -> int | None:
    """Of which item a result is."""
    trace = said.get(TRACE)
    if trace is not None:
        return next((place for place, each in enumerate(items) if str(each.effect.id) == trace), None)
    if verb == "update":
        return next((place for place, each in enumerate(items) if each.key == said.get("id")), None)
    properties = said.get("properties")
    if verb == "upsert" and unique is not None and isinstance(properties, Mapping):
        own = str(properties.get(unique)).casefold()
        return next((place for place, each in enumerate(items) if str(each.key).casefold() == own), None)
    return 0 if len(items) == 1 else None
