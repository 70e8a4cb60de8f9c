"""``objects pull`` as a person runs it, at the stand-ins of all CRMs, and what its schemas then do to records."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import GoHighLevelSettings, SourceSettings, load_settings
from circuit_script.connectors.query import Query
from circuit_script.connectors.salesforce.settings import FIELDS
from circuit_script.events.sources.hubspot import HubSpot as HubSpotSource
from circuit_script.events.sources.salesforce import FIELDS as TOLD
from circuit_script.testing.stand_ins.gohighlevel import GoHighLevelStandIn, running, shapes
from tests import gateways
from tests.crm.hubspot import HubSpotAccount, Property
from tests.crm.salesforce import SalesforceOrg
from tests.crm.soql import Field
from tests.crm.stage import MemorySecrets, client
from tests.crm.test_hubspot import made as made_hubspot
from tests.crm.test_salesforce import made as made_salesforce
from tests.road import open_road
from tests.workers import working

CRMS = ("gohighlevel", "salesforce", "hubspot")
HOSTILE = 'Plan"""\n    evil = 1\n# \\ \u202e'
JUDGED = """
import json, sys
import app.objects
from circuit_script.schemas.fitting import unfit
from circuit_script.schemas.registered import SCHEMAS
print(json.dumps([unfit(SCHEMAS[name], record) for name, record in json.load(sys.stdin)]))
"""


@dataclass
class App:
    """An app whose CRM is a stand-in, which ``add`` gives a field that takes numbers, ``drop`` takes it away."""

    folder: Path
    crm: str
    env: dict[str, str]
    vendor: Any
    add: Callable[[str], None]
    drop: Callable[[str], None]

    @property
    def file(self) -> Path:
        return self.folder / "app" / "objects.py"

    def run(self, *words: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            [sys.executable, "-m", "circuit_script.cli", "objects", "pull", *words],
            cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return ran.returncode, ran.stdout, ran.stderr

    def judge(self, *records: tuple[str, dict[str, Any]]) -> list[str | None]:
        """What is wrong with each record, by the schemas that the app registers."""
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", JUDGED], cwd=self.folder, env=self.env, text=True,
            input=json.dumps(records), capture_output=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found: list[str | None] = json.loads(ran.stdout)
        return found


def app_of(crm: str, folder: Path, database: str, vendor: Any, secrets: dict[str, str], more: str = "") -> App:
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("")
    (folder / "circuit.toml").write_text(
        f'[tenants.acme]\n[crm]\nhome = "{crm}"\n[connectors.{crm}]\nurl = "{vendor.url}"\n{more}'
    )
    named = {f"CIRCUIT_SECRET_{crm.upper()}_{name.upper()}": value for name, value in secrets.items()}
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "DATABASE_URL": database, **named}
    match vendor:
        case GoHighLevelStandIn():
            world = vendor.world

            def drop(name: str) -> None:
                (found,) = (each for each, said in world.fields.items() if said["name"] == name)
                del world.fields[found]

            return App(folder, crm, env, vendor,
                       lambda name: void(world.custom_field(vendor.location, name, "NUMERICAL")), drop)  # fmt: skip
        case SalesforceOrg():
            fields: dict[str, Any] = vendor.schema["Contact"]
            return App(
                folder, crm, env, vendor, lambda name: fields.update({name: Field("double")}), fields.__delitem__
            )
        case _:
            properties = vendor.schema["contacts"]
            return App(folder, crm, env, vendor, lambda name: properties.update({name: Property("number", "number")}),
                       properties.__delitem__)  # fmt: skip


def void(_: object) -> None:
    """Nothing comes of it."""


@pytest.fixture
def started(tmp_path: Path, database: str) -> Iterator[Callable[[str], App]]:
    with ExitStack() as stack:

        def start(crm: str) -> App:
            if crm == "gohighlevel":
                vendor = stack.enter_context(running())
                stack.callback(lambda: fits(vendor))
                more = f'account = "{vendor.location}"\n'
                return app_of(crm, tmp_path, database, vendor, {"token": vendor.token}, more)
            if crm == "salesforce":
                org = stack.enter_context(SalesforceOrg())
                secrets = {"client_id": org.client_id, "client_secret": org.client_secret}
                return app_of(crm, tmp_path, database, org, secrets)
            account = stack.enter_context(HubSpotAccount())
            return app_of(crm, tmp_path, database, account, {"token": account.private})

        yield start


def fits(vendor: GoHighLevelStandIn) -> None:
    assert vendor.violations == [], "what was asked and answered is as the vendor's contract says"


@pytest.fixture(params=[CRMS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in CRMS[1:])])
def app(request: pytest.FixtureRequest, started: Callable[[str], App]) -> App:
    return started(request.param)


