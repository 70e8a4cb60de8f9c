"""Bulk 2.0: thousands of effects as one job, and each of them with its own result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from circuit_script.connectors.connector import Delivered, Later, Refused, Unknown
from circuit_script.connectors.salesforce.bulk import read
from circuit_script.connectors.salesforce.connector import Salesforce
from circuit_script.connectors.salesforce.credentials import credentials
from circuit_script.connectors.salesforce.settings import SalesforceSettings
from tests.crm.salesforce import SalesforceOrg
from tests.crm.stage import MemorySecrets, client, effect, parts_of

FIELDS = {"Contact": {"score": "Score__c", "hot": "Hot__c"}}


@pytest.fixture
def org() -> Iterator[SalesforceOrg]:
    with SalesforceOrg() as org:
        org.polls_before_end = 0
        yield org


@pytest.fixture
async def salesforce(org: SalesforceOrg) -> AsyncIterator[Salesforce]:
    async with client() as http:
        yield made(org, http)


def made(org: SalesforceOrg, http: object, **more: object) -> Salesforce:
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
    settings = SalesforceSettings(login_url=org.url, fields=FIELDS, bulk_from=10, **more)
    return Salesforce(http, credentials(parts_of(secrets, http), settings), settings)


def collections(org: SalesforceOrg) -> int:
    return sum("/composite/" in each.path for each in org.requests)


async def test_inserts_go_as_one_job(org: SalesforceOrg, salesforce: Salesforce) -> None:
    rows: list[dict[str, object]] = [
        {"lastName": f'L{n}, "quoted"\nand on', "firstName": "Zoë 😀", "score": n, "hot": n % 2 == 0}
        for n in range(2500)
    ]
    rows[7] = {"firstName": "no last name"}
    results = await salesforce.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert collections(org) == 0
    assert len(org.jobs) == 1
    assert isinstance(results[7], Refused)
    assert results[7].reason.startswith("REQUIRED_FIELD_MISSING")
    assert "(lastName)" in results[7].reason
    for n in (0, 6, 8, 2499):
        stored = org.records["Contact"][results[n].vendor_id]
        assert (stored["LastName"], stored["Score__c"], stored["Hot__c"]) == (f'L{n}, "quoted"\nand on', n, n % 2 == 0)
        assert stored["FirstName"] == "Zoë 😀"


async def test_rows_that_are_alike_get_an_id_each(org: SalesforceOrg, salesforce: Salesforce) -> None:
    results = await salesforce.deliver("insert", [effect("insert", "Contact", {"lastName": "L"}) for _ in range(20)])
    assert {each.vendor_id for each in results} == set(org.records["Contact"])
    assert len(org.records["Contact"]) == 20


async def test_updates_and_deletes_find_their_records(org: SalesforceOrg, salesforce: Salesforce) -> None:
    keys = [org.put("Contact", {"LastName": "L", "FirstName": "F", "Score__c": 1}) for _ in range(12)]
    org.locked.add(keys[3])
    fields = [{"score": n} if n % 2 else {"firstName": None if n % 4 else ""} for n in range(12)]
    results = await salesforce.deliver(
        "update", [effect("update", "Contact", each, id=key) for key, each in zip(keys, fields, strict=True)]
    )
    assert isinstance(results[3], Later)
    assert [each for n, each in enumerate(results) if n != 3] == [Delivered(k) for n, k in enumerate(keys) if n != 3]
    assert org.records["Contact"][keys[5]]["Score__c"] == 5
    assert org.records["Contact"][keys[5]]["FirstName"] == "F"
    assert org.records["Contact"][keys[2]]["FirstName"] is None
    assert org.records["Contact"][keys[4]]["FirstName"] is None
    assert org.records["Contact"][keys[4]]["Score__c"] == 1
    org.locked.clear()
    results = await salesforce.deliver("delete", [effect("delete", "Contact", id=key) for key in reversed(keys)])
    assert results == [Delivered(key) for key in reversed(keys)]
    assert org.records["Contact"] == {}
    assert collections(org) == 0


async def test_upserts_go_by_the_external_id(org: SalesforceOrg) -> None:
    key = org.put("Contact", {"LastName": "Old", "Circuit_Id__c": "order-3"})
    async with client() as http:
        salesforce = made(org, http, external_ids={"Contact": "Circuit_Id__c"})
        effects = [effect("upsert", "Contact", {"lastName": f"L{n}"}, id=f"order-{n}") for n in range(12)]
        results = await salesforce.deliver("upsert", effects)
    assert results[3] == Delivered(key)
    assert len({each.vendor_id for each in results}) == 12
    assert org.records["Contact"][results[11].vendor_id]["LastName"] == "L11"


async def test_what_csv_cannot_say_goes_by_collections(org: SalesforceOrg, salesforce: Salesforce) -> None:
    effects = [effect("insert", "Contact", {"lastName": "#N/A" if n == 4 else f"L{n}"}) for n in range(12)]
    results = await salesforce.deliver("insert", effects)
    assert org.records["Contact"][results[4].vendor_id]["LastName"] == "#N/A"
    assert collections(org) == 1


async def test_a_column_that_is_not_there_spoils_no_other_row(org: SalesforceOrg, salesforce: Salesforce) -> None:
    effects = [effect("insert", "Contact", {"lastName": "L", **({"nope": 1} if n == 4 else {})}) for n in range(12)]
    results = await salesforce.deliver("insert", effects)
    assert [type(each) for each in results] == [Refused if n == 4 else Delivered for n in range(12)]
    assert "nope" in results[4].reason
    assert len(org.records["Contact"]) == 11


async def test_what_an_aborted_job_did_not_reach_is_tried_again(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.jobs_end = "Aborted"
    effects = [effect("insert", "Contact", {"lastName": f"L{n}"}) for n in range(12)]
    results = await salesforce.deliver("insert", effects)
    assert [type(each) for each in results] == [Delivered] * 6 + [Later] * 6
    assert "aborted" in results[11].reason


async def test_a_job_that_takes_too_long_is_aborted(org: SalesforceOrg) -> None:
    org.polls_before_end = 10_000
    async with client() as http:
        salesforce = made(org, http, bulk_seconds=0.3)
        results = await salesforce.deliver(
            "insert", [effect("insert", "Contact", {"lastName": "L"}) for _ in range(12)]
        )
    [job] = org.jobs.values()
    assert job.state == "Aborted"
    assert {type(each) for each in results} <= {Delivered, Later, Unknown}
    assert sum(isinstance(each, Delivered) for each in results) == len(org.records["Contact"])


async def test_an_upload_that_fails_has_done_nothing(org: SalesforceOrg, salesforce: Salesforce) -> None:
    effects = [effect("insert", "Contact", {"lastName": f"L{n}"}) for n in range(12)]
    org.fail_next("500")
    assert {type(each) for each in await salesforce.deliver("insert", effects)} == {Later}
    org.fail_next("drop_after")
    assert {type(each) for each in await salesforce.deliver("insert", effects)} == {Later}
    assert org.records["Contact"] == {}


async def test_a_job_whose_polls_fail_goes_on(org: SalesforceOrg, salesforce: Salesforce) -> None:
    failing = org.failing
    met = []

    def at_polls(how: str) -> object:
        met.append(how)
        return failing(how)

    org.failing = at_polls  # type: ignore[method-assign]
    may = org.may_fail
    org.may_fail = lambda heard: heard.method in ("GET", "PATCH") and may(heard)  # type: ignore[method-assign]
    org.fail_next("500", times=2)
    effects = [effect("insert", "Contact", {"lastName": f"L{n}"}) for n in range(12)]
    assert {type(each) for each in await salesforce.deliver("insert", effects)} == {Delivered}
    assert met == ["500", "500"]


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b'"a\n', b"sf__Id\n1,2,3\n", b"a,b\n1\n", b'\xef\xbb\xbfa\n"x""y"\n']
)
def test_a_file_of_any_kind_is_read(text: bytes) -> None:
    rows = read(text)
    assert all(isinstance(each, dict) for each in rows)


async def test_a_bare_carriage_return_begins_no_row_of_its_own(org: SalesforceOrg, salesforce: Salesforce) -> None:
    rows = [{"lastName": f"L{n}", "firstName": "A\rB,evil" if n == 5 else "A"} for n in range(12)]
    results = await salesforce.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert collections(org) == 0
    stored = [org.records["Contact"][each.vendor_id] for each in results]
    assert [(each["LastName"], each["FirstName"]) for each in stored] == [
        (each["lastName"], each["firstName"]) for each in rows
    ]


async def test_a_cell_that_is_too_long_costs_the_others_nothing(org: SalesforceOrg, salesforce: Salesforce) -> None:
    rows = [{"lastName": "x" * 200_000 if n == 3 else f"L{n}"} for n in range(12)]
    results = await salesforce.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert len(org.jobs) == 1
    assert all(isinstance(each, Delivered) for n, each in enumerate(results) if n != 3)
    assert not isinstance(results[3], Unknown)
