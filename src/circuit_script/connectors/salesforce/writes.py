"""Writes by sObject Collections: up to 200 records in one request, each with a result of its own.

What is wrong with the form of one record (a field that is not there, a value of another type) is the whole request's
fault to Salesforce: such a request is tried in halves, until what is bad stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import Delivery, Effect, Later, Refused, Unknown
from circuit_script.connectors.salesforce.faults import result_of
from circuit_script.connectors.salesforce.names import Names

MOST = 200  # records in a request
PATIENCE = 60.0  # seconds: the org's own triggers run in it

Verb = Literal["insert", "update", "upsert", "delete"]


@dataclass(frozen=True, slots=True)
class Item:
    """One record that is to be written. ``key`` is its id, or its external id; ``fields`` are Salesforce's."""

    effect: Effect
    key: str | None
    fields: Mapping[str, Any]


class Collections:
    """Sends records of one sObject to one org."""

    def __init__(self, api: Api, version: str, names: Names) -> None:
        self._api = api
        self._base = f"/services/data/v{version}/composite/sobjects"
        self._names = names

    async def write(self, verb: Verb, sobject: str, external: str | None, items: Sequence[Item]) -> list[Delivery]:
        """What became of each. After a request of which it is not known that Salesforce goes on taking them, the rest
        is not sent: it gets the same result, which says that it was not done."""
        results: list[Delivery] = []
        for start in range(0, len(items), MOST):
            part = items[start : start + MOST]
            found, stop = await self._part(verb, sobject, external, part)
            results += found
            if stop is not None:
                results += [stop] * (len(items) - len(results))
                break
        return results

    async def _part(
        self, verb: Verb, sobject: str, external: str | None, items: Sequence[Item]
    ) -> tuple[list[Delivery], Delivery | None]:
        try:
            answer = await self._send(verb, sobject, external, items)
        except Failed as failed:
            return await self._failed(failed.delivery, verb, sobject, external, items)
        return self._read(answer, items), None

    async def _failed(
        self, delivery: Delivery, verb: Verb, sobject: str, external: str | None, items: Sequence[Item]
    ) -> tuple[list[Delivery], Delivery | None]:
        if isinstance(delivery, Unknown):
            return [delivery] * len(items), _not_sent(delivery)
        if not isinstance(delivery, Refused):
            return [delivery] * len(items), delivery
        if len(items) == 1:
            return [delivery], None
        middle = len(items) // 2
        first, stop = await self._part(verb, sobject, external, items[:middle])
        if stop is not None:
            return first + [stop] * (len(items) - middle), stop
        second, stop = await self._part(verb, sobject, external, items[middle:])
        return first + second, stop

    async def _send(self, verb: Verb, sobject: str, external: str | None, items: Sequence[Item]) -> httpx.Response:
        tenant = items[0].effect.tenant
        if verb == "delete":
            ids = ",".join(str(each.key) for each in items)
            return await self._api.send(
                tenant,
                "DELETE",
                self._base,
                params={"ids": ids, "allOrNone": "false"},
                writes=True,
                timeout=PATIENCE,
            )
        records = [_record(verb, sobject, external, each) for each in items]
        return await self._api.send(
            tenant,
            "POST" if verb == "insert" else "PATCH",
            f"{self._base}/{sobject}/{external}" if verb == "upsert" else self._base,
            json={"allOrNone": False, "records": records},
            writes=True,
            timeout=PATIENCE,
        )

    def _read(self, answer: httpx.Response, items: Sequence[Item]) -> list[Delivery]:
        try:
            said = answer.json()
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, list) or len(said) != len(items):
            return [Unknown("Salesforce answered with something else than a result for each record")] * len(items)
        return [result_of(one, each.effect, self._names) for one, each in zip(said, items, strict=True)]


def _record(verb: Verb, sobject: str, external: str | None, item: Item) -> dict[str, Any]:
    record = {"attributes": {"type": sobject}, **item.fields}
    if verb == "update":
        record["id"] = item.key
    elif verb == "upsert" and external is not None:
        record[external] = item.key
    return record


def _not_sent(doubt: Unknown) -> Delivery:
    return Later(f"not sent, as no answer came to what was sent before: {doubt.reason}")
