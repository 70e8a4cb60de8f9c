"""HubSpot: CRM objects of API v3, by batches, lists and search.

settings, names   what our objects and fields are called there
credentials       tokens of private apps and of OAuth apps
properties        what an account's properties are
facts             the same for people who write against them
filters, reads    queries
writes            records by 100
faults, pace      what answers mean, and how fast it is asked
connector         all of it together
"""

from __future__ import annotations

from collections.abc import Mapping

from circuit_script.connectors.hubspot.connector import HubSpot
from circuit_script.connectors.hubspot.credentials import credentials
from circuit_script.connectors.hubspot.settings import BASE, HubSpotSettings
from circuit_script.connectors.parts import Parts

__all__ = ["URL", "HubSpot", "make"]

URL = BASE
REFERENCE = "reference"  # our field that holds ids of ours, where the account has a place for them


def make(parts: Parts) -> HubSpot:
    """HubSpot as circuit.toml says it."""
    said = parts.settings
    fields = {
        each: {name: to for name, to in table.items() if name != REFERENCE} for each, table in said.fields.items()
    }
    external: Mapping[str, str] = {each: table[REFERENCE] for each, table in said.fields.items() if REFERENCE in table}
    settings = HubSpotSettings(
        base_url=(said.url or BASE).rstrip("/"), objects=said.objects, fields=fields, external_ids=external
    )
    return HubSpot(parts.client, credentials(parts, settings), settings)
