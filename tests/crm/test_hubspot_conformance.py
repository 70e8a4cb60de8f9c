"""HubSpot does what every connector to a CRM does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from circuit_script.connectors import hubspot
from circuit_script.connectors.connector import Fields
from circuit_script.connectors.hubspot import HubSpot
from tests.crm.conformance import Conformance, Harness, How, Kind
from tests.crm.hubspot import HubSpotAccount
from tests.crm.stage import MemorySecrets, client, parts_of

KINDS: dict[Kind, tuple[str, str]] = {
    "text": ("lastName", "lastname"),
    "number": ("score", "score"),
    "moment": ("reviewedAt", "reviewed_at"),
    "flag": ("hot", "hot"),
}


class HubSpotHarness:
    tenant = "acme"
    object = "Contact"
    bad = ({"score": "much"}, "score")
    wait = 10.0

    def __init__(self, account: HubSpotAccount, connector: HubSpot) -> None:
        self.account = account
        self.connector = connector

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        names = dict(KINDS.values())
        return [self.account.put("contacts", {names[n]: _text(v) for n, v in row.items()}) for row in rows]

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        return [_row(self.account.records["contacts"].get(each)) for each in ids]

    def fail_next(self, how: How, times: int = 1) -> None:
        self.account.fail_next(how, times)

    def calls(self) -> int:
        return len(self.account.requests)

    def field(self, kind: Kind) -> str | None:
        return KINDS[kind][0]


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _row(kept: dict[str, str] | None) -> Fields | None:
    if kept is None:
        return None
    row: Fields = {ours: kept.get(theirs) for ours, theirs in KINDS.values()}
    row["score"] = None if row["score"] is None else float(row["score"])
    row["hot"] = None if row["hot"] is None else row["hot"] == "true"
    return {**row, "id": kept["hs_object_id"]}


@pytest.fixture
async def crm() -> AsyncIterator[HubSpotHarness]:
    with HubSpotAccount() as account:
        secrets = MemorySecrets(hubspot__client_id=account.client_id, hubspot__client_secret=account.client_secret)
        secrets.values["acme", "hubspot.refresh_token"] = account.refresh
        fields = {"Contact": {"reviewedAt": "reviewed_at", "reference": "circuit_id"}}
        async with client() as http:
            yield HubSpotHarness(account, hubspot.make(parts_of(secrets, http, url=account.url, fields=fields)))


class TestHubSpot(Conformance):
    pass


def test_a_harness_is_what_the_suite_takes(crm: HubSpotHarness) -> None:
    harness: Harness = crm
    assert harness.object in crm.connector.objects
