"""Salesforce: REST, sObject Collections, Bulk API 2.0.

settings, names   what our objects and fields are called there
credentials       tokens by JWT, password or the app itself
described         what an org's fields are
facts             the same for people who write against them
soql, reads       queries
writes, bulk      records by 200, by thousands
faults, usage     what answers mean, and how much of the day's requests is used
connector         all of it together
"""

from __future__ import annotations

from collections.abc import Mapping

from circuit_script.connectors.parts import Parts
from circuit_script.connectors.salesforce.connector import Salesforce
from circuit_script.connectors.salesforce.credentials import credentials
from circuit_script.connectors.salesforce.settings import LOGIN, VERSION, SalesforceSettings

__all__ = ["URL", "Salesforce", "make"]

URL = LOGIN
REFERENCE = "reference"  # our field that holds ids of ours, where the account has a place for them


def make(parts: Parts) -> Salesforce:
    """Salesforce as circuit.toml says it."""
    said = parts.settings
    fields = {
        each: {name: to for name, to in table.items() if name != REFERENCE} for each, table in said.fields.items()
    }
    external: Mapping[str, str] = {each: table[REFERENCE] for each, table in said.fields.items() if REFERENCE in table}
    settings = SalesforceSettings(
        version=said.version.removeprefix("v") or VERSION,
        login_url=(said.token_url or said.url or LOGIN).rstrip("/"),
        objects=said.objects,
        fields=fields,
        external_ids=external,
    )
    return Salesforce(parts.client, credentials(parts, settings), settings)