def test_it_is_written_once_and_checked_until_the_crm_says_otherwise(app: App) -> None:
    code, said, _ = app.run("--check")
    assert (code, app.file.exists()) == (1, False)
    assert "there is no app/objects.py yet" in said
    app.add("lead_budget")
    code, said, error = app.run("--object", "Contact")
    assert code == 0, error
    assert said.startswith("made app/objects.py: Contact with ")
    first = app.file.read_text()
    command = f"circuit-script objects pull {app.crm} --tenant acme --object Contact"
    assert f"# From {app.crm}, by: {command}\n" in first
    assert app.file.stat().st_mode & 0o777 == 0o666 & ~umask()
    before = app.file.stat()
    for words in ((), ("--check",)):
        code, said, error = app.run(app.crm, "--object", "Contact", *words)
        assert (code, said[:22]) == (0, "app/objects.py is as " + app.crm[:1]), error
    assert (app.file.stat().st_mtime_ns, app.file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    app.drop("lead_budget")
    app.add("lead_score")
    kind = "Number" if app.crm == "gohighlevel" else "SpelledNumber"
    code, said, _ = app.run("--object", "Contact", "--check")
    assert code == 1
    assert [line.split(":")[0] for line in said.splitlines()[:2]] == ["- Contact.lead_budget", "+ Contact.lead_score"]
    assert kind in said.splitlines()[1]
    code, said, _ = app.run("--object", "Contact", "--check", "--json")
    told = json.loads(said)
    assert (code, told["same"], told["written"]) == (1, False, False)
    assert [(each["how"], each["field"]) for each in told["changes"]] == [
        ("removed", "lead_budget"), ("added", "lead_score"),
    ]  # fmt: skip
    assert app.file.read_text() == first
    assert app.run("--object", "Contact")[0] == 0
    assert app.run("--object", "Contact", "--check")[0] == 0
    assert "lead_budget" not in app.file.read_text()
    assert [each.name for each in app.file.parent.iterdir() if each.name.startswith(".")] == []


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_both_usual_objects_are_pulled_and_registered_as_they_are(app: App) -> None:
    app.add("lead_budget")
    code, said, error = app.run("--json")
    assert code == 0, error
    assert list(json.loads(said)["objects"]) == ["Contact", "Opportunity"]
    told = app.judge(
        ("Contact", {"id": "1", "lead_budget": 5, "firstName": "Anna", "whatever": [1]}),
        ("Contact", {"id": "2", "lead_budget": "many"}),
        ("Contact", {"id": "3", "lead_budget": ""}),
        ("Opportunity", {"id": "4", "name": "Deal"}),
        ("Opportunity", {"id": "5", "name": 7}),
    )
    budget = "lead_budget must be int | float | None, and is a text"
    assert told == [None, budget, None, None, "name must be a text, and is a number"]


async def test_a_record_with_a_wrong_custom_field_fails_alone(
    started: Callable[[str], App], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = started("gohighlevel")
    vendor: GoHighLevelStandIn = app.vendor
    field = vendor.world.custom_field(vendor.location, "Lead budget", "NUMERICAL")["id"]
    toml = app.folder / "circuit.toml"
    toml.write_text(toml.read_text().replace("[tenants.acme]", ""))
    code, _, error = await asyncio.to_thread(app.run)
    assert code == 0, error
    (app.folder / "app" / "triggers.py").write_text(
        "from circuit_script import CircuitDB, trigger\n\n\n"
        '@trigger("Contact", ["afterInsert"])\nasync def note(context):\n    for lead in context.new_records:\n'
        '        await CircuitDB.insert("Review", {"about": lead["id"]})\n'
    )
    monkeypatch.setenv("CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN", vendor.token)
    keys = GoHighLevelSettings(public_key=vendor.webhooks.public_key)
    monkeypatch.setattr(gateways, "SOURCES", SourceSettings(gohighlevel=keys))
    async with open_road(database) as road:
        with gateways.running(database, tmp_path) as port:
            async with working(load_settings(app.folder), road.url):
                people = [vendor.world.contact(vendor.location, {"email": f"n{n}@example.com"}) for n in range(3)]
                vendor.webhooks.url = f"http://127.0.0.1:{port}/webhooks/gohighlevel"
                for doc, budget in zip(people, (500, "many", ""), strict=True):
                    body = {**shapes.webhook("ContactCreate", doc), "customFields": [{"id": field, "value": budget}]}
                    vendor.webhooks.add(body, datetime.now(UTC).isoformat(timespec="milliseconds"))
                await vendor.webhooks.flush()
                assert [each[0] for each in vendor.webhooks.sent] == [202, 202, 202]
                await road.done()
        letters = await road.rows("SELECT record, attempts, reason FROM circuit.dead_letters")
        handled = await road.rows("SELECT data ->> 'about' FROM circuit.records WHERE object = 'Review'")
    reason = "SchemaRefused: Contact: lead_budget must be int | float | None, and is a text"
    assert letters == [(people[1]["id"], 1, reason)]
    assert sorted(handled) == sorted([people[0]["id"], people[2]["id"]])


async def test_what_hubspot_tells_and_what_is_read_from_it_fit(started: Callable[[str], App]) -> None:
    app = started("hubspot")
    account: HubSpotAccount = app.vendor
    account.schema["contacts"]["stage"] = Property("enumeration", "radio", options=("lead", HOSTILE))
    account.schema["contacts"]["secret"] = replace(Property(), read_only=True)
    code, _, error = await asyncio.to_thread(app.run, "--object", "Contact")
    assert code == 0, error
    assert '# "Secret"; read only\n    secret: str | None = None' in app.file.read_text()
    account.put("contacts", {"firstname": "Anna", "score": "80", "hot": "true", "choices": "a;b", "day": "2026-01-31",
                             "reviewed_at": "1769817600000", "stage": HOSTILE, "zip": "01067"})  # fmt: skip
    async with client() as http:
        secrets = MemorySecrets(hubspot__token=account.private)
        page = await made_hubspot(account, secrets, http).page("acme", Query("Contact"))
    told = [("Contact", dict(row)) for row in page.rows]
    assert told[0][1]["score"] == 80
    for name, value in (("score", "80"), ("score", "eighty"), ("hot", "false"), ("choices", "a;b"), ("choices", "a;x"),
                        ("stage", "lead"), ("stage", "none"), ("firstname", "Anna"), ("email", "")):  # fmt: skip
        change = {"eventId": 1, "portalId": 2, "objectId": 3, "subscriptionType": "contact.propertyChange",
                  "propertyName": name, "propertyValue": value}  # fmt: skip
        told += [("Contact", record) for record in HubSpotSource.records(json.dumps([change]).encode())]
    judged = await asyncio.to_thread(app.judge, *told)
    wrong = [place for place, each in enumerate(judged) if each is not None]
    assert wrong == [2, 5, 7]
    assert judged[2] == "score must be int | float | None, and is a text"


async def test_what_is_read_from_salesforce_fits_and_what_it_takes_is_known(started: Callable[[str], App]) -> None:
    app = started("salesforce")
    org: SalesforceOrg = app.vendor
    org.schema["Contact"]["Grade__c"] = Field("picklist", values=("A", HOSTILE))
    code, _, error = await asyncio.to_thread(app.run, "--object", "Contact", "--object", "Opportunity")
    assert code == 0, error
    source = app.file.read_text()
    assert "needed in a new record\n    lastName: " in source
    assert "max_length=80" in source
    org.put("Contact", {"FirstName": "Anna", "LastName": "Lee", "Score__c": 80.0, "Hot__c": True, "Tags__c": "a;b",
                        "Reviewed_At__c": org.stamp(), "Grade__c": HOSTILE})  # fmt: skip
    async with client() as http:
        secrets = MemorySecrets(salesforce__client_id=org.client_id, salesforce__client_secret=org.client_secret)
        page = await made_salesforce(org, secrets, http).page("acme", Query("Contact"))
    outbound = {
        "id": "003",
        "lastName": "Lee",
        "Score__c": "80.0",
        "Hot__c": "false",
        "Grade__c": "A",
        "Tags__c": "a;b",
    }
    judged = await asyncio.to_thread(
        app.judge,
        *(("Contact", dict(row)) for row in page.rows),
        ("Contact", outbound),
        ("Contact", {**outbound, "Score__c": "eighty"}),
        ("Contact", {**outbound, "Grade__c": "B"}),
        ("Contact", {**outbound, "lastName": "L" * 81}),
    )
    assert judged[:2] == [None, None]
    assert judged[2] == "Score__c must be int | float | None, and is a text"
    assert (judged[3] or "").startswith("Grade__c must be ")
    assert judged[4] == "lastName must have at most 80 characters"
    assert {name: TOLD.get(name) for name in FIELDS} == FIELDS, "webhooks say usual fields by our names, too"
    code, _, error = await asyncio.to_thread(app.run, "--object", "Nothing__c")
    assert code == 1
    assert "salesforce has no Nothing__c" in error
    assert app.file.read_text() == source


def test_gohighlevel_has_choices_and_hostile_names(started: Callable[[str], App]) -> None:
    app = started("gohighlevel")
    world, location = app.vendor.world, app.vendor.location
    world.custom_field(location, HOSTILE, "SINGLE_OPTIONS", options=("gold", HOSTILE))
    world.custom_field(location, "Interests", "CHECKBOX", options=("tea", "rum"))
    world.custom_field(location, "Free", "RADIO")["isAllowedCustomOption"] = True
    world.custom_field(location, "Source", "NUMERICAL")  # as one of the usual fields
    world.custom_field(location, "Contract", "FILE_UPLOAD")
    world.custom_field(location, "Margin", "MONETORY", "opportunity")
    world.fields["odd"] = {**world.custom_field(location, "x"), "id": "odd", "fieldKey": "contact.class", "name": ""}
    code, _, error = app.run()
    assert code == 0, error
    source = app.file.read_text()
    assert '# "Contract"; of a type that is not known here: "FILE_UPLOAD"' in source
    assert 'validation_alias=AliasChoices("class", "odd")' in source
    by_name = {each["name"]: each for each in world.fields.values()}
    told = app.judge(
        ("Contact", {"interests": ["tea"], "free": "anything", "source": "web", "plan_evil_1": HOSTILE}),
        ("Contact", {"interests": ["gin"]}),
        ("Contact", {"source": 5}),
        ("Contact", {by_name["Source"]["id"]: "many"}),
        ("Contact", {"plan_evil_1": "silver"}),
        ("Contact", {by_name["Contract"]["id"]: {"url": "https://example.com"}}),
        ("Contact", {"margin": "this is no field of contacts"}),
        ("Opportunity", {"margin": "much"}),
    )
    assert [each is None for each in told] == [True, False, False, False, False, True, True, False]


@pytest.mark.slow
def test_what_a_person_wrote_is_left_alone(started: Callable[[str], App]) -> None:
    app = started("hubspot")
    app.file.write_text("MINE = 1\n")
    code, said, error = app.run()
    assert (code, said) == (1, "")
    assert "app/objects.py was not made by this command" in error
    assert "--force" in error
    assert app.vendor.requests == [], "nobody is asked for nothing"
    assert app.file.read_text() == "MINE = 1\n"
    assert app.run("--out", "app/theirs.py")[0] == 0
    assert app.run("--force")[0] == 0
    assert app.file.read_text() == (app.folder / "app" / "theirs.py").read_text()
    app.file.write_text(app.file.read_text() + "class (\n")
    code, said, _ = app.run("--check")
    assert code == 1
    assert "app/objects.py was no Python" in said
    app.file.write_bytes(b"\xff\xfe")
    code, _, error = app.run("--force")
    assert code == 1
    assert "it is no text in UTF-8" in error


def test_a_file_that_cannot_be_written_stays_as_it_was(started: Callable[[str], App]) -> None:
    app = started("hubspot")
    (app.folder / "taken").write_text("")
    code, _, error = app.run("--out", "taken/objects.py")
    assert code == 1
    assert "cannot be read" in error or "cannot be written" in error
    code, _, error = app.run("--out", "app")
    assert code == 1
    assert "Name another file" in error


@pytest.mark.slow
def test_what_is_missing_is_said_with_what_to_do(started: Callable[[str], App]) -> None:
    app = started("hubspot")
    cases = [
        (("local",), "local has no list of fields", "hubspot"),
        (("pipedrive",), "There is no CRM 'pipedrive'", "[connectors.pipedrive]"),
        (("--tenant", "nobody"), "There is no tenant 'nobody'", "Known: acme"),
        (("--object", "2-3465404"), "is no name of an object", "[connectors.hubspot.objects]"),
    ]
    for words, said, cure in cases:
        code, _, error = app.run(*words)
        assert code == 1, words
        assert said in error
        assert cure in error
    assert app.vendor.requests == []
    token = app.env.pop("CIRCUIT_SECRET_HUBSPOT_TOKEN")
    code, _, error = app.run()
    assert code == 1
    assert "circuit-script secrets set hubspot.… --tenant acme" in error
    app.env["CIRCUIT_SECRET_HUBSPOT_TOKEN"] = "pat-of-nobody"
    code, _, error = app.run()
    assert code == 1
    assert "give the token the scopes that it lacks" in error
    assert "pat-of-nobody" not in error
    app.env["CIRCUIT_SECRET_HUBSPOT_TOKEN"] = token
    app.vendor.fail_next("500")
    code, _, error = app.run()
    assert code == 1
    assert "HTTP 500" in error
    assert not app.file.exists()
    toml = (app.folder / "circuit.toml").read_text()
    (app.folder / "circuit.toml").write_text(f"{toml}[tenants.other]\n")
    code, _, error = app.run()
    assert code == 1
    assert "--tenant, of acme, other" in error
    (app.folder / "circuit.toml").write_text("")
    code, _, error = app.run()
    assert code == 1
    assert "All records live here, and local has no list of fields" in error


def test_objects_without_a_list_of_fields_are_refused_by_gohighlevel(started: Callable[[str], App]) -> None:
    code, _, error = started("gohighlevel").run("--object", "Note")
    assert code == 1
    assert "no list of fields of Note. It has those of Contact, Opportunity." in error
