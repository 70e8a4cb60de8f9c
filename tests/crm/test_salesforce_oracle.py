"""simple-salesforce, which others wrote, talks to the stand-in as to an org, and gets what our connector gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from circuit_script.connectors.connector import Query
from circuit_script.connectors.reading import rows_of
from circuit_script.connectors.salesforce.connector import Salesforce
from circuit_script.connectors.salesforce.credentials import credentials
from circuit_script.connectors.salesforce.settings import SalesforceSettings
from tests.crm.salesforce import SalesforceOrg
from tests.crm.stage import MemorySecrets, client, effect, parts_of

simple = pytest.importorskip("simple_salesforce")
requests = pytest.importorskip("requests")


@pytest.fixture
def org() -> Iterator[SalesforceOrg]:
    with SalesforceOrg() as org:
        yield org


@pytest.fixture
def theirs(org: SalesforceOrg) -> Any:
    class Plain(requests.adapters.HTTPAdapter):  # it knows https only
        def send(self, request: Any, **more: Any) -> Any:
            request.url = request.url.replace("https://", "http://", 1)
            return super().send(request, **more)

    session = requests.Session()
    session.mount("https://", Plain())
    return simple.Salesforce(
        instance=org.url.removeprefix("http://"), session_id=org.token(), version="62.0", session=session
    )


async def test_both_read_the_same(org: SalesforceOrg, theirs: Any) -> None:
    for n in range(450):
        org.put("Contact", {"LastName": f"O'Ne\\il {n}", "Score__c": n})
    text = simple.format_soql("SELECT Id, LastName FROM Contact WHERE LastName LIKE '{:like}%'", "O'Ne\\il 1")
    read = [each["Id"] for each in theirs.query_all(text)["records"]]
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
    async with client() as http:
        ours = Salesforce(
            http, credentials(parts_of(secrets, http), settings := SalesforceSettings(login_url=org.url)), settings
        )
        from circuit_script.connectors.query import Condition

        rows = await rows_of(ours, "acme", Query("Contact", Condition("lastName", "starts_with", "O'Ne\\il 1")))
        everything = await rows_of(ours, "acme", Query("Contact"))
    assert [each["id"] for each in rows] == read
    assert len(read) == 111
    assert [each["Id"] for each in theirs.query_all("SELECT Id FROM Contact ORDER BY Id")["records"]] == [
        each["id"] for each in everything
    ]


async def test_both_make_the_same(org: SalesforceOrg, theirs: Any) -> None:
    made = theirs.Contact.create({"LastName": "Lee", "Score__c": 5})
    with pytest.raises(simple.exceptions.SalesforceMalformedRequest) as caught:
        theirs.Contact.create({"FirstName": "no last name"})
    assert caught.value.content[0]["errorCode"] == "REQUIRED_FIELD_MISSING"
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
    settings = SalesforceSettings(login_url=org.url, fields={"Contact": {"score": "Score__c"}})
    async with client() as http:
        ours = Salesforce(http, credentials(parts_of(secrets, http), settings), settings)
        [other] = await ours.deliver("insert", [effect("insert", "Contact", {"lastName": "Lee", "score": 5})])
    one, two = (dict(org.records["Contact"][key]) for key in (made["id"], other.vendor_id))
    assert one.pop("Id") != two.pop("Id")
    assert {name: value for name, value in one.items() if not name.endswith(("Date", "stamp"))} == {
        name: value for name, value in two.items() if not name.endswith(("Date", "stamp"))
    }


async def test_both_work_with_jobs(org: SalesforceOrg, theirs: Any) -> None:
    org.polls_before_end = 0
    rows = [{"LastName": f'L{n}, "x"', "Score__c": n} for n in range(30)]
    [done] = theirs.bulk2.Contact.insert(records=rows, wait=0.01)
    assert done["numberRecordsProcessed"] == 30
    before = set(org.records["Contact"])
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
    settings = SalesforceSettings(login_url=org.url, bulk_from=10)
    async with client() as http:
        ours = Salesforce(http, credentials(parts_of(secrets, http), settings), settings)
        results = await ours.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert {each.vendor_id for each in results} == set(org.records["Contact"]) - before
    first, second = (
        sorted(
            json.dumps([row["LastName"], row["Score__c"]])
            for key, row in org.records["Contact"].items()
            if one is (key in before)
        )
        for one in (True, False)
    )
    assert first == second
