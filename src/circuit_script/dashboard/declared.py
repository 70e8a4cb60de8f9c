"""What connectors promise of their operations, told without reaching anybody."""

from __future__ import annotations

import httpx

from circuit_script.config import Settings
from circuit_script.connectors.connector import Operation
from circuit_script.connectors.registry import make_registry, make_vendors

Key = tuple[str, str]  # connector and operation

_known: dict[int, dict[Key, Operation]] = {}


def operations_of(settings: Settings) -> dict[Key, Operation]:
    """Every operation of every connector of the app."""
    if (found := _known.get(id(settings))) is None:
        client = httpx.AsyncClient(verify=False, trust_env=False)
        registry = make_registry(settings.addresses, client, *make_vendors(settings, client))
        found = {
            (name, key): each for name, connector in registry.items() for key, each in connector.operations.items()
        }
        _known.clear()
        _known[id(settings)] = found
    return found
