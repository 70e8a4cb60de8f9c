"""The stand-in itself: the vendor's own client speaks to it, it signs as the vendor does, and it sends as badly."""

import asyncio
import base64
import json
import os
import subprocess
import sys

import httpx
import pytest

from circuit_script.events.sources.gohighlevel import GoHighLevel as Source
from circuit_script.events.sources.source import Request
from circuit_script.testing.stand_ins.gohighlevel import contract_of, running
from circuit_script.testing.stand_ins.gohighlevel.contract import SLIPS, UNSAID
from tests.receiver import receiving, response


@pytest.fixture
def vendor():
    with running(window=0.5) as found:
        yield found


def client(vendor, **headers):
    headers = {"authorization": f"Bearer {vendor.token}", "version": "2021-07-28"} | headers
    return httpx.Client(base_url=vendor.url, headers={name: value for name, value in headers.items() if value})


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"authorization": "Bearer nobody"}, 401, "Invalid JWT"),
        ({"authorization": ""}, 401, "not found"),
        ({"version": ""}, 401, "version header was not found"),
        ({"version": "2021-04-15"}, 422, "version must be"),
    ],
)
def test_it_refuses_in_the_vendors_words(vendor, headers, status, words):
    with client(vendor, **headers) as http:
        answer = http.get("/contacts/nobody")
    assert answer.status_code == status
    assert answer.json()["statusCode"] == status
    assert words in str(answer.json()["message"])


def test_a_hundred_requests_fit_into_a_window_and_no_more(vendor):
    vendor.limits.window = 60.0
    with client(vendor) as http:
        answers = [http.get(f"/locations/{vendor.location}") for _ in range(101)]
    assert [each.status_code for each in answers] == [200] * 100 + [429]
    assert [int(each.headers["x-ratelimit-remaining"]) for each in answers[:3]] == [99, 98, 97]
    assert answers[-1].headers["x-ratelimit-max"] == "100"
    assert answers[-1].headers["x-ratelimit-daily-remaining"] == str(200_000 - 100)


def test_a_refresh_token_serves_once(vendor):
    first = vendor.tokens.issue(vendor.tokens.grants[vendor.token])
    form = {"client_id": vendor.tokens.client_id, "client_secret": vendor.tokens.client_secret,
            "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}  # fmt: skip
    with httpx.Client(base_url=vendor.url) as http:
        assert http.post("/oauth/token", data=form).json()["refresh_token"] != first["refresh_token"]
        again = http.post("/oauth/token", data=form)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


async def test_webhooks_are_signed_so_that_our_source_takes_them(vendor):
    source = Source(vendor.webhooks.public_key)
    async with receiving(lambda got: response(202)) as receiver:
        vendor.webhooks.url = receiver.url
        made = vendor.world.contact(vendor.location, {"firstName": "Ada", "email": "ada@example.com"})
        vendor.world.edit_contact(made, {"city": "Rome"})
        async with asyncio.timeout(20):
            while len(receiver.got) < 2:
                await asyncio.sleep(0.01)
    came = [Request("POST", "/", b"", got.headers, got.body, 0.0) for got in receiver.got]
    drafts = [source.parse(each, source.verify(each)).events[0] for each in came]
    assert [(each.object, each.event, each.record) for each in drafts] == [
        ("Contact", "afterInsert", made["id"]),
        ("Contact", "afterUpdate", made["id"]),
    ]


async def test_some_come_twice_some_never_and_echoes_can_be_left_out(vendor):
    async with receiving(lambda got: response(200)) as receiver:
        vendor.webhooks.url = receiver.url
        vendor.webhooks.lost = 1.0
        vendor.world.contact(vendor.location, {"email": "lost@example.com"})
        vendor.webhooks.lost, vendor.webhooks.twice, vendor.webhooks.echoes = 0.0, 1.0, False
        vendor.world.contact(vendor.location, {"email": "ours@example.com"}, by_api=True)
        vendor.world.contact(vendor.location, {"email": "twice@example.com"})
        async with asyncio.timeout(20):
            while len(receiver.got) < 2:
                await asyncio.sleep(0.01)
    one, two = (json.loads(got.body) for got in receiver.got)
    assert one == two
    assert one["email"] == "twice@example.com"


async def test_it_sends_again_after_429_and_never_after_500(vendor):
    answers = iter([429, 200, 500])
    async with receiving(lambda got: response(next(answers))) as receiver:
        vendor.webhooks.url, vendor.webhooks.pause = receiver.url, 0.01
        vendor.world.contact(vendor.location, {"email": "a@example.com"})
        vendor.world.contact(vendor.location, {"email": "b@example.com"})
        async with asyncio.timeout(20):
            while len(vendor.webhooks.sent) < 2:
                await asyncio.sleep(0.01)
    assert [status for status, _ in vendor.webhooks.sent] == [200, 500]
    assert len(receiver.got) == 3


async def test_the_vendors_own_client_understands_it(vendor):
    sdk = pytest.importorskip("highlevel")
    found = sdk.HighLevel(private_integration_token=vendor.token)
    found.http_client.base_url = vendor.url
    try:
        made = await found.contacts.create_contact({"locationId": vendor.location, "email": "ada@example.com"})
        id_ = made["contact"]["id"]
        assert vendor.world.contacts[id_]["email"] == "ada@example.com"
        await found.contacts.update_contact(id_, {"firstName": "Ada", "city": "Rome"})
        assert (await found.contacts.get_contact(id_))["contact"]["city"] == "Rome"
        searched = await found.contacts.search_contacts_advanced({"locationId": vendor.location, "pageLimit": 10})
        assert [each["id"] for each in searched["contacts"]] == [id_]
        assert (await found.contacts.create_note(id_, {"body": "called"}))["note"]["contactId"] == id_
    finally:
        await found.http_client.aclose()


def test_the_contract_is_held_against_what_it_hears_and_says():
    """A check that finds nothing proves something only if it can find something."""
    contract = contract_of()
    if contract is None:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    headers = {"authorization": "Bearer x", "version": "2021-07-28", "content-type": "application/json"}
    good = json.dumps({"contact": {"id": "c1"}}).encode()
    contract.check("GET", "/contacts/c1", [], headers, b"", 200, good)
    assert contract.violations == []
    contract.check("GET", "/contacts/c1", [], headers, b"", 200, json.dumps({"contact": {"id": 5}}).encode())
    contract.check("POST", "/contacts/", [], headers, b'{"email": 5}', 201, good)
    contract.check("GET", "/contacts/c1", [], headers | {"version": "2021-04-15"}, b"", 200, good)
    assert len(contract.violations) == 3
    assert all(reason for *_, reason in SLIPS)
    assert all(UNSAID.values())


def test_it_runs_by_itself():
    with subprocess.Popen(
        [sys.executable, "-m", "circuit_script.testing.stand_ins.gohighlevel", "--port", "0", "--token", "pit-mine"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"CIRCUIT_SHARED": ""},
    ) as process:  # fmt: skip
        try:
            told = json.loads(process.stdout.readline())
            answer = httpx.get(
                f"{told['url']}/locations/{told['location']}",
                headers={"authorization": "Bearer pit-mine", "version": "2021-07-28"},
            )
            assert answer.json()["location"]["id"] == told["location"]
            base64.b64decode(told["test_public_key"], validate=True)
        finally:
            process.terminate()
