"""Custom fields on the whole road: webhooks have them by opaque ids, handlers by their keys, and echoes are known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import GoHighLevelSettings, SourceSettings, load_settings
from circuit_script.testing.stand_ins.gohighlevel import GoHighLevelStandIn, running
from tests import gateways
from tests.crm.gohighlevel_stage import WINDOW
from tests.road import Road, eventually, open_road
from tests.workers import working

APP = """
import json

from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"])
async def score(context):
    for lead, old in zip(context.new_records, context.old_records):
        async with context.record(lead):
            said = {"plan": lead.get("plan"), "score": lead.get("score"), "before": old and old.get("plan")}
            await CircuitDB.insert("Review", {"about": lead["id"], "said": json.dumps(said)})
            if context.event_name == "afterInsert":
                update = {"id": lead["id"], "score": 80, "reasons": ["wants it", 2], "colours": ["red"]}
                await CircuitDB.update("Contact", update)
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
SAID = "SELECT data ->> 'said' FROM circuit.records WHERE object = 'Review' ORDER BY created_at, id"
STATUSES = """
SELECT o.status FROM circuit.outcomes o JOIN circuit.events e ON e.delivery = o.delivery AND e.ordinal = o.ordinal
WHERE e.object = 'Contact' ORDER BY e.id
"""


class Stage:
    """The vendor, whose webhooks go to a gateway, and a worker at work."""

    def __init__(self, vendor: GoHighLevelStandIn, road: Road) -> None:
        self.vendor = vendor
        self.road = road
        kinds = {"Plan": "TEXT", "Score": "NUMERICAL", "Reasons": "LARGE_TEXT", "Colours": "MULTIPLE_OPTIONS"}
        world = vendor.world
        self.ids = {name.lower(): world.custom_field(vendor.location, name, kind)["id"] for name, kind in kinds.items()}

    def entries(self, **values: Any) -> list[dict[str, Any]]:
        return [{"id": self.ids[name], "value": value} for name, value in values.items()]

    async def settled(self, *statuses: str) -> list[dict[str, Any]]:
        """Until the contact's events have ended so; what the handler said, in its order."""
        await self.road.until(STATUSES, list(statuses))
        await self.road.done()
        return [json.loads(each) for each in await self.road.rows(SAID)]


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


@pytest.fixture
async def stage(
    road: Road, database: str, app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    with running(window=WINDOW) as vendor:
        made = Stage(vendor, road)
        monkeypatch.setenv("CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN", vendor.token)
        sources = SourceSettings(gohighlevel=GoHighLevelSettings(public_key=vendor.webhooks.public_key))
        monkeypatch.setattr(gateways, "SOURCES", sources)
        (app_folder / "app.py").write_text(APP)
        (app_folder / "circuit.toml").write_text(TOML.format(url=vendor.url, account=vendor.location))
        with gateways.running(database, tmp_path) as port:
            async with working(load_settings(app_folder), road.url):
                vendor.webhooks.url = f"http://127.0.0.1:{port}/webhooks/gohighlevel"
                yield made
                vendor.webhooks.url = ""
        assert vendor.violations == []


async def test_our_writes_of_custom_fields_come_back_and_start_nothing(stage: Stage) -> None:
    world, location = stage.vendor.world, stage.vendor.location
    assert all(len(id_) == 20 and id_ != name for name, id_ in stage.ids.items())
    doc = world.contact(location, {"firstName": "Ann", "customFields": stage.entries(plan="gold")})
    first = {"plan": "gold", "score": None, "before": None}
    assert await stage.settled("succeeded", "echo") == [first]
    kept = {stage.ids[name]: value for name, value in {"plan": "gold", "score": 80, "colours": ["red"]}.items()}
    assert doc["customFields"] == kept | {stage.ids["reasons"]: '["wants it",2]'}

    world.edit_contact(doc, {"customFields": stage.entries(plan="silver")})
    second = {"plan": "silver", "score": 80, "before": "gold"}
    assert await stage.settled("succeeded", "echo", "succeeded") == [first, second]
    world.edit_contact(doc, {"customFields": stage.entries(score=10)})
    world.edit_contact(doc, {"customFields": stage.entries(reasons="")})
    *_, last = await stage.settled("succeeded", "echo", "succeeded", "succeeded", "succeeded")
    assert last == {"plan": "silver", "score": 10, "before": "silver"}


@pytest.mark.parametrize("name", ["score", "colours"])
async def test_a_custom_field_of_ours_that_a_person_clears_is_a_change(stage: Stage, name: str) -> None:
    world, location = stage.vendor.world, stage.vendor.location
    doc = world.contact(location, {"firstName": "Ann", "customFields": stage.entries(plan="gold")})
    await stage.settled("succeeded", "echo")
    world.edit_contact(doc, {"customFields": stage.entries(**{name: ""})})
    await stage.settled("succeeded", "echo", "succeeded")


async def test_where_the_vendor_does_not_say_its_fields_an_event_runs_with_their_ids(stage: Stage) -> None:
    stage.vendor.fail_next("500")
    doc = stage.vendor.world.contact(
        stage.vendor.location, {"firstName": "Ann", "customFields": stage.entries(plan="gold")}
    )
    unknown = {"plan": None, "score": None, "before": None}
    said = await stage.settled("succeeded", "echo")
    assert said == [unknown]  # the write asked for them again, so that its echo is known

    async def scored() -> bool:
        return bool(doc["customFields"].get(stage.ids["score"]) == 80)

    await eventually(scored, "the write did not arrive")
