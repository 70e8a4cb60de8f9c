"""Salesforce, against a stand-in of an org: tokens, SOQL, pages, collections, errors, doubts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Delivered, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.query import AnyOf, Condition, Not, Order, Query, every, matches
from circuit_script.connectors.reading import rows_of
from circuit_script.connectors.salesforce.connector import Salesforce
from circuit_script.connectors.salesforce.credentials import credentials
from circuit_script.connectors.salesforce.settings import SalesforceSettings
from circuit_script.errors import NotConnected, QueryRefused, RequestRefused, SecretsUnavailable
from tests.crm.salesforce import SalesforceOrg
from tests.crm.stage import MemorySecrets, client, effect, parts_of

FIELDS = {"Contact": {"score": "Score__c", "reviewedAt": "Reviewed_At__c", "hot": "Hot__c", "tags": "Tags__c"}}


@pytest.fixture
def org() -> Iterator[SalesforceOrg]:
    with SalesforceOrg() as org:
        yield org


@pytest.fixture
def secrets(org: SalesforceOrg) -> MemorySecrets:
    return MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)


@pytest.fixture
async def salesforce(org: SalesforceOrg, secrets: MemorySecrets) -> AsyncIterator[Salesforce]:
    async with client() as http:
        yield made(org, secrets, http)


def made(org: SalesforceOrg, secrets: MemorySecrets, http: object, **more: object) -> Salesforce:
    settings = SalesforceSettings(
        login_url=org.url, fields=FIELDS, **{"external_ids": {"Contact": "Circuit_Id__c"}, **more}
    )
    return Salesforce(http, credentials(parts_of(secrets, http), settings), settings)


def soqls(org: SalesforceOrg) -> list[str]:
    return [each.one("q") for each in org.requests if each.path.endswith("/query")]


# --- tokens


async def test_client_credentials_are_asked_for_once_and_kept(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.put("Contact", {"LastName": "Lee"})
    await asyncio.gather(*(salesforce.page("acme", Query("Contact")) for _ in range(5)))
    grants = [each.form() for each in org.requests if each.path.endswith("/token")]
    assert grants == [
        {"grant_type": "client_credentials", "client_id": org.client_id, "client_secret": org.client_secret}
    ]


async def test_a_password_is_used_where_there_is_one(org: SalesforceOrg, secrets: MemorySecrets) -> None:
    secrets.values["acme", "salesforce.username"] = org.username
    secrets.values["acme", "salesforce.password"] = org.password
    async with client() as http:
        await made(org, secrets, http).page("acme", Query("Contact"))
    assert org.requests[0].form()["grant_type"] == "password"


async def test_a_private_key_signs_a_jwt(org: SalesforceOrg) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    org.public_key = key.public_key()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__username=org.username)
    secrets.values["", "salesforce.private_key"] = pem
    async with client() as http:
        await made(org, secrets, http).page("acme", Query("Contact"))
    said = org.requests[0].form()
    assert set(said) == {"grant_type", "assertion"}
    assert jwt.get_unverified_header(said["assertion"])["alg"] == "RS256"


async def test_a_key_that_is_none_is_said_without_it(org: SalesforceOrg) -> None:
    secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__username=org.username)
    secrets.values["", "salesforce.private_key"] = "not-a-key-but-secret"
    async with client() as http:
        with pytest.raises(SecretsUnavailable) as caught:
            await credentials(parts_of(secrets, http), SalesforceSettings(login_url=org.url)).of("acme")
    assert "RSA private key" in str(caught.value)
    assert "not-a-key-but-secret" not in str(caught.value)


async def test_a_token_that_ended_is_replaced_once(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.put("Contact", {"LastName": "Lee"})
    await salesforce.page("acme", Query("Contact"))
    org.expire_tokens()
    pages = await asyncio.gather(*(salesforce.page("acme", Query("Contact")) for _ in range(8)))
    assert [len(each.rows) for each in pages] == [1] * 8
    assert len([each for each in org.requests if each.path.endswith("/token")]) == 2


async def test_tenants_have_tokens_of_their_own(org: SalesforceOrg, salesforce: Salesforce) -> None:
    await salesforce.page("acme", Query("Contact"))
    await salesforce.page("birch", Query("Contact"))
    used = {each.headers["authorization"] for each in org.requests if "authorization" in each.headers}
    assert len(used) == 2


async def test_without_secrets_nobody_is_connected(org: SalesforceOrg) -> None:
    async with client() as http:
        salesforce = made(org, MemorySecrets(), http)
        with pytest.raises(NotConnected, match=r"secrets set salesforce\.… --tenant acme"):
            await salesforce.page("acme", Query("Contact"))
        [result] = await salesforce.deliver("update", [effect("update", "Contact", {}, id=org.new_id("Contact"))])
    assert isinstance(result, Later)
    assert result.down


async def test_a_refused_secret_is_told_without_it(org: SalesforceOrg, secrets: MemorySecrets) -> None:
    secrets.values["", "salesforce.client_secret"] = "wrong-client-secret"
    async with client() as http:
        with pytest.raises(NotConnected, match="client identifier invalid") as caught:
            await made(org, secrets, http).page("acme", Query("Contact"))
    assert "wrong-client-secret" not in str(caught.value)


async def test_an_org_that_refuses_each_token_is_not_asked_for_ever(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.lives = -1.0  # each token has ended before it is used
    for _ in range(12):
        with pytest.raises(Failed):
            await salesforce.page("acme", Query("Contact"))
    assert len([each for each in org.requests if each.path.endswith("/token")]) < 12


# --- reads


async def test_rows_have_our_names_and_the_orgs_own(org: SalesforceOrg, salesforce: Salesforce) -> None:
    key = org.put(
        "Contact",
        {
            "FirstName": "Zoë",
            "LastName": "O'Brien",
            "Score__c": 91.5,
            "Reviewed_At__c": "2026-03-01T10:00:00.000+0000",
            "Tags__c": "hot;vip",
            "DoNotCall": True,
        },
    )
    [row] = await rows_of(salesforce, "acme", Query("Contact"))
    assert row["id"] == key
    assert (row["firstName"], row["lastName"], row["name"]) == ("Zoë", "O'Brien", "Zoë O'Brien")
    assert (row["score"], row["reviewedAt"], row["tags"]) == (91.5, "2026-03-01T10:00:00.000Z", ["hot", "vip"])
    assert row["DoNotCall"] is True
    assert "MailingAddress" not in row
    assert await salesforce.get("acme", "Contact", [key, "no", org.new_id("Contact"), key]) == [row, None, None, row]


async def test_only_the_fields_that_are_wanted_are_selected(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.put("Contact", {"LastName": "Lee", "Score__c": 5})
    query = Query("Contact", Condition("score", "gt", 1), (Order("dateAdded"),), fields=("lastName",))
    [row] = await rows_of(salesforce, "acme", query)
    assert set(row) == {"id", "lastName", "score", "dateAdded"}
    assert soqls(org) == [
        "SELECT Id, CreatedDate, LastName, Score__c FROM Contact WHERE Score__c > 1 "
        "ORDER BY CreatedDate ASC NULLS LAST, Id LIMIT 1000"
    ]


async def test_conditions_are_asked_where_nothing_is_lost(org: SalesforceOrg, salesforce: Salesforce) -> None:
    rows = [
        {"FirstName": "ann", "LastName": "A", "Score__c": 10, "Hot__c": True},
        {"FirstName": "Ann", "LastName": "B", "Score__c": 20},
        {"FirstName": "ANNA", "LastName": "C_1", "Score__c": None, "Description": "Likes 100% cotton"},
        {"FirstName": None, "LastName": "Cx1", "Score__c": 30.25, "Birthdate": "1990-02-28"},
        {"FirstName": "Ben\\", "LastName": "D'%", "Reviewed_At__c": "2026-03-01T10:00:00.000+0000"},
    ]
    for each in rows:
        org.put("Contact", each)
    everything = await rows_of(salesforce, "acme", Query("Contact"))
    assert len(everything) == 5
    for where in (
        Condition("firstName", "eq", "ann"),
        Condition("firstName", "ne", "ann"),
        Condition("firstName", "in", ("ann", None)),
        Condition("firstName", "not_in", ("ann", "Ben\\")),
        Condition("firstName", "is_null", True),
        Condition("firstName", "is_null", False),
        Condition("firstName", "starts_with", "AN"),
        Condition("firstName", "ends_with", "\\"),
        Condition("firstName", "gt", "Ann"),
        Condition("lastName", "contains", "_"),
        Condition("lastName", "contains", "%"),
        Condition("lastName", "eq", "d'%"),
        Condition("lastName", "eq", "D'%"),
        Condition("score", "eq", 30.25),
        Condition("score", "ne", 10),
        Condition("score", "in", (10, 20)),
        Condition("score", "not_in", (10, 20)),
        Condition("score", "ge", 20),
        Condition("score", "lt", 20),
        Condition("score", "eq", "10"),
        Condition("hot", "eq", True),
        Condition("hot", "ne", True),
        Condition("hot", "is_null", False),
        Condition("dateOfBirth", "eq", "1990-02-28"),
        Condition("dateOfBirth", "ge", "1990-02-28T00:00:01Z"),
        Condition("dateOfBirth", "lt", "1990-02-28T12:00:00+14:00"),
        Condition("reviewedAt", "eq", "2026-03-01T11:00:00+01:00"),
        Condition("reviewedAt", "gt", "2026-03-01T09:59:59.999Z"),
        Condition("reviewedAt", "gt", "2026-03-01T10:00:00Z"),
        Condition("reviewedAt", "le", "2026-03-01"),
        Condition("reviewedAt", "ne", "2026-03-01T10:00:00Z"),
        Condition("Description", "contains", "100%"),
        Condition("id", "eq", everything[0]["id"]),
        Condition("id", "ne", everything[0]["id"]),
        Condition("id", "in", (everything[0]["id"], "no id", everything[1]["id"])),
        Condition("id", "eq", "no id"),
        AnyOf((Condition("score", "lt", 15), every(Condition("firstName", "eq", "Ann"), Condition("score", "gt", 1)))),
        AnyOf((Condition("score", "lt", 15), Condition("Description", "contains", "cotton"))),
        Not(AnyOf((Condition("score", "gt", 15), Condition("firstName", "is_null", True)))),
        AnyOf(()),
        Not(Condition("firstName", "contains", "n")),
    ):
        found = await rows_of(salesforce, "acme", Query("Contact", where))
        wanted = [each for each in everything if matches(each, where)]
        assert [each["id"] for each in found] == [each["id"] for each in wanted], where


async def test_a_limit_counts_rows_that_match(org: SalesforceOrg, salesforce: Salesforce) -> None:
    for name in ("ANN", "Ann", "ann", "ann"):
        org.put("Contact", {"FirstName": name, "LastName": "L"})
    rows = await rows_of(salesforce, "acme", Query("Contact", Condition("firstName", "eq", "ann"), limit=2))
    assert [each["firstName"] for each in rows] == ["ann", "ann"]


async def test_an_order_of_text_is_made_here_and_one_of_numbers_there(
    org: SalesforceOrg, salesforce: Salesforce
) -> None:
    for name, score in (("b", 2), ("A", None), ("a", 3), ("B", 1), (None, 3)):
        org.put("Contact", {"FirstName": name, "LastName": "L", "Score__c": score})
    await salesforce.page("acme", Query("Contact"))  # what the fields are is known from here on
    by_name = Query("Contact", order_by=(Order("firstName"),), limit=4)
    assert [each["firstName"] for each in await rows_of(salesforce, "acme", by_name)] == ["A", "B", "a", "b"]
    assert not salesforce.explain(by_name).ordered
    assert "order by firstName" in salesforce.explain(by_name).here[0]
    by_score = Query("Contact", order_by=(Order("score", descending=True),), limit=4)
    assert salesforce.explain(by_score).ordered
    assert [each["score"] for each in await rows_of(salesforce, "acme", by_score)] == [3, 3, 2, 1]
    assert soqls(org)[-1].endswith("ORDER BY Score__c DESC NULLS LAST, Id LIMIT 4")


@pytest.mark.parametrize("size", [7, 250, 1000])
async def test_pages_have_every_row_once(org: SalesforceOrg, salesforce: Salesforce, size: int) -> None:
    keys = [org.put("Contact", {"LastName": f"L{n}", "Score__c": n}) for n in range(650)]
    found, after = [], None
    query = Query("Contact", order_by=(Order("score"),))
    while True:
        page = await salesforce.page("acme", query, after, size)
        assert len(page.rows) <= size
        found += [each["id"] for each in page.rows]
        if (after := page.after) is None:
            break
    assert found == keys


async def test_a_cursor_is_no_way_into_a_path(salesforce: Salesforce) -> None:
    for after in ("../sobjects/User", "01g5g000000-2000/../../x", "+99999", "", "01g5gAAAAAA-2000?x=1"):
        with pytest.raises(QueryRefused):
            await salesforce.page("acme", Query("Contact"), after)


async def test_a_long_query_travels_in_a_body(org: SalesforceOrg, salesforce: Salesforce) -> None:
    keys = [org.put("Contact", {"LastName": f"L{n}"}) for n in range(900)]
    rows = await rows_of(salesforce, "acme", Query("Contact", Condition("id", "in", tuple(keys))))
    assert [each["id"] for each in rows] == keys
    assert any(each.path.endswith("/composite/batch") for each in org.requests)


async def test_a_field_that_is_not_there_is_said(salesforce: Salesforce) -> None:
    with pytest.raises(RequestRefused, match=r"no field 'shoeSize' in Salesforce.*salesforce.fields.Contact"):
        await salesforce.page("acme", Query("Contact", Condition("shoeSize", "eq", 1)))
    for name in ("Id FROM User", "a.b", "x'", ""):
        with pytest.raises(RequestRefused):
            await salesforce.page("acme", Query("Contact", Condition(name, "eq", 1)))
        with pytest.raises(RequestRefused):
            await salesforce.page("acme", Query(name or " "))


async def test_custom_objects_go_by_their_own_names(org: SalesforceOrg, salesforce: Salesforce) -> None:
    key = org.put("Invoice__c", {"Name": "INV-1", "Amount__c": 12.5})
    [row] = await rows_of(salesforce, "acme", Query("Invoice__c", Condition("Amount__c", "gt", 10)))
    assert (row["id"], row["Amount__c"]) == (key, 12.5)


async def test_it_says_what_it_would_ask(org: SalesforceOrg, salesforce: Salesforce) -> None:
    plan = salesforce.explain(Query("Contact", Condition("email", "ends_with", "'x"), fields=("email",), limit=5))
    assert plan.connector == "salesforce"
    assert plan.requests == (
        "GET /services/data/v62.0/query?q=SELECT Id, Email FROM Contact WHERE Email LIKE '%\\'x' ORDER BY Id",
    )
    assert plan.here == ("limit 5",)
    assert org.requests == []


# --- writes


async def test_inserts_updates_upserts_and_deletes(org: SalesforceOrg, salesforce: Salesforce) -> None:
    fresh = effect("insert", "Contact", {"firstName": "Ann", "lastName": "Lee", "score": 5, "tags": ["a", "b"]})
    [inserted] = await salesforce.deliver("insert", [fresh])
    assert isinstance(inserted, Delivered)
    key = str(inserted.vendor_id)
    assert org.records["Contact"][key]["Tags__c"] == "a;b"
    assert org.records["Contact"][key]["Circuit_Id__c"] == str(fresh.id)
    updates = [effect("update", "Contact", {"firstName": None, "dateOfBirth": "1990-01-01T00:00:00Z"}, id=key)]
    assert await salesforce.deliver("update", updates) == [Delivered(key)]
    assert org.records["Contact"][key]["FirstName"] is None
    assert org.records["Contact"][key]["Birthdate"] == "1990-01-01"
    ups = [
        effect("upsert", "Contact", {"lastName": "By id"}, id=key),
        effect("upsert", "Contact", {"lastName": "New"}, id="order-17"),
        effect("upsert", "Contact", {"lastName": "By ours"}, id=str(fresh.id)),
    ]
    results = await salesforce.deliver("upsert", ups)
    assert results[0] == Delivered(key)
    assert results[2] == Delivered(key)
    assert org.records["Contact"][key]["LastName"] == "By ours"
    made_id = results[1].vendor_id
    assert org.records["Contact"][made_id]["Circuit_Id__c"] == "order-17"
    assert await salesforce.deliver("upsert", [effect("upsert", "Contact", {"lastName": "X"}, id="order-17")]) == [
        Delivered(made_id)
    ]
    assert await salesforce.deliver("delete", [effect("delete", "Contact", id=key)]) == [Delivered(key)]
    assert await salesforce.deliver("delete", [effect("delete", "Contact", id=key)]) == [Delivered()]
    assert key not in org.records["Contact"]


async def test_one_bad_record_spoils_no_other(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.duplicates.add("twin@example.com")
    key = org.put("Contact", {"LastName": "Locked"})
    org.locked.add(key)
    rows = [
        {"lastName": "Good"},
        {"firstName": "No last name"},
        {"lastName": "Twin", "email": "twin@example.com"},
        {"lastName": "Bad mail", "email": "nonsense"},
        {"lastName": "No such", "nonsense": 1},
        {"lastName": "Other type", "score": "much"},
        {"lastName": "x", "nonsense; DROP": 1},
        {"lastName": "Fine"},
    ]
    results = await salesforce.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert [type(each) for each in results] == [Delivered, *[Refused] * 6, Delivered]
    reasons = [getattr(each, "reason", "") for each in results]
    assert reasons[1].startswith("REQUIRED_FIELD_MISSING")
    assert "(lastName)" in reasons[1]
    assert reasons[2].startswith("DUPLICATES_DETECTED")
    assert "(email)" in reasons[3]
    assert "INVALID_FIELD" in reasons[4]
    assert "JSON_PARSER_ERROR" in reasons[5]
    assert len(org.records["Contact"]) == 3
    [busy, bad] = await salesforce.deliver(
        "update",
        [effect("update", "Contact", {"score": 1}, id=key), effect("update", "Contact", {"score": 1}, id="order-17")],
    )
    assert isinstance(busy, Later)
    assert busy.reason.startswith("UNABLE_TO_LOCK_ROW")
    assert isinstance(bad, Refused)


async def test_five_hundred_go_in_three_requests(org: SalesforceOrg, salesforce: Salesforce) -> None:
    effects = [effect("insert", "Contact", {"lastName": f"L{n}"}) for n in range(500)]
    results = await salesforce.deliver("insert", effects)
    assert all(isinstance(each, Delivered) for each in results)
    assert len({each.vendor_id for each in results}) == 500
    assert len([each for each in org.requests if each.path.endswith("/composite/sobjects")]) == 3
    first = org.records["Contact"][results[321].vendor_id]
    assert first["LastName"] == "L321"


async def test_too_many_requests_of_a_day_wait_for_long(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.fail_next("429")
    effects = [effect("insert", "Contact", {"lastName": f"L{n}"}) for n in range(201)]
    results = await salesforce.deliver("insert", effects)
    assert {type(each) for each in results} == {SlowDown}
    assert {each.after for each in results} == {900.0}
    assert org.records["Contact"] == {}
    assert salesforce.usage["acme"][1] == 100_000


async def test_usage_is_read_from_each_answer(org: SalesforceOrg, salesforce: Salesforce) -> None:
    org.used = 41
    await salesforce.page("acme", Query("Contact"))
    assert salesforce.usage["acme"] == (43, 100_000)


async def test_a_write_without_an_answer_is_found_again(org: SalesforceOrg, salesforce: Salesforce) -> None:
    await salesforce.page("acme", Query("Contact"))
    org.fail_next("drop_after")
    effects = [effect("insert", "Contact", {"lastName": "Lee"})]
    assert isinstance((await salesforce.deliver("insert", effects))[0], Unknown)
    [key] = org.records["Contact"]
    assert await salesforce.look_up(effects[0]) == Delivered(key)
    again = effect("insert", "Contact", {"lastName": "Lee"}, id=str(effects[0].id), attempts=1)
    assert await salesforce.deliver("insert", [again]) == [Delivered(key)]
    org.fail_next("drop_before")
    other = effect("insert", "Contact", {"lastName": "Other"})
    assert isinstance((await salesforce.deliver("insert", [other]))[0], Unknown)
    assert isinstance(await salesforce.look_up(other), Later)
    assert isinstance(await salesforce.look_up(effect("update", "Contact", {}, id=key)), Later)


async def test_without_an_external_id_a_person_is_asked(org: SalesforceOrg, secrets: MemorySecrets) -> None:
    async with client() as http:
        salesforce = made(org, secrets, http, external_ids={})
        assert await salesforce.look_up(effect("insert", "Contact", {"lastName": "Lee"})) is None
        assert await salesforce.look_up(effect("upsert", "Contact", {"lastName": "Lee"})) is None
        later = await salesforce.look_up(effect("upsert", "Contact", {}, id=org.new_id("Contact")))
        assert isinstance(later, Later)


async def test_no_secret_is_in_what_is_said(org: SalesforceOrg, salesforce: Salesforce) -> None:
    await salesforce.page("acme", Query("Contact"))
    org.fail_next("500")
    with pytest.raises(Failed) as caught:
        await salesforce.page("acme", Query("Contact"))
    [token] = org.tokens
    assert token not in repr(caught.value)
    assert token not in repr(await salesforce._api.access("acme"))


async def test_a_plan_names_no_fields_that_only_another_tenant_has(org: SalesforceOrg, salesforce: Salesforce) -> None:
    before = salesforce.explain(Query("Contact"))
    await salesforce.page("acme", Query("Contact"))
    assert salesforce.explain(Query("Contact")) == before
