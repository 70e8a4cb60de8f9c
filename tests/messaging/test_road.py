"""The whole way: a webhook, a trigger, messages; and a worker that is killed between sending and hearing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from circuit_script.config import load_settings
from circuit_script.secrets.places import variable_of
from tests import gateways
from tests.messaging.stage import SECRETS
from tests.messaging.vendors import ResendVendor, SlackVendor, TwilioVendor, VapiVendor
from tests.road import PATIENCE, Incoming, Road, open_road
from tests.workers import working

REPOSITORY = Path(__file__).parents[2]
APP = """
from circuit_script import make_call, react_slack, send_email, send_slack, send_sms, trigger


@trigger("Contact", ["afterInsert"])
async def welcome(context):
    for lead in context.new_records:
        async with context.record(lead):
            await send_sms(lead["phone"], f"Welcome, {lead['firstName']} 👋")
            await send_email(lead["email"], "Welcome", text="Hi", unsubscribe="https://acme.example/u?c=1")
            message = await send_slack("C0ACME0001", f"New lead: {lead['firstName']}")
            await react_slack("C0ACME0001", message, "eyes")
            await make_call(lead["phone"], "assistant-1", variables={"name": lead["firstName"]})


@trigger("Appointment", ["afterInsert"])
async def remind(context):
    for each in context.new_records:
        await send_sms(each["phone"], "See you tomorrow", record=each)


@trigger("Note", ["afterInsert"])
async def too_many(context):
    for note in context.new_records:
        for n in range(11):
            await send_sms("+15125550142", f"number {n}", record=note)


@trigger("Task", ["afterInsert"])
async def wrong(context):
    for task in context.new_records:
        async with context.record(task):
            await send_sms(task["phone"], "Hello")
"""


@dataclass
class Vendors:
    twilio: TwilioVendor
    resend: ResendVendor
    slack: SlackVendor
    vapi: VapiVendor


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    found = Vendors(TwilioVendor(), ResendVendor(), SlackVendor(), VapiVendor())
    with ExitStack() as stack:
        for each in (found.twilio, found.resend, found.slack, found.vapi):
            stack.enter_context(each)
        yield found
    for each in (found.twilio, found.resend, found.slack, found.vapi):
        assert each.contract.violations == []


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


def write_app(folder: Path, vendors: Vendors, more: str = "") -> None:
    (folder / "app.py").write_text(APP)
    (folder / "circuit.toml").write_text(
        f"""
