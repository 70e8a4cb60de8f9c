"""What the demo's vendor sends is harmless, and is taken so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from circuit_script.cli.demo.vendor import Vendor
from circuit_script.events.batch import Item
from circuit_script.events.queued import Queued
from circuit_script.events.screening import Screen
from circuit_script.judgment import JudgmentProtocol


def item(nth: int, object_: str, fields: dict[str, Any]) -> Item:
    row = Queued(nth, 1, 0, 0, 0, 0, UUID(int=nth), None, None, "acme", object_, "afterInsert", f"c{nth}")
    return Item(row, fields, fields, None, {"source": "gohighlevel"}, echo=False)


def test_nothing_of_the_demo_is_found_suspicious() -> None:
    vendor = Vendor(seed=7, location="demoLocation0000001", now=datetime(2026, 1, 5, tzinfo=UTC))
    people = [vendor.contact() for _ in range(150)]
    items = [item(n, "Contact", dict(each)) for n, each in enumerate(people)]
    items += [item(n, "Message", dict(vendor.message(each))) for n, each in enumerate(people, 500)]
    items += [item(n, "Appointment", dict(vendor.appointment(each))) for n, each in enumerate(people, 1000)]

    found = asyncio.run(Screen(JudgmentProtocol()).screened(items))

    assert [each.verdicts for each in found if each.verdicts] == []
