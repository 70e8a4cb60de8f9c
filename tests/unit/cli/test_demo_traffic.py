"""The demo's vendor: real shapes, true signatures, the same bytes for the same seed."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from circuit_script.cli.demo import traffic
from circuit_script.cli.demo.traffic import Delivery, Expectation, Plan
from circuit_script.cli.demo.vendor import Vendor
from circuit_script.errors import IntakeRefused
from circuit_script.events.sources.gohighlevel import GoHighLevel

LOCATION = "ve9EPM428h8vShlRW1KT"


def _vendor(seed: int = 7) -> Vendor:
    return Vendor(seed=seed, location=LOCATION, now=datetime(2026, 1, 1, tzinfo=UTC))


def _answer(source: GoHighLevel, delivery: Delivery) -> int:
    """What an intake without memory would answer."""
    try:
        source.verify(delivery.headers, delivery.body, 0.0)
        source.parse(delivery.headers, delivery.body)
    except IntakeRefused as refused:
        return refused.status
    return 202


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    plan = Plan.of(300)
    first, again = (traffic.deliveries(_vendor(), plan) for _ in range(2))
    assert first == again
    assert traffic.deliveries(_vendor(8), plan) != first


@pytest.mark.parametrize("total", [50, 51, 200, 2000, 3333])
def test_a_plan_adds_up_to_its_total_with_every_kind_in_it(total: int) -> None:
    plan = Plan.of(total)
    sent = traffic.deliveries(_vendor(), plan)
    assert len(sent) + plan.echoes == total
    assert {each.expectation for each in sent} == set(Expectation) - {Expectation.ECHO}
    assert plan.echoes > 0


def test_a_plan_for_too_few_deliveries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        Plan.of(49)


def test_every_delivery_gets_the_answer_that_is_expected_of_it() -> None:
    vendor = _vendor()
    source = GoHighLevel(vendor.public_key)
    for delivery in traffic.deliveries(vendor, Plan.of(2000)):
        repeated = delivery.expectation is Expectation.DUPLICATE  # known only to an intake with memory
        wanted = 202 if repeated else delivery.expectation.status
        assert _answer(source, delivery) == wanted, (delivery.expectation, delivery.body)


def test_only_duplicates_repeat_a_webhook_id_and_they_come_well_behind_the_first() -> None:
    accepted = [each for each in traffic.deliveries(_vendor(), Plan.of(2000)) if each.expectation.status in (200, 202)]
    at: dict[str, list[int]] = {}
    for position, each in enumerate(accepted):
        at.setdefault(msgspec.json.decode(each.body)["webhookId"], []).append(position)
    twice = {key: places for key, places in at.items() if len(places) > 1}
    assert len(twice) == traffic.expected(accepted)[Expectation.DUPLICATE] == 50
    assert all(later - first > 100 for first, later in twice.values())
    assert all(accepted[later].expectation is Expectation.DUPLICATE for _, later in twice.values())


def test_deliveries_have_the_vendors_shapes() -> None:
    vendor = _vendor()
    source = GoHighLevel(vendor.public_key)
    kinds: Counter[tuple[str, str]] = Counter()
    for delivery in traffic.deliveries(vendor, Plan.of(500)):
        if delivery.expectation is not Expectation.SUCCEEDS:
            continue
        parsed = source.parse(delivery.headers, delivery.body)
        (event,) = parsed.events
        (record,) = source.records(delivery.body)
        assert parsed.account == LOCATION
        assert event.record == record["id"]
        assert event.order_key == record.get("contactId", record["id"])
        kinds[event.object, event.event] += 1
    assert set(kinds) == {
        ("Contact", "afterInsert"),
        ("Contact", "afterUpdate"),
        ("Message", "afterInsert"),
        ("Appointment", "afterInsert"),
    }


def test_an_update_changes_something_that_matters_to_the_score() -> None:
    sent = [
        each
        for each in traffic.deliveries(_vendor(), Plan.of(500))
        if each.expectation is Expectation.SUCCEEDS and each.type.startswith("Contact")
    ]
    source = GoHighLevel(_vendor().public_key)
    stored: dict[str, object] = {}
    changed = 0
    for each in sent:
        (record,) = source.records(each.body)
        if each.type == "ContactUpdate":
            assert record["service"] != stored[record["id"]]
            changed += 1
        stored[record["id"]] = record.get("service")
    assert changed == Plan.of(500).updated


def test_an_echo_is_the_contact_as_last_sent_with_what_we_wrote() -> None:
    vendor = _vendor()
    source = GoHighLevel(vendor.public_key)
    identifier, contact = next(iter(traffic.latest_contacts(traffic.deliveries(vendor, Plan.of(100))).items()))
    echo = traffic.echo(vendor, contact, {"lpr_score": 61, "lpr_band": "warm"})
    assert _answer(source, echo) == 202
    assert source.parse(echo.headers, echo.body).events[0].event == "afterUpdate"
    (record,) = source.records(echo.body)
    assert (record["id"], record["lpr_score"], record["lpr_band"]) == (identifier, 61, "warm")
    same = {name: value for name, value in contact.items() if name not in ("locationId", "customFields")}
    assert same.items() <= record.items()


def test_the_contacts_that_the_app_cannot_handle_are_never_among_the_echoes() -> None:
    sent = traffic.deliveries(_vendor(), Plan.of(100))
    assert {traffic.RAISES, traffic.ENDLESS}.isdisjoint(traffic.latest_contacts(sent))


def test_payloads_hold_only_fields_that_the_vendor_documents() -> None:
    folder = _vendor_contracts()
    documented: dict[str, set[str]] = {}
    for kind in ("ContactCreate", "ContactUpdate", "InboundMessage", "AppointmentCreate"):
        schemas = [json.loads(each.read_text()) for each in (folder / "schemas").glob(f"{kind}*.schema.json")]
        examples = [json.loads(each.read_text()) for each in folder.glob(f"{kind}*.json")]
        assert schemas
        assert examples
        documented[kind] = {name for each in schemas for name in each["properties"]}
        documented[kind] |= {name for each in examples for name in each}
    added_since = {"timestamp", "webhookId", "messageId"}
    vendor = _vendor()
    for each in traffic.deliveries(vendor, Plan.of(500)):
        if each.expectation is Expectation.SUCCEEDS:
            payload = msgspec.json.decode(each.body)
            assert set(payload) <= documented[each.type] | added_since


def _vendor_contracts() -> Path:
    root = os.environ.get("CIRCUIT_SHARED")
    if root is None or not (folder := Path(root, "specs/ghl/webhooks")).is_dir():
        pytest.skip("CIRCUIT_SHARED does not name the vendors' contracts")
    return folder
