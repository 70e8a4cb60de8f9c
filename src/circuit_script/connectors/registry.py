"""Every connector, by name. Adding one is one line here and one file or folder beside it."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from circuit_script.config import Address
from circuit_script.connectors.connector import Connector
from circuit_script.connectors.webhook import WebhookConnector

Registry = Mapping[str, Connector]


def make_registry(addresses: Mapping[str, Address], client: httpx.AsyncClient) -> Registry:
    return {WebhookConnector.name: WebhookConnector(addresses, client)}
