"""Each vendor that says when its records were changed is polled: what no webhook has told is found, once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from circuit_script.cli.doctor.upkeep import upkeep
from circuit_script.config import (
    CrmSettings,
    GoHighLevelSettings,
    Settings,
    SourceSettings,
    load_settings,
)
from circuit_script.connectors.connector import Fields
from circuit_script.connectors.gohighlevel import connect
from circuit_script.connectors.pace import Pace
from circuit_script.connectors.query import Condition, Order, Query
from circuit_script.db.pool import open_connection
from circuit_script.errors import VendorUnavailable
from circuit_script.events.maintenance import once
from circuit_script.events.reconcile import Poll, Target, changed_field
from circuit_script.events.reconcile.known import Known, Verdict, alike, differs, judge
from circuit_script.testing.stand_ins.gohighlevel import GoHighLevelStandIn, shapes
from circuit_script.testing.stand_ins.gohighlevel import running as ghl_running
from tests import gateways
from tests.crm.gohighlevel_stage import WINDOW, OneToken
from tests.crm.hubspot import HubSpotAccount
from tests.crm.salesforce import SalesforceOrg
from tests.crm.stage import MemorySecrets, client
from tests.crm.test_hubspot import made as made_hubspot
from tests.crm.test_salesforce import made as made_salesforce
from tests.road import Road, open_road
from tests.workers import working

APP = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"])
async def note(context):
    for lead in context.new_records:
        async with context.record(lead):
            await CircuitDB.insert("Review", {"about": lead["id"], "said": lead.get("firstName")})
"""
TOML = """
[worker]
lease = 1.0
children = 1
endpoint_children = 1
[crm]
home = "gohighlevel"
[reconcile]
enabled = false
[connectors.gohighlevel]
url = "{url}"
account = "{account}"
"""
FED = "SELECT d.body FROM circuit.deliveries d WHERE d.source = 'circuit' AND d.account = 'reconcile' ORDER BY d.id"
HANDLED = "SELECT data ->> 'about', data ->> 'said' FROM circuit.records WHERE object = 'Review'"
ECHOES = "SELECT count(*) FROM circuit.outcomes WHERE status = 'echo'"
PLENTY = 10_000_000  # requests in a window: a poll then hardly pauses


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


async def fed(road: Road) -> list[tuple[str, Fields]]:
    bodies = [json.loads(bytes(each)) for each in await road.rows(FED)]
    return [(each["type"], each["data"]) for each in bodies]


def stamped() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- GoHighLevel


@dataclass
class Stage:
    vendor: GoHighLevelStandIn
    road: Road
    target: Target
    url: str

    async def poll(self) -> int:
        polled = await Poll(self.road.pool).run(self.target)
        assert not polled.stop, polled.note
        return polled.found

    async def tell(self, doc: Mapping[str, Any], kind: str = "ContactUpdate", **more: Any) -> None:
        """The vendor's own webhook of a contact as it is now, signed; ``more`` it says beside or otherwise."""
        body = {**shapes.webhook(kind, dict(doc)), **more}
        self.vendor.webhooks.url = self.url
        self.vendor.webhooks.add(body, stamped())
        await self.vendor.webhooks.flush()
        self.vendor.webhooks.url = ""
        assert self.vendor.webhooks.sent[-1][0] in (200, 202), self.vendor.webhooks.sent[-1]

    async def handled(self) -> Counter[tuple[str, str]]:
        await self.road.done()
        return Counter([tuple(each) for each in await self.road.rows(HANDLED)])


@asynccontextmanager
async def polled(road: Road) -> AsyncIterator[tuple[GoHighLevelStandIn, Target]]:
    with ghl_running(window=WINDOW, skew=1.0) as vendor:  # what follows the first poll is later by its clock, too
        async with client() as http:
            crm = connect(http, OneToken(vendor), Pace(PLENTY, WINDOW))
            yield vendor, Target("default", "Contact", crm, changed_field(crm, "Contact") or "")
        assert vendor.violations == []


