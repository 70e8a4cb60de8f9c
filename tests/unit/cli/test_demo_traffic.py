"""The demo's vendor: real shapes, true signatures, the same people for the same seed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from circuit_script.cli.demo import traffic
from circuit_script.cli.demo.crm import DemoCRM
from circuit_script.cli.demo.traffic import BAD, Delivery, Expectation, Plan
from circuit_script.cli.demo.vendor import Vendor
from circuit_script.errors import IntakeRefused
from circuit_script.events.sources import Request
from circuit_script.events.sources.gohighlevel import GoHighLevel

LOCATION = "ve9EPM428h8vShlRW1KT"
SEED = 7


def _vendor(seed: int = SEED) -> Vendor:
    return Vendor(seed=seed, location=LOCATION, now=datetime(2026, 1, 1, tzinfo=UTC))


def _crm(twice: float = 0.0) -> DemoCRM:
    return DemoCRM(seed=SEED, window=1.0, webhooks="http://127.0.0.1:1/", twice=twice, shuffled=0.0)


def request(headers: dict[str, str], body: bytes) -> Request:
    return Request("POST", "/webhooks/gohighlevel", b"", headers, body, 0.0)


def _answer(source: GoHighLevel, delivery: Delivery) -> int:
    """What an intake without memory would answer."""
    asked = request(dict(delivery.headers), delivery.body)
    try:
        source.parse(asked, source.verify(asked))
    except IntakeRefused as refused:
        return refused.status
    return 202


def _played(crm: DemoCRM, plan: Plan) -> None:
    """The whole story at the desk; the webhooks wait to be sent."""
    vendor = _vendor()
    contacts = traffic.newcomers(vendor, plan)
    for contact, identifier in zip(contacts, crm.at_desk("contacts", contacts), strict=True):
        contact["id"] = identifier
    for acts in traffic.rounds(vendor, plan, contacts):
        for act in acts:
            crm.at_desk(act.what, [act.payload])


def test_the_same_seed_gives_the_same_people_and_another_seed_does_not() -> None:
    plan = Plan.of(300)
    first, again = (traffic.newcomers(_vendor(), plan) for _ in range(2))
    assert first == again
    assert traffic.newcomers(_vendor(8), plan) != first
    assert traffic.strangers(_vendor(), plan) == traffic.strangers(_vendor(), plan)


@pytest.mark.parametrize("total", [50, 51, 200, 2000, 3333])
def test_a_plan_adds_up_to_its_total_with_every_kind_in_it(total: int) -> None:
    plan = Plan.of(total)
    crm = _crm()
    _played(crm, plan)
    assert crm.people == plan.people == total - plan.forged - plan.malformed
    kinds = {json.loads(each)["type"] for each in crm.post.waiting}
    assert kinds == {"ContactCreate", "ContactUpdate", "InboundMessage", "AppointmentCreate"}


def test_a_plan_for_too_few_deliveries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        Plan.of(49)


def test_two_contacts_are_those_that_the_app_cannot_handle_and_nothing_more_happens_to_them() -> None:
    plan = Plan.of(200)
    vendor = _vendor()
    contacts = traffic.newcomers(vendor, plan)
    for number, each in enumerate(contacts):
        each["id"] = f"c{number}"
    bad = {each["id"] for each in contacts if each["firstName"] in BAD}
    assert len(bad) == len(BAD)
    for acts in traffic.rounds(vendor, plan, contacts):
        met = [each.payload.get("contactId", each.payload.get("id", "")) for each in acts]
        assert len(met) == len(set(met)), "of one contact there is one act in a round"
        assert bad.isdisjoint(met)


def test_what_strangers_send_gets_the_answer_that_is_expected_of_it() -> None:
    vendor, crm = _vendor(), _crm()
    source = GoHighLevel(crm.webhooks.public_key)
    assert vendor.public_key == crm.webhooks.public_key, "what is malformed is signed as the rest is"
    sent = traffic.strangers(vendor, Plan.of(2000))
    assert {each.expectation for each in sent} == set(Expectation)
    for each in sent:
        assert _answer(source, each) == each.expectation.status, each.body


def test_webhooks_have_the_vendors_shapes_and_signatures() -> None:
    crm = _crm()
    _played(crm, Plan.of(200))
    source = GoHighLevel(crm.webhooks.public_key)
    kinds = set()
    for raw in crm.post.waiting:
        asked = request(crm.webhooks.sign(raw), raw)
        parsed = source.parse(asked, source.verify(asked))
        (event,) = parsed.events
        (record,) = source.records(raw)
        assert parsed.account == LOCATION
        assert event.record == record["id"]
        assert event.order_key == record.get("contactId", record["id"])
        kinds.add((event.object, event.event))
    assert kinds == {
        ("Contact", "afterInsert"),
        ("Contact", "afterUpdate"),
        ("Message", "afterInsert"),
        ("Appointment", "afterInsert"),
    }


def test_some_webhooks_come_twice_with_one_id_and_the_others_have_ids_of_their_own() -> None:
    crm = _crm(twice=0.5)
    _played(crm, Plan.of(200))
    ids = [json.loads(each)["webhookId"] for each in crm.post.waiting]
    assert len(set(ids)) == crm.people < len(ids) < 2 * crm.people


def test_an_edit_changes_something_that_matters_to_the_score() -> None:
    crm = _crm()
    _played(crm, Plan.of(500))
    source, stored, changed = GoHighLevel(crm.webhooks.public_key), {}, 0
    service = next(id_ for id_, each in crm.world.fields.items() if each["name"] == "service")
    for raw in crm.post.waiting:
        if json.loads(raw)["type"].startswith("Contact"):
            (record,) = source.records(raw)
            changed += record["id"] in stored and record[service] != stored[record["id"]]
            stored[record["id"]] = record.get(service)
    assert changed == Plan.of(500).updated


def test_webhooks_of_contacts_hold_only_fields_that_the_vendor_documents() -> None:
    folder = _vendor_contracts()
    documented: dict[str, set[str]] = {}
    for kind in ("ContactCreate", "ContactUpdate"):
        schemas = [json.loads(each.read_text()) for each in (folder / "schemas").glob(f"{kind}*.schema.json")]
        examples = [json.loads(each.read_text()) for each in folder.glob(f"{kind}*.json")]
        assert schemas
        assert examples
        documented[kind] = {name for each in schemas for name in each["properties"]}
        documented[kind] |= {name for each in examples for name in each}
    crm = _crm()
    _played(crm, Plan.of(200))
    for raw in crm.post.waiting:
        body = json.loads(raw)
        if body["type"] in documented:
            assert set(body) <= documented[body["type"]] | {"timestamp", "webhookId"}


def _vendor_contracts() -> Path:
    root = os.environ.get("CIRCUIT_SHARED")
    if root is None or not (folder := Path(root, "specs/ghl/webhooks")).is_dir():
        pytest.skip("CIRCUIT_SHARED does not name the vendors' contracts")
    return folder
