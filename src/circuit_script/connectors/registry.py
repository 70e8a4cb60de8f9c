"""Every connector, by name. Adding one is one line here and one file or folder beside it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import httpx

from circuit_script.config import Address, ConnectorSettings, Settings
from circuit_script.connectors.connector import Connector, Operation
from circuit_script.connectors.homes import named_homes
from circuit_script.connectors.parts import Parts, Sealer, Secrets
from circuit_script.connectors.webhook import WebhookConnector
from circuit_script.db.pool import Pool
from circuit_script.schemas.messages import MESSENGERS

Registry = Mapping[str, Connector]

# Vendors: a module with `make(parts: Parts) -> Connector` and `URL`, the address of its API. Imported where it is used.
VENDORS: dict[str, str] = {
    "gohighlevel": "circuit_script.connectors.gohighlevel",
    "hubspot": "circuit_script.connectors.hubspot",
    "resend": "circuit_script.connectors.resend",
    "salesforce": "circuit_script.connectors.salesforce",
    "slack": "circuit_script.connectors.slack",
    "twilio": "circuit_script.connectors.twilio",
    "vapi": "circuit_script.connectors.vapi",
}


def make_registry(addresses: Mapping[str, Address], client: httpx.AsyncClient, *more: Connector) -> Registry:
    """Those of vendors, and ``more`` that are made where they belong."""
    return {each.name: each for each in (WebhookConnector(addresses, client), *more)}


def make_vendors(
    settings: Settings,
    client: httpx.AsyncClient,
    secrets: Secrets | None = None,
    database: Pool | None = None,
    sealer: Sealer | None = None,
) -> list[Connector]:
    """The vendors that circuit.toml names, as a home or under ``[connectors]``. Nobody is asked anything yet."""
    return [
        _module(name).make(
            Parts(
                settings.connectors.get(name, ConnectorSettings()),
                client,
                secrets,
                database,
                sealer,
                {tenant: accounts.get(name, ()) for tenant, accounts in settings.accounts.items()},
            )
        )
        for name in vendors_named(settings)
    ]


def vendors_named(settings: Settings) -> list[str]:
    """The vendors that circuit.toml names."""
    return sorted(VENDORS.keys() & {*named_homes(settings), *settings.connectors})


def vendor_urls(settings: Settings) -> dict[str, str]:
    """Where the APIs are of the vendors that circuit.toml names, by connector."""
    said = {name: settings.connectors.get(name, ConnectorSettings()).url for name in vendors_named(settings)}
    return {name: url or str(_module(name).URL) for name, url in said.items()}


def sends(settings: Settings, connector: str, target: str) -> bool:
    """Whether a handler may send there: a webhook to a named address, a message by whoever carries them here."""
    if connector == WebhookConnector.name:
        return target in settings.addresses
    return connector in MESSENGERS and connector in settings.connectors


def declared(connectors: Registry, connector: str, operation: str) -> Operation | None:
    """What a connector promises of an operation; None where there is no such."""
    found = connectors.get(connector)
    return None if found is None else found.operations.get(operation)


def _module(name: str) -> Any:
    return import_module(VENDORS[name])
