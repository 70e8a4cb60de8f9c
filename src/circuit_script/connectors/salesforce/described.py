"""What an org says of its objects: each field with its type, and whether it can be asked by. Kept for some minutes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from circuit_script.connectors.api import Api
from circuit_script.connectors.salesforce.names import NAME
from circuit_script.errors import VendorUnavailable

LIFE = 600.0  # seconds
MOST = 2000  # objects of all tenants
MAX_FIELDS = 2000  # of an object
# Fields made of others, or too large to be read with the rest.
UNREAD = frozenset({"address", "location", "base64", "complexvalue", "anyType", "json"})


@dataclass(frozen=True, slots=True)
class FieldType:
    """``kind`` is Salesforce's own word: string, double, datetime, …"""

    name: str
    kind: str
    filterable: bool = True
    sortable: bool = True


Described = Mapping[str, FieldType]


class Schemas:
    """The fields of objects, by tenant."""

    def __init__(self, api: Api, version: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._version = version
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Described]] = OrderedDict()

    async def of(self, tenant: str, sobject: str) -> Described:
        """By the name of the field. Raises Failed, and VendorUnavailable for an answer that says nothing."""
        found = self._known.get((tenant, sobject))
        if found is not None and self._clock() < found[0]:
            return found[1]
        fields = read(await self.asked(tenant, sobject))
        self._known[tenant, sobject] = (self._clock() + LIFE, fields)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return fields

    async def asked(self, tenant: str, sobject: str) -> Any:
        """All that the org says of it now. Raises as `of`."""
        answer = await self._api.send(tenant, "GET", f"/services/data/v{self._version}/sobjects/{sobject}/describe")
        try:
            said = answer.json()
        except (ValueError, RecursionError):
            said = None
        if "Id" not in read(said):
            raise VendorUnavailable(f"salesforce does not say what fields {sobject} has.")
        return said

    def agreed(self, sobject: str) -> Described:
        """The fields of which all orgs that were asked say the same."""
        several = [fields for (_, name), (_, fields) in self._known.items() if name == sobject]
        first = several[0] if several else {}
        return {name: field for name, field in first.items() if all(each.get(name) == field for each in several)}


def read(said: Any) -> Described:
    """The fields of a describe's answer; what is not as it should be is left out."""
    listed = said.get("fields") if isinstance(said, dict) else None
    found = {}
    for each in (listed if isinstance(listed, list) else [])[:MAX_FIELDS]:
        if not isinstance(each, dict) or not isinstance(name := each.get("name"), str) or not NAME.fullmatch(name):
            continue
        if (kind := str(each.get("type"))) not in UNREAD:
            found[name] = FieldType(name, kind, each.get("filterable") is True, each.get("sortable") is True)
    return found
