"""What an account says of its objects: each property with its kind. Kept for some minutes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from circuit_script.connectors.api import Api
from circuit_script.connectors.hubspot.names import IDENTITY, PROPERTY
from circuit_script.errors import VendorUnavailable

LIFE = 600.0  # seconds
MOST = 2000  # objects of all tenants
MAX_PROPERTIES = 5000  # of an object

Kinds = Mapping[str, str]  # property → string, number, bool, date, datetime, enumeration, several, …


class Schemas:
    """The properties of objects, by tenant."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Kinds]] = OrderedDict()

    async def of(self, tenant: str, object_: str) -> Kinds:
        """The kinds of an object's properties. Raises Failed, and VendorUnavailable for what says nothing."""
        found = self._known.get((tenant, object_))
        if found is not None and self._clock() < found[0]:
            return found[1]
        kinds = read(await self.asked(tenant, object_))
        self._known[tenant, object_] = (self._clock() + LIFE, kinds)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return kinds

    async def asked(self, tenant: str, object_: str) -> Any:
        """All that the account says of them now. Raises as `of`."""
        answer = await self._api.send(tenant, "GET", f"/crm/v3/properties/{object_}")
        try:
            said = answer.json()
        except (ValueError, RecursionError):
            said = None
        if not read(said):
            raise VendorUnavailable(f"hubspot does not say what properties {object_} have.")
        return said

    def agreed(self, object_: str) -> Kinds:
        """The properties of which all accounts that were asked say the same."""
        several = [kinds for (_, name), (_, kinds) in self._known.items() if name == object_]
        first = several[0] if several else {}
        return {name: kind for name, kind in first.items() if all(each.get(name) == kind for each in several)}


def read(said: Any) -> Kinds:
    """The properties of an answer; what is not as it should be is left out."""
    listed = said.get("results") if isinstance(said, Mapping) else None
    found: dict[str, str] = {}
    for each in (listed if isinstance(listed, list) else [])[:MAX_PROPERTIES]:
        if isinstance(each, Mapping) and isinstance(name := each.get("name"), str) and PROPERTY.fullmatch(name):
            kind = str(each.get("type"))
            found[name] = "several" if kind == "enumeration" and each.get("fieldType") == "checkbox" else kind
    return found and {**found, IDENTITY: "number"}
