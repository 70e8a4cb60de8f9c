"""HubSpot, against a stand-in of an account: tokens, lists, searches, batches, limits, doubts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Delivered, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.hubspot import HubSpot
from circuit_script.connectors.hubspot.credentials import credentials
from circuit_script.connectors.hubspot.filters import FILTERS, GROUPS, LONGEST, TOGETHER, body_of, groups_of
from circuit_script.connectors.hubspot.names import inward, outward
from circuit_script.connectors.hubspot.settings import HubSpotSettings
from circuit_script.connectors.query import AnyOf, Condition, Not, Order, Query, every, matches
from circuit_script.connectors.reading import rows_of
from circuit_script.errors import NotConnected, QueryRefused, RequestRefused
from tests.crm.hubspot import HubSpotAccount
from tests.crm.stage import MemorySecrets, client, effect, parts_of
from tests.crm.vendor_server import Answer, Heard

FIELDS = {"Contact": {"reviewedAt": "reviewed_at", "tags": "choices"}}


@pytest.fixture
def account() -> Iterator[HubSpotAccount]:
    with HubSpotAccount() as account:
        yield account


@pytest.fixture
def secrets(account: HubSpotAccount) -> MemorySecrets:
    return MemorySecrets(hubspot__token=account.private)


@pytest.fixture
async def hubspot(account: HubSpotAccount, secrets: MemorySecrets) -> AsyncIterator[HubSpot]:
    async with client() as http:
        yield made(account, secrets, http)


def made(account: HubSpotAccount, secrets: MemorySecrets, http: httpx.AsyncClient, **more: Any) -> HubSpot:
    said: dict[str, Any] = {"external_ids": {"Contact": "circuit_id"}, "searches": 1000, **more}
    settings = HubSpotSettings(base_url=account.url, fields=FIELDS, **said)
    return HubSpot(http, credentials(parts_of(secrets, http), settings), settings)


def searches(account: HubSpotAccount) -> list[Any]:
    return [each.json() for each in account.requests if each.path.endswith("/search")]


# --- tokens


async def test_a_private_token_is_used_as_it_is(account: HubSpotAccount, hubspot: HubSpot) -> None:
    await hubspot.page("acme", Query("Contact"))
    assert {each.headers["authorization"] for each in account.requests} == {f"Bearer {account.private}"}


async def test_a_private_token_that_was_replaced_is_read_again(
    account: HubSpotAccount, hubspot: HubSpot, secrets: MemorySecrets
) -> None:
    await hubspot.page("acme", Query("Contact"))
    account.private = "pat-na1-the-next-one"
    with pytest.raises(Failed) as caught:
        await hubspot.page("acme", Query("Contact"))
    assert isinstance(caught.value.delivery, Later)
    before = len(account.requests)
    secrets.values["", "hubspot.token"] = account.private
    await hubspot.page("acme", Query("Contact"))
    assert len(account.requests) == before + 2  # refused, and again


async def test_an_oauth_token_is_refreshed_once_for_all_who_wait(account: HubSpotAccount) -> None:
    secrets = MemorySecrets(hubspot__client_id=account.client_id, hubspot__client_secret=account.client_secret)
    secrets.values["acme", "hubspot.refresh_token"] = account.refresh
    async with client() as http:
        hubspot = made(account, secrets, http)
        await asyncio.gather(*(hubspot.page("acme", Query("Contact")) for _ in range(6)))
        assert account.grants == 1
        account.expire_tokens()
        await asyncio.gather(*(hubspot.page("acme", Query("Contact")) for _ in range(6)))
        assert account.grants == 2
        with pytest.raises(NotConnected, match=r"secrets set hubspot\.… --tenant birch"):
            await hubspot.page("birch", Query("Contact"))
        secrets.values["", "hubspot.client_secret"] = "wrong-secret-of-hub"
        account.expire_tokens()
        [result] = await hubspot.deliver("update", [effect("update", "Contact", {"city": "x"}, id="1")])
    assert isinstance(result, Later)
    assert "wrong-secret-of-hub" not in result.reason


# --- reads


async def test_rows_have_our_names_and_types(account: HubSpotAccount, hubspot: HubSpot) -> None:
    key = account.put(
        "contacts",
        {
            "firstname": "Zoë",
            "score": "91.5",
            "hot": "true",
            "reviewed_at": "1772359200000",
            "day": "2026-03-01",
            "choices": "a;b",
            "hs_internal_thing": "x",
        },
    )
    [row] = await rows_of(hubspot, "acme", Query("Contact"))
    assert (row["id"], row["firstName"], row["score"], row["hot"]) == (key, "Zoë", 91.5, True)
    assert (row["reviewedAt"], row["day"], row["tags"]) == ("2026-03-01T10:00:00.000Z", "2026-03-01", ["a", "b"])
    assert row["lastName"] is None
    assert "hs_internal_thing" not in row
    [asked] = await rows_of(hubspot, "acme", Query("Contact", fields=("hs_internal_thing",)))
    assert (asked["id"], asked["hs_internal_thing"]) == (key, "x")
    assert "firstName" not in asked
    assert await hubspot.get("acme", "Contact", [key, "no", "99999", key]) == [row, None, None, row]


async def test_conditions_are_asked_where_nothing_is_lost(account: HubSpotAccount, hubspot: HubSpot) -> None:
    for each in (
        {"firstname": "ann", "lastname": "A", "score": "10", "hot": "true", "lifecyclestage": "lead"},
        {"firstname": "Ann", "lastname": "B", "score": "20", "hot": "false"},
        {"firstname": "ANNA", "lastname": "C_1", "lifecyclestage": "customer"},
        {"lastname": "Cx1", "score": "30.25", "day": "1990-02-28"},
        {"firstname": "Ben\\", "lastname": "D'%", "reviewed_at": "2026-03-01T10:00:00.000Z", "choices": "a;c"},
    ):
        account.put("contacts", each)
    everything = await rows_of(hubspot, "acme", Query("Contact"))
    assert len(everything) == 5
    for where in (
        Condition("firstName", "eq", "ann"),
        Condition("firstName", "ne", "ann"),
        Condition("firstName", "in", ("Ann", "ANNA")),
        Condition("firstName", "in", ("Ann", None)),
        Condition("firstName", "not_in", ("ann",)),
        Condition("firstName", "is_null", True),
        Condition("firstName", "is_null", False),
        Condition("firstName", "contains", "NN"),
        Condition("firstName", "gt", "Ann"),
        Condition("lifecyclestage", "eq", "lead"),
        Condition("lifecyclestage", "in", ("lead", "customer")),
        Condition("score", "eq", 30.25),
        Condition("score", "ne", 10),
        Condition("score", "in", (10, 20)),
        Condition("score", "ge", 20),
        Condition("score", "lt", 20),
        Condition("score", "eq", "10"),
        Condition("hot", "eq", True),
        Condition("hot", "eq", False),
        Condition("hot", "ne", True),
        Condition("day", "eq", "1990-02-28"),
        Condition("day", "gt", "1990-02-27T23:59:59Z"),
        Condition("reviewedAt", "eq", "2026-03-01T11:00:00+01:00"),
        Condition("reviewedAt", "gt", "2026-03-01T10:00:00Z"),
        Condition("reviewedAt", "le", "2026-03-01T10:00:00Z"),
        Condition("tags", "contains", "c"),
        Condition("tags", "eq", ["a", "c"]),
        Condition("id", "eq", everything[2]["id"]),
        Condition("id", "ne", everything[2]["id"]),
        Condition("id", "in", (everything[0]["id"], "no id", everything[1]["id"])),
        every(Condition("id", "in", (everything[0]["id"],)), Condition("score", "gt", 5)),
        AnyOf((Condition("score", "lt", 15), every(Condition("firstName", "eq", "Ann"), Condition("score", "gt", 1)))),
        every(*(AnyOf((Condition("score", "lt", n), Condition("score", "gt", n))) for n in (11, 12, 13, 14))),
        AnyOf(tuple(Condition("score", "eq", n) for n in (10, 11, 12, 13, 14, 20))),
        every(*(Condition("score", "gt", n) for n in range(10))),
        Not(AnyOf((Condition("score", "gt", 15), Condition("firstName", "is_null", True)))),
        AnyOf(()),
    ):
        found = await rows_of(hubspot, "acme", Query("Contact", where))
        assert [each["id"] for each in found] == [each["id"] for each in everything if matches(each, where)], where


@pytest.mark.slow
async def test_what_is_found_is_more_than_ten_thousand(account: HubSpotAccount, hubspot: HubSpot) -> None:
    keys = [account.put("contacts", {"score": "1"}) for _ in range(10_450)]
    query = Query("Contact", Condition("score", "gt", 0), limit=50_000, fields=("score",))
    assert [each["id"] for each in await rows_of(hubspot, "acme", query)] == keys
    assert len(searches(account)) == 53


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 30, 1000])
@pytest.mark.parametrize(
    "where", [every(), Condition("score", "ge", 0), Condition("id", "in", tuple(map(str, range(400))))]
)
async def test_pages_have_every_row_once(account: HubSpotAccount, hubspot: HubSpot, size: int, where: Any) -> None:
    keys = [account.put("contacts", {"score": "1"}) for _ in range(130)]
    found, after = [], None
    while True:
        page = await hubspot.page("acme", Query("Contact", where), after, size)
        assert len(page.rows) <= size
        found += [each["id"] for each in page.rows]
        if (after := page.after) is None:
            break
    assert found == keys


async def test_an_order_is_made_here(account: HubSpotAccount, hubspot: HubSpot) -> None:
    for score in ("5", None, "30", "7"):
        account.put("contacts", {"score": score})
    query = Query("Contact", order_by=(Order("score", descending=True),), limit=3)
    assert not hubspot.explain(query).ordered
    assert [each["score"] for each in await rows_of(hubspot, "acme", query)] == [30, 7, 5]


async def test_very_many_properties_are_read_in_a_body(account: HubSpotAccount, hubspot: HubSpot) -> None:
    for n in range(200):
        account.schema["contacts"][f"a_property_with_a_long_name_{n}"] = account.schema["contacts"]["city"]
    keys = [account.put("contacts", {"score": "1", "a_property_with_a_long_name_7": "x"}) for _ in range(120)]
    for where in (every(), Condition("score", "gt", 0)):
        rows = await rows_of(hubspot, "acme", Query("Contact", where))
        assert [each["id"] for each in rows] == keys
        assert {each["a_property_with_a_long_name_7"] for each in rows} == {"x"}


async def test_notes_know_their_contact(account: HubSpotAccount, hubspot: HubSpot) -> None:
    ann, ben = account.put("contacts", {}), account.put("contacts", {})
    fresh = effect("insert", "Note", {"body": "hello", "contactId": ann})
    [result] = await hubspot.deliver("insert", [fresh])
    other = account.put("notes", {"hs_note_body": "other", "hs_timestamp": "2026-01-01T00:00:00Z"}, ben)
    account.put("notes", {"hs_note_body": "nobody's", "hs_timestamp": "2026-01-01T00:00:00Z"})
    assert isinstance(result, Delivered)
    [row] = await rows_of(hubspot, "acme", Query("Note", Condition("contactId", "eq", ann)))
    assert (row["id"], row["body"], row["contactId"]) == (result.vendor_id, "hello", ann)
    rows = await rows_of(hubspot, "acme", Query("Note", Condition("contactId", "in", (ben, "7"))))
    assert [each["id"] for each in rows] == [other]
    [refused] = await hubspot.deliver("update", [effect("update", "Note", {"contactId": ben}, id=row["id"])])
    assert isinstance(refused, Refused)
    [stranger] = await hubspot.deliver("insert", [effect("insert", "Note", {"body": "x", "contactId": "x/../y"})])
    assert isinstance(stranger, Refused)


async def test_names_that_are_none_are_said(hubspot: HubSpot) -> None:
    with pytest.raises(RequestRefused, match=r"no property 'shoesize' in HubSpot.*hubspot.fields.Contact"):
        await hubspot.page("acme", Query("Contact", Condition("shoesize", "eq", 1)))
    for name in ("a b", "../x", "A", ""):
        with pytest.raises(RequestRefused):
            await hubspot.page("acme", Query("Contact", Condition(name, "eq", 1)))
    for name in ("../../oauth", "contacts/search", "a b", ""):
        with pytest.raises(RequestRefused):
            await hubspot.page("acme", Query(name))
    with pytest.raises(QueryRefused):
        await hubspot.page("acme", Query("Contact"), "1&limit=2")


async def test_it_says_what_it_would_ask(account: HubSpotAccount, hubspot: HubSpot) -> None:
    plan = hubspot.explain(
        Query("Contact", every(Condition("email", "eq", "a@b.c"), Condition("city", "contains", "x")))
    )
    assert plan.connector == "hubspot"
    assert plan.requests[0].startswith("POST /crm/v3/objects/contacts/search")
    assert "a@b.c" in plan.requests[0]
    assert plan.here[0].startswith("city contains 'x'")
    assert account.requests == []


async def test_searches_keep_to_five_in_a_second(account: HubSpotAccount, secrets: MemorySecrets) -> None:
    account.per_second = 5
    for _ in range(12):
        account.put("contacts", {"score": "1"})
    async with client() as http:
        hubspot = made(account, secrets, http, searches=4)
        query = Query("Contact", Condition("score", "gt", 0))
        pages = await asyncio.gather(*(hubspot.page("acme", query) for _ in range(9)))
    assert [len(each.rows) for each in pages] == [12] * 9


# --- writes


async def test_inserts_updates_upserts_and_deletes(account: HubSpotAccount, hubspot: HubSpot) -> None:
    fresh = effect("insert", "Contact", {"firstName": "Ann", "score": 5, "hot": True, "tags": ["a", "b"], "city": None})
    [inserted] = await hubspot.deliver("insert", [fresh])
    assert isinstance(inserted, Delivered)
    key = str(inserted.vendor_id)
    stored = account.records["contacts"][key]
    assert (stored["score"], stored["hot"], stored["choices"], stored["circuit_id"]) == (
        "5",
        "true",
        "a;b",
        str(fresh.id),
    )
    assert await hubspot.deliver("update", [effect("update", "Contact", {"firstName": None}, id=key)]) == [
        Delivered(key)
    ]
    assert "firstname" not in stored
    ups = [
        effect("upsert", "Contact", {"lastName": "By id"}, id=key),
        effect("upsert", "Contact", {"lastName": "New"}, id="order-17"),
    ]
    results = await hubspot.deliver("upsert", ups)
    assert results[0] == Delivered(key)
    new = results[1].vendor_id
    assert account.records["contacts"][new]["circuit_id"] == "order-17"
    again = await hubspot.deliver("upsert", [effect("upsert", "Contact", {"lastName": "Newer"}, id="order-17")])
    assert again == [Delivered(new)]
    assert await hubspot.deliver("delete", [effect("delete", "Contact", id=key)]) == [Delivered(key)]
    assert key not in account.records["contacts"]


@pytest.mark.parametrize("traces", [True, False])
async def test_one_bad_record_spoils_no_other(account: HubSpotAccount, hubspot: HubSpot, traces: bool) -> None:
    account.put("contacts", {"email": "twin@example.com"})
    rows = [
        {"lastName": "Good"},
        {"lastName": "Twin", "email": "twin@example.com"},
        {"lastName": "Other type", "score": "much"},
        {"lastName": "No such", "nonsense": 1},
        {"lastName": "No name", "Not A Name": 1},
        {"lastName": "Fine"},
    ]
    account.traces = traces
    results = await hubspot.deliver("insert", [effect("insert", "Contact", each) for each in rows])
    assert [type(each) for each in results] == [Delivered, *[Refused] * 4, Delivered]
    assert "CONFLICT" in results[1].reason
    assert "score" in results[2].reason
    assert [account.records["contacts"][results[n].vendor_id]["lastname"] for n in (0, 5)] == ["Good", "Fine"]
    assert len(account.records["contacts"]) == 3
    missing = [effect("update", "Contact", {"city": "x"}, id=each) for each in ("424242", str(results[0].vendor_id))]
    gone, there = await hubspot.deliver("update", missing)
    assert isinstance(gone, Refused)
    assert isinstance(there, Delivered)


@pytest.mark.parametrize(("policy", "after"), [("DAILY", 3600.0), ("TEN_SECONDLY_ROLLING", 10.0), ("SECONDLY", 1.0)])
async def test_each_limit_has_its_wait(account: HubSpotAccount, hubspot: HubSpot, policy: str, after: float) -> None:
    account.failing = lambda how: account.limited(policy)  # type: ignore[method-assign]
    account.fail_next("429")
    [result] = await hubspot.deliver("insert", [effect("insert", "Contact", {"lastName": "L"})])
    assert isinstance(result, SlowDown)
    assert result.after == after
    assert policy in result.reason


async def test_a_write_without_an_answer_is_found_again(account: HubSpotAccount, hubspot: HubSpot) -> None:
    account.fail_next("drop_after")
    fresh = effect("insert", "Contact", {"lastName": "Lee"})
    assert isinstance((await hubspot.deliver("insert", [fresh]))[0], Unknown)
    [key] = account.records["contacts"]
    account.hidden.add(key)  # searches do not know of it for some seconds
    assert await hubspot.look_up(fresh) == Delivered(key)
    assert isinstance(await hubspot.look_up(effect("insert", "Contact", {"lastName": "Other"})), Later)
    assert isinstance(await hubspot.look_up(effect("update", "Contact", {}, id=key)), Later)
    assert await hubspot.look_up(effect("insert", "Note", {"body": "x"})) is None


# --- without anybody


@given(st.text(max_size=50), st.sampled_from(["string", "number", "bool", "date", "datetime", "several", "json"]))
def test_whatever_a_property_holds_is_read(text: str, kind: str) -> None:
    json.dumps(inward(kind, text))


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_comes_back(number: float) -> None:
    assert inward("number", outward(number)) == (number if abs(number) < 1e18 else pytest.approx(number))


PART = st.builds(
    lambda name, value: Condition(name, "eq", value),
    st.sampled_from(["a", "b"]),
    st.text("xy'\" é", min_size=1, max_size=200),
)
TREE = st.recursive(
    PART,
    lambda part: st.one_of(
        st.lists(part, max_size=8).map(lambda parts: every(*parts)),
        st.lists(part, max_size=8).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=30,
)


@given(TREE)
def test_a_search_is_never_more_than_hubspot_takes(where: Any) -> None:
    groups = groups_of(where, lambda field: (field, "string"))
    body, _ = body_of(groups, "12345", ["a", "b"], 200)
    sizes = [len(each["filters"]) for each in body["filterGroups"]]
    assert len(sizes) <= GROUPS
    assert all(0 < each <= FILTERS for each in sizes)
    assert sum(sizes) <= TOGETHER
    assert len(json.dumps(body)) <= LONGEST


class Endless(HubSpotAccount):
    """Says of an empty page, again and again, that there is another one."""

    def _list(self, name: str, heard: Heard) -> Answer:
        return Answer(200, {"results": [], "paging": {"next": {"after": "17"}}})


async def test_a_list_that_goes_in_circles_comes_to_an_end() -> None:
    with Endless() as account:
        async with client() as http:
            crm = made(account, MemorySecrets(hubspot__token=account.private), http)
            with pytest.raises(QueryRefused, match="does not come to an end"):
                await asyncio.wait_for(rows_of(crm, "acme", Query("Contact")), 20)
        assert len(account.requests) < 10