[worker]
lease = 1.0
attempts = 1
children = 1
endpoint_children = 1
[connectors.twilio]
url = "{vendors.twilio.url}"
sender = "+15125550100"
senders = {{ birch = "+15125550200" }}
rates = {{ sms = {{ calls = 100, of = "target" }} }}
[connectors.resend]
url = "{vendors.resend.url}"
sender = "Acme <hello@acme.example>"
[connectors.slack]
url = "{vendors.slack.url}/api"
[connectors.vapi]
url = "{vendors.vapi.url}"
sender = "phone-acme"
{more}
"""
    )


def give(monkeypatch: pytest.MonkeyPatch, tenant: str, secrets: dict[str, str]) -> None:
    for name, value in secrets.items():
        monkeypatch.setenv(variable_of(tenant, name), value)


async def test_a_webhook_leads_to_one_message_of_each_kind(
    road: Road, vendors: Vendors, app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(app_folder, vendors)
    give(monkeypatch, "", SECRETS["acme"])
    lead = {"firstName": "Ann", "phone": "+15125550142", "email": "ann@example.com"}
    with gateways.running(road.url, tmp_path) as port:
        async with working(load_settings(app_folder), road.url):
            body = gateways.contact("W1", **lead)
            statuses = [(await asyncio.to_thread(gateways.post, port, body)).status for _ in range(2)]
            assert statuses == [202, 200]  # the second is a duplicate
            await road.until("SELECT connector, status FROM circuit.effects ORDER BY connector, operation",
                             [("resend", "delivered"), ("slack", "delivered"), ("slack", "delivered"),
                              ("twilio", "delivered"), ("vapi", "delivered")])  # fmt: skip

    (sms,) = vendors.twilio.messages
    assert (sms["to"], sms["body"]) == ("+15125550142", "Welcome, Ann 👋")
    (mail,) = vendors.resend.mails
    assert (mail["to"], mail["subject"]) == (["ann@example.com"], "Welcome")
    assert mail["headers"] == {
        "List-Unsubscribe": "<https://acme.example/u?c=1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    (post,) = vendors.slack.messages
    assert (post["text"], post["reactions"]) == ("New lead: Ann", ["eyes"])
    (call,) = vendors.vapi.calls
    assert call["customer"] == {"number": "+15125550142"}
    found = dict(await road.rows("SELECT connector || '.' || operation, vendor_id FROM circuit.effects"))
    assert found["twilio.sms"] == sms["sid"]
    assert found["resend.send"] == mail["id"]
    assert found["slack.post"] == post["ts"]
    assert found["vapi.call"] == call["id"]
    (payload,) = await road.rows("SELECT payload FROM circuit.effects WHERE connector = 'twilio'")
    assert (payload["encoding"], payload["segments"]) == ("UCS-2", 1)


async def test_a_tenants_messages_go_out_by_its_own_keys(
    road: Road, vendors: Vendors, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(app_folder, vendors, "[tenants.acme]\n[tenants.birch]\n[tenants.cedar]\n")
    give(monkeypatch, "acme", SECRETS["acme"])
    give(monkeypatch, "birch", SECRETS["birch"])
    async with working(load_settings(app_folder), road.url):
        await road.take_in(
            *(Incoming(f"{tenant}-1", "afterInsert", "Appointment", tenant, fields={"phone": "+15125550142"})
              for tenant in ("acme", "birch", "cedar"))
        )  # fmt: skip
        await road.until(
            "SELECT tenant FROM circuit.effects WHERE status = 'delivered' ORDER BY tenant", ["acme", "birch"]
        )
        await road.until(
            "SELECT reason LIKE '%%twilio.account_sid%%' FROM circuit.effects WHERE tenant = 'cedar'", [True]
        )
    accounts = {"acme": SECRETS["acme"]["twilio.account_sid"], "birch": SECRETS["birch"]["twilio.account_sid"]}
    assert sorted((each["account_sid"], each["from"]) for each in vendors.twilio.messages) == [
        (accounts["acme"], "+15125550100"),
        (accounts["birch"], "+15125550200"),
    ]


async def test_who_said_stop_becomes_a_dead_letter_and_more_than_the_limit_sends_nothing(
    road: Road, vendors: Vendors, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(app_folder, vendors, "[tenants.acme]\n")
    give(monkeypatch, "acme", SECRETS["acme"])
    vendors.twilio.stopped.add(("+15125550100", "+15125550199"))
    async with working(load_settings(app_folder), road.url):
        await road.take_in(
            Incoming("N1", "afterInsert", "Note"),
            Incoming("T1", "afterInsert", "Task", fields={"phone": "call me"}),
            Incoming("A1", "afterInsert", "Appointment", fields={"phone": "+15125550199"}),
        )
        await road.until("SELECT kind, reason LIKE '%%STOP%%' FROM circuit.dead_letters WHERE kind = 'effect'",
                         [("effect", True)])  # fmt: skip
        query = "SELECT status FROM circuit.outcomes o JOIN circuit.handlers h ON h.id = o.handler WHERE h.name LIKE %s"
        await road.until(query, ["dead"], "%too_many")
    assert await road.rows("SELECT count(*) FROM circuit.effects WHERE record IN ('N1', 'T1')") == [0]
    assert vendors.twilio.messages == []


@asynccontextmanager
async def process(folder: Path, url: str, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "CIRCUIT_FAILPOINTS": failpoints}
    if not failpoints:
        del environment["CIRCUIT_FAILPOINTS"]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.messaging.worker", str(folder), url,
        stdout=asyncio.subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.terminate()
            await asyncio.wait_for(worker.wait(), PATIENCE)


async def ready(worker: asyncio.subprocess.Process) -> None:
    assert worker.stdout is not None
    assert await asyncio.wait_for(worker.stdout.readline(), PATIENCE) == b"ready\n"


@pytest.mark.parametrize(("place", "left"), [("courier.before", 0), ("courier.sent", 1)])
async def test_a_worker_that_is_killed_while_it_sends_leads_to_no_second_message(
    road: Road, vendors: Vendors, app_folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, left: int
) -> None:
    write_app(app_folder, vendors, "[tenants.acme]\n")
    give(monkeypatch, "acme", SECRETS["acme"])
    async with process(app_folder, road.url, f"{place}=kill@1") as first:
        await ready(first)
        await road.take_in(Incoming("A1", "afterInsert", "Appointment", fields={"phone": "+15125550142"}))
        assert await asyncio.wait_for(first.wait(), PATIENCE) == -signal.SIGKILL
    assert len(vendors.twilio.messages) == left
    assert await road.rows("SELECT status FROM circuit.effects") == ["pending"]

    async with process(app_folder, road.url):
        await road.until("SELECT status FROM circuit.effects", ["delivered"])
    assert len(vendors.twilio.messages) == 1
    assert await road.rows("SELECT vendor_id FROM circuit.effects") == [vendors.twilio.messages[0]["sid"]]


async def test_a_message_that_could_be_two_after_a_kill_is_left_to_a_person(
    road: Road, vendors: Vendors, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(app_folder, vendors, "[tenants.acme]\n")
    give(monkeypatch, "acme", SECRETS["acme"])
    async with process(app_folder, road.url, "courier.sent=kill@1") as first:
        await ready(first)
        await road.take_in(Incoming("A1", "afterInsert", "Appointment", fields={"phone": "+15125550142"}))
        assert await asyncio.wait_for(first.wait(), PATIENCE) == -signal.SIGKILL
    account = SECRETS["acme"]["twilio.account_sid"]
    vendors.twilio.put(account, "+15125550142", "See you tomorrow", "+15125550100")  # by somebody else
    await road.run("UPDATE circuit.effects SET attempts = 7")  # its last one
    async with process(app_folder, road.url):
        await road.until("SELECT status FROM circuit.effects", ["in_doubt"])
    assert len(vendors.twilio.heard("POST")) == 1