@pytest.fixture
async def stage(
    road: Road, database: str, app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """The vendor, a gateway that knows its key, a worker at work, and a first poll."""
    async with polled(road) as (vendor, target):
        monkeypatch.setenv("CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN", vendor.token)
        sources = SourceSettings(gohighlevel=GoHighLevelSettings(public_key=vendor.webhooks.public_key))
        monkeypatch.setattr(gateways, "SOURCES", sources)
        (app_folder / "app.py").write_text(APP)
        (app_folder / "circuit.toml").write_text(TOML.format(url=vendor.url, account=vendor.location))
        settings = load_settings(app_folder)
        with gateways.running(database, tmp_path) as port:
            async with working(settings, road.url):
                made = Stage(vendor, road, target, f"http://127.0.0.1:{port}/webhooks/gohighlevel")
                assert await made.poll() == 0
                yield made


def person(vendor: GoHighLevelStandIn, name: str, **more: Any) -> dict[str, Any]:
    return vendor.world.contact(vendor.location, {"firstName": name, "email": f"{name.lower()}@example.com", **more})


async def test_of_gohighlevel_what_was_lost_is_fed_once(road: Road) -> None:
    async with polled(road) as (vendor, target):
        asked = Query("Contact", Condition(target.stamp, "ge", "2026-01-01T00:00:00Z"), (Order(target.stamp),), 1000)
        plan = target.crm.explain(asked)
        assert (plan.ordered, plan.here) == (True, ())
        contacts = [person(vendor, f"N{number}") for number in range(30)]
        for each in contacts:
            each["dateUpdated"] = "2026-01-01T00:00:00.000Z"
        assert (await Poll(road.pool).run(target)).found == 0
        for each in contacts[:7]:
            vendor.world.edit_contact(each, {"city": "Berlin"})
        born = [person(vendor, f"B{number}") for number in range(3)]
        assert (await Poll(road.pool).run(target)).found == 10
        told = await fed(road)
        assert {each["id"] for _, each in told} == {each["id"] for each in (*contacts[:7], *born)}
        assert [each.get("city") for _, each in told] == ["Berlin"] * 7 + [None] * 3
        assert (await Poll(road.pool).run(target)).found == 0
        assert len(await fed(road)) == 10


async def test_a_late_signed_webhook_of_gohighlevel_is_an_echo(stage: Stage) -> None:
    doc = person(stage.vendor, "Anna", phone="+14155550100", tags=["hot", "new"])
    assert await stage.poll() == 1
    once_ = {(doc["id"], "Anna"): 1}
    assert await stage.handled() == once_
    await stage.tell(doc, "ContactCreate", dateUpdated=doc["dateUpdated"])
    assert await stage.handled() == once_
    assert await stage.road.rows(ECHOES) == [1]
    stage.vendor.world.edit_contact(doc, {"firstName": "Annabel"})
    await stage.tell(doc)
    assert await stage.handled() == {**once_, (doc["id"], "Annabel"): 1}
    assert await stage.poll() == 0


async def test_the_same_content_told_otherwise_is_no_second_run(stage: Stage) -> None:
    world, location = stage.vendor.world, stage.vendor.location
    score, colours = (
        world.custom_field(location, *each)["id"] for each in (("Score", "NUMERICAL"), ("Colours", "TEXT"))
    )
    custom = [{"id": score, "value": 91.5}, {"id": colours, "value": "red"}]
    first = person(stage.vendor, "Anna", phone="+14155550100", tags=["hot", "new"], customFields=custom)
    otherwise: dict[str, Any] = {
        "phone": "+1 (415) 555-0100",
        "tags": ["new", "hot"],
        "customFields": [{"id": colours, "value": "red"}, {"id": score, "value": "91.50"}],
        "city": None,
    }
    assert await stage.poll() == 1
    await stage.tell(first, **otherwise)  # after the poll
    assert await stage.handled() == {(first["id"], "Anna"): 1}
    assert await stage.poll() == 0
    second = person(stage.vendor, "Bo", phone="+14155550101", tags=["hot", "new"], customFields=custom)
    await stage.tell(second, "ContactCreate", **{**otherwise, "phone": "+1-415-555-0101"})  # before it
    assert await stage.poll() == 0
    assert await stage.handled() == {(first["id"], "Anna"): 1, (second["id"], "Bo"): 1}
    assert await stage.poll() == 0


async def test_a_custom_field_that_a_webhook_told_by_its_id_is_known_by_its_key(stage: Stage) -> None:
    score = stage.vendor.world.custom_field(stage.vendor.location, "Score", "NUMERICAL")["id"]
    doc = person(stage.vendor, "Anna", customFields=[{"id": score, "value": 5}])
    assert await stage.poll() == 1  # it is known by both from here on
    stage.vendor.world.edit_contact(doc, {"customFields": [{"id": score, "value": 6}]})
    await stage.tell(doc)
    assert await stage.handled() == {(doc["id"], "Anna"): 2}
    assert await stage.poll() == 0
    stage.vendor.world.edit_contact(doc, {"customFields": [{"id": score, "value": 7}]})
    assert await stage.poll() == 1
    assert await stage.handled() == {(doc["id"], "Anna"): 3}


@pytest.mark.parametrize(
    ("name", "one", "other", "expected"),
    [
        ("phone", "+1 (415) 555-0100", "+14155550100", True),
        ("phone", "+14155550100", "+14155550101", False),
        ("phone", "+14155550100", "14155550100", False),
        ("code", "1 2", "12", False),
        ("score", "91.50", 91.5, True),
        ("score", "91.51", 91.5, False),
        ("code", "007", "7", False),
        ("hot", "1", True, False),
        ("tags", ["a", "b"], ["b", "a"], True),
        ("tags", ["a", "a"], ["a", "b"], False),
        ("ranks", ["a", "b"], ["b", "a"], False),
        ("city", None, "", True),
        ("city", None, "Rome", False),
    ],
)
def test_what_is_the_same_in_another_form(name: str, one: Any, other: Any, expected: bool) -> None:
    assert alike(one, other, name) is expected
    assert alike(other, one, name) is expected


def test_of_two_names_of_a_value_one_is_enough_only_where_the_record_was_told_of_since() -> None:
    twins = {"id5": "score", "score": "id5"}
    row, known = {"id": "c", "id5": 6, "score": 6}, {"id5": 6, "score": 5}
    assert not differs(row, known, (), told=True, twins=twins)
    assert differs(row, known, (), twins=twins)
    assert differs({**row, "id5": 7, "score": 7}, known, (), told=True, twins=twins)


@pytest.mark.parametrize("told", [True, False])
def test_a_value_that_is_known_under_one_of_its_names_is_known(told: bool) -> None:
    twins = {"id5": "score", "score": "id5"}
    row = {"id": "c", "id5": 6, "score": 6}
    for known in ({"score": 6}, {"score": 6, "id5": None}, {"id5": 6}):
        assert not differs(row, known, (), told=told, twins=twins)
        assert differs({**row, "id5": 7, "score": 7}, known, (), told=told, twins=twins)


# --- Salesforce, HubSpot


async def test_of_salesforce_what_was_lost_is_fed_once(road: Road) -> None:
    with SalesforceOrg() as org:
        secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
        async with client() as http:
            crm = made_salesforce(org, secrets, http, objects={"Bill": "Bill__c"})
            assert set(crm.changed_field) == crm.objects
            assert (crm.changed_field["Company"], crm.changed_field["Bill"]) == ("dateUpdated", "LastModifiedDate")
            target = Target("acme", "Contact", crm, crm.changed_field["Contact"])
            old = "2026-01-01T00:00:00.000+0000"
            ids = [org.put("Contact", {"LastName": f"N{each}", "LastModifiedDate": old}) for each in range(5)]
            assert (await Poll(road.pool).run(target)).found == 0
            for each in ids[:2]:
                org.records["Contact"][each] |= {"MailingCity": "Rome", "LastModifiedDate": later()}
            new = org.put("Contact", {"LastName": "New", "LastModifiedDate": later()})
            assert (await Poll(road.pool).run(target)).found == 3
            told = await fed(road)
            assert {(each["id"], each["city"]) for _, each in told} == {
                *((each, "Rome") for each in ids[:2]),
                (new, None),
            }
            assert (await Poll(road.pool).run(target)).found == 0
            assert len(await fed(road)) == 3
    texts = [each.one("q") for each in org.requests if each.path.endswith("/query")]
    assert texts
    assert all("LastModifiedDate >= 20" in each and "ORDER BY LastModifiedDate ASC" in each for each in texts)


def later() -> str:
    """A whole second, as Salesforce tells them, that is not before the first poll."""
    return datetime.fromtimestamp(int(datetime.now(UTC).timestamp()) + 1, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


async def test_of_hubspot_what_was_lost_is_fed_once(road: Road) -> None:
    with HubSpotAccount() as account:
        async with client() as http:
            crm = made_hubspot(account, MemorySecrets(hubspot__token=account.private), http, objects={"Bill": "2-345"})
            assert crm.changed_field == dict.fromkeys(
                ("Contact", "Company", "Opportunity", "Task", "Note", "Appointment"), "dateUpdated"
            )
            for object_, theirs, name in (("Contact", "contacts", "city"), ("Opportunity", "deals", "dealname")):
                target = Target("acme", object_, crm, crm.changed_field[object_])
                old = dict.fromkeys(("lastmodifieddate", "hs_lastmodifieddate"), "2026-01-01T00:00:00.000Z")
                ids = [account.put(theirs, {name: "Oslo", **old}) for _ in range(5)]
                before = len(await fed(road))
                assert (await Poll(road.pool).run(target)).found == 0
                now = dict.fromkeys(old, later().replace("+0000", "Z"))
                for each in ids[:2]:
                    account.records[theirs][each] |= {name: "Rome", **now}
                new = account.put(theirs, {name: "Bern", **now})
                assert (await Poll(road.pool).run(target)).found == 3
                told = (await fed(road))[before:]
                assert {each["id"] for _, each in told} == {*ids[:2], new}
                assert (await Poll(road.pool).run(target)).found == 0
                assert len(await fed(road)) == before + 3
    searched = [each.json() for each in account.requests if each.path.endswith("/search")]
    asked = {one["propertyName"] for each in searched for group in each["filterGroups"] for one in group["filters"]}
    assert asked == {"lastmodifieddate", "hs_lastmodifieddate", "hs_object_id"}


# --- around it


async def test_a_row_that_postgresql_refuses_is_left_out_alone(road: Road) -> None:
    async with polled(road) as (vendor, target):
        assert (await Poll(road.pool).run(target)).found == 0
        contacts = [person(vendor, f"N{number}") for number in range(5)]
        bad = contacts[2]["id"]
        await road.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NEW.record = '{bad}' THEN RAISE data_exception; END IF; RETURN NEW; END $$"
        )
        await road.run(
            "CREATE TRIGGER refuse BEFORE INSERT ON circuit.reconciled FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        structlog.reset_defaults()
        with capture_logs() as logs:
            assert (await Poll(road.pool).run(target)).found == 4
        assert {each["id"] for _, each in await fed(road)} == {each["id"] for each in contacts} - {bad}
        assert [each["next"] for each in logs if each["event"] == "reconcile.row"] == ["it is left out"]
        assert await road.rows("SELECT trouble FROM circuit.reconcile_cursors") == [None]


async def test_what_was_found_is_forgotten_after_a_day(road: Road) -> None:
    async with polled(road) as (vendor, target):
        await Poll(road.pool).run(target)
        person(vendor, "Anna")
        await Poll(road.pool).run(target)
    await once(road.pool, 30)
    assert await road.rows("SELECT count(*) FROM circuit.reconciled") == [1]
    await road.run("UPDATE circuit.reconciled SET at = now() - interval '25 hours'")
    await once(road.pool, 30)
    assert await road.rows("SELECT count(*) FROM circuit.reconciled") == [0]


async def test_the_doctor_shows_the_polls_where_a_home_is_outside(stage: Stage) -> None:
    async def look(crm: CrmSettings) -> dict[str, tuple[str, str]]:
        async with await open_connection(stage.road.url) as connection:
            checks = [each async for each in upkeep(connection, Settings(crm=crm), working=True)]
        return {each.name: (each.state.name, each.said) for each in checks}

    outside = CrmSettings(home="gohighlevel")
    assert "reconcile" not in await look(CrmSettings())
    state, text = (await look(outside))["reconcile"]
    assert state == "good"
    assert text.startswith("nothing polled yet")
    await stage.road.run("INSERT INTO circuit.upkeep (chore, succeeded_at) VALUES ('reconcile', now())")
    state, text = (await look(outside))["reconcile"]
    assert state == "good"
    assert text.startswith("last done")
    await stage.road.run("UPDATE circuit.upkeep SET failure = 'HTTP 500' WHERE chore = 'reconcile'")
    assert (await look(outside))["reconcile"][0] == "warning"


async def test_what_a_vendor_says_of_its_trouble_can_be_stored_whatever_it_is(road: Road) -> None:
    async with polled(road) as (vendor, target):
        await Poll(road.pool).run(target)
        person(vendor, "Anna", tags=["x"])

        class Odd(type(target.crm)):  # type: ignore[misc]
            async def page(self, *_: Any) -> Any:
                raise VendorUnavailable("no\0thing \ud800")

        target.crm.__class__ = Odd
        done = await Poll(road.pool).run(target)
        assert done.stop
        assert "nothing ?" in done.note
        assert await road.rows("SELECT trouble FROM circuit.reconcile_cursors") == [done.note]


def test_a_moment_at_the_beginning_of_time_is_judged() -> None:
    row = {"id": "c", "dateUpdated": "0001-01-01T00:00:00Z", "city": "Rome"}
    now_ = datetime.now(UTC)
    known = Known(fields={"city": "Bern"}, heard_at=now_ - timedelta(hours=1))
    assert judge(row, known, "dateUpdated", now_, sure=True) is Verdict.CHANGED
