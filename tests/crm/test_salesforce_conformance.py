"""Salesforce does what every connector to a CRM does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from circuit_script.connectors import salesforce
from circuit_script.connectors.connector import Fields
from circuit_script.connectors.salesforce import Salesforce
from tests.crm.conformance import Conformance, Harness, How, Kind, write
from tests.crm.salesforce import SalesforceOrg
from tests.crm.soql import moment
from tests.crm.stage import MemorySecrets, client, parts_of

NAMES = {"title": "Name", "amount": "Amount__c", "reviewedAt": "Reviewed_At__c", "hot": "Hot__c"}


class SalesforceHarness:
    tenant = "acme"
    object = "Invoice"
    bad = ({"title": "x" * 81}, "title")
    wait = 900.0
    many = 1990  # more go as a job

    def __init__(self, org: SalesforceOrg, connector: Salesforce) -> None:
        self.org = org
        self.connector = connector

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        return [self.org.put("Invoice__c", {NAMES[n]: _theirs(v) for n, v in row.items()}) for row in rows]

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        rows = [self.org.records["Invoice__c"].get(each) for each in ids]
        return [None if row is None else _ours(row) for row in rows]

    def fail_next(self, how: How, times: int = 1) -> None:
        self.org.fail_next(how, times)

    def calls(self) -> int:
        return len(self.org.requests)

    def field(self, kind: Kind) -> str | None:
        return {"text": "title", "number": "amount", "moment": "reviewedAt", "flag": "hot"}[kind]


def _theirs(value: Any) -> Any:
    """As an org keeps it: no empty text, moments in UTC."""
    if isinstance(value, str) and value[4:5] == "-" and "T" in value:
        return moment(value.replace("Z", "+00:00")).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    return None if value == "" else value


def _ours(row: Fields) -> Fields:
    found = {ours: row[theirs] for ours, theirs in NAMES.items()}
    if found["reviewedAt"] is not None:
        found["reviewedAt"] = found["reviewedAt"].replace("+0000", "Z")
    return {**found, "id": row["Id"]}


@pytest.fixture
async def crm() -> AsyncIterator[SalesforceHarness]:
    with SalesforceOrg() as org:
        org.polls_before_end = 0
        secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
        async with client() as http:
            parts = parts_of(
                secrets,
                http,
                url=org.url,
                objects={"Invoice": "Invoice__c"},
                fields={"Invoice": {**NAMES, "reference": "Circuit_Id__c"}},
            )
            yield SalesforceHarness(org, salesforce.make(parts))


class TestSalesforce(Conformance):
    @pytest.mark.slow
    async def test_many_records_take_no_more_requests_than_they_must(self, crm: Harness) -> None:
        """By 200 below two thousand; ten thousand are one job, which is made, filled, closed, looked at and read."""
        for many, most in ((1990, 10 + 1), (10_000, 7)):
            before = crm.calls()
            results = await write(crm, "insert", *({"fields": {"title": f"many {n}"}} for n in range(many)))
            assert crm.calls() - before <= most
            ids = [self.id_of(crm, "insert", each) for each in results]
            assert len(set(ids)) == many
            rows = await crm.stored([ids[0], ids[many // 2], ids[-1]])
            assert [row["title"] for row in rows if row] == ["many 0", f"many {many // 2}", f"many {many - 1}"]


def test_a_harness_is_what_the_suite_takes(crm: SalesforceHarness) -> None:
    harness: Harness = crm
    assert harness.object in crm.connector.objects
