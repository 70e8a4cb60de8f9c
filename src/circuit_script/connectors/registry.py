"""Every connector, by name. Adding one is one line here and one file or folder beside it."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from circuit_script.config import Address
from circuit_script.connectors.connector import Connector, Operation
from circuit_script.connectors.webhook import WebhookConnector

Registry = Mapping[str, Connector]


def make_registry(addresses: Mapping[str, Address], client: httpx.AsyncClient, *more: Connector) -> Registry:
    """Those of vendors, and ``more`` that are made where they belong."""
    return {each.name: each for each in (WebhookConnector(addresses, client), *more)}


def declared(connectors: Registry, connector: str, operation: str) -> Operation | None:
    """What a connector promises of an operation; None where there is no such."""
    found = connectors.get(connector)
    return None if found is None else found.operations.get(operation)
