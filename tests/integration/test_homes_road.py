"""The whole way: a vendor's event, a trigger, a write, the vendor's record, and its event about that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import load_settings
from circuit_script.connectors.registry import VENDORS
from tests.crm.toy_vendor import ToyVendor
from tests.road import PATIENCE, Incoming, Road, contact, eventually, open_road
from tests.workers import working

REPOSITORY = Path(__file__).parents[2]
APP = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"])
async def score(context):
    for lead in context.new_records:
        async with context.record(lead):
            await CircuitDB.update("Contact", {"id": lead["id"], "score": len(lead["firstName"])})


@trigger("Contact", ["afterUpdate"])
async def follow_up(context):
    for lead in context.new_records:
        async with context.record(lead):
            found = await CircuitDB.get("Contact", lead["id"])
            await CircuitDB.insert("Task", {"contactId": lead["id"], "title": f"call {found['phone']}"})


@trigger("Task", ["afterInsert", "afterUpdate"])
async def note(context):
    for task in context.new_records:
        await CircuitDB.insert("Note", {"about": task["id"]})
"""


DELETING = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterUpdate"])
async def clear(context):
    for lead in context.new_records:
        await CircuitDB.delete("Task", lead["task"])


@trigger("Task", ["afterDelete"])
async def mourn(context):
    for task in context.new_records:
        await CircuitDB.insert("Note", {"about": task["id"]})
"""


def write_app(folder: Path, vendor: ToyVendor, app: str = APP) -> None:
    (folder / "app.py").write_text(app)
    (folder / "circuit.toml").write_text(
        f"""
[worker]
lease = 1.0
children = 1
endpoint_children = 1
[crm]
home = "toy"
[connectors.toy]
url = "{vendor.url}"
account = "A-1"
[tenants.acme]
"""
    )


@pytest.fixture
async def vendor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToyVendor]:
    monkeypatch.setitem(VENDORS, "toy", "tests.crm.toy")
    async with ToyVendor().serving() as serving:
        monkeypatch.setenv("CIRCUIT_SECRET_TOY_KEY", serving.key)
        yield serving


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


def telling(road: Road, vendor: ToyVendor) -> None:
    """The vendor tells of each change before it answers, so that its event is there before we know of it."""

    async def told(object_: str, event: str, row: dict[str, Any]) -> None:
        fields = {name: value for name, value in row.items() if name != "id"}
        await road.take_in(Incoming(row["id"], event, object_, fields=fields))

    vendor.told = told


OUTCOMES = """
SELECT h.name, e.event, o.status FROM circuit.outcomes o
JOIN circuit.events e ON e.delivery = o.delivery AND e.ordinal = o.ordinal
JOIN circuit.handlers h ON h.id = o.handler ORDER BY e.id, h.name
"""


async def test_a_vendors_event_leads_to_a_write_there_whose_own_event_starts_nothing(
    road: Road, vendor: ToyVendor, app_folder: Path
) -> None:
    write_app(app_folder, vendor)
    telling(road, vendor)
    id_ = vendor.make("Contact", {"firstName": "Anna", "phone": "+1"})
    async with working(load_settings(app_folder), road.url):
        await road.take_in(contact(id_, "afterUpdate", firstName="Anna", phone="+1"))
        await road.until(
            "SELECT status FROM circuit.effects WHERE connector = 'toy' ORDER BY operation", ["delivered", "delivered"]
        )
        await road.until("SELECT count(*) FROM circuit.events", [3])
        await road.done()

    assert vendor.of("Contact") == {id_: {"firstName": "Anna", "phone": "+1", "score": 4}}
    assert list(vendor.of("Task").values()) == [{"contactId": id_, "title": "call +1"}]
    (task,) = vendor.of("Task")
    found = await road.rows(OUTCOMES)
    names = [name.rpartition(".")[2] for name, _, _ in found]
    assert sorted(zip(names, [event for _, event, _ in found], [status for _, _, status in found], strict=True)) == [
        ("follow_up", "afterUpdate", "echo"),
        ("follow_up", "afterUpdate", "succeeded"),
        ("note", "afterInsert", "echo"),
        ("score", "afterUpdate", "echo"),
        ("score", "afterUpdate", "succeeded"),
    ]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Note'") == [0]
    (mirrored,) = await road.rows("SELECT id, data, depth FROM circuit.records WHERE object = 'Task'")
    assert mirrored == (task, {"contactId": id_, "title": "call +1"}, 1)


async def test_a_delete_of_ours_comes_back_as_an_echo_and_somebody_elses_does_not(
    road: Road, vendor: ToyVendor, app_folder: Path
) -> None:
    write_app(app_folder, vendor, DELETING)
    telling(road, vendor)
    ours, theirs = (vendor.make("Task", {"title": each}) for each in ("ours", "theirs"))
    async with working(load_settings(app_folder), road.url):
        await road.take_in(contact("c1", "afterUpdate", task=ours))
        await road.until("SELECT status FROM circuit.effects WHERE connector = 'toy'", ["delivered"])
        await road.take_in(Incoming(theirs, "afterDelete", "Task", fields={"title": "theirs"}))
        await road.until("SELECT count(*) FROM circuit.events", [3])
        await road.done()
        await road.until("SELECT data FROM circuit.records WHERE object = 'Note'", [{"about": theirs}])
    assert set(vendor.of("Task")) == {theirs}


@asynccontextmanager
async def process(folder: Path, url: str, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "CIRCUIT_FAILPOINTS": failpoints}
    if not failpoints:
        del environment["CIRCUIT_FAILPOINTS"]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crm.toy_worker", str(folder), url,
        stdout=asyncio.subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert await asyncio.wait_for(worker.stdout.readline(), PATIENCE) == b"ready\n"
        yield worker
    finally:
        if worker.returncode is None:
            worker.terminate()
            await asyncio.wait_for(worker.wait(), PATIENCE)


@pytest.mark.parametrize("place", ["courier.before", "courier.sent"])
async def test_a_worker_that_dies_between_request_and_answer_leads_to_nothing_twice(
    road: Road, vendor: ToyVendor, app_folder: Path, place: str
) -> None:
    write_app(app_folder, vendor)
    ids = [vendor.make("Contact", {"firstName": name, "phone": "+1"}) for name in ("Anna", "Bo")]
    async with process(app_folder, road.url, f"{place}=kill@1") as first:
        await road.take_in(*(contact(each, "afterUpdate", firstName="Annabel", phone="+1") for each in ids))
        assert await asyncio.wait_for(first.wait(), PATIENCE) == -signal.SIGKILL
    assert "pending" in await road.rows("SELECT status FROM circuit.effects WHERE connector = 'toy'")

    async with process(app_folder, road.url):

        async def all_there() -> bool:
            states = await road.rows("SELECT status FROM circuit.effects WHERE connector = 'toy'")
            return states == ["delivered"] * 4

        await eventually(all_there, "not every write was delivered")

    assert [vendor.of("Contact")[each]["score"] for each in ids] == [7, 7]
    assert sorted(row["contactId"] for row in vendor.of("Task").values()) == sorted(ids)
    assert len(vendor.writes) == 4
