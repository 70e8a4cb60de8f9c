"""Reconciliation: what webhooks did not tell is found by asking the vendor, once, whatever else comes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli import reconcile as command
from circuit_script.config import Settings, load_settings
from circuit_script.connectors.registry import VENDORS
from circuit_script.events.mirror_moves import NEW, move
from circuit_script.events.reconcile import Poll, Polled, Target
from circuit_script.events.reconcile.feed import feed
from circuit_script.secrets import open_secrets
from circuit_script.settings_mirror import MirrorSettings
from circuit_script.wiring.deliveries import open_deliveries_client
from circuit_script.wiring.homes import Housing, make_housing
from circuit_script.wiring.reconcile import Reconciler, handled_objects, targets_of
from tests import reconcile_toy
from tests.gateways import post, running
from tests.reconcile_toy import STAMP, StampedVendor
from tests.road import PATIENCE, Road, eventually, open_road
from tests.workers import working

REPOSITORY = Path(__file__).parents[2]
APP = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"])
async def note(context):
    for lead in context.new_records:
        async with context.record(lead):
            await CircuitDB.insert("Note", {"about": lead["id"], "said": lead["firstName"]})
"""
SCORING = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"])
async def score(context):
    for lead in context.new_records:
        async with context.record(lead):
            await CircuitDB.insert("Note", {"about": lead["id"], "said": lead["firstName"]})
            await CircuitDB.update("Contact", {"id": lead["id"], "score": len(lead["firstName"])})
"""
NOTES = "SELECT data ->> 'about', data ->> 'said' FROM circuit.records WHERE object = 'Note'"
QUEUE = "SELECT count(*) FROM circuit.queue"
FED = "SELECT count(*) FROM circuit.deliveries WHERE source = 'circuit' AND account = 'reconcile'"


def write_app(folder: Path, vendor: StampedVendor, app: str = APP, more: str = "", reconcile: str = "") -> Settings:
    (folder / "app.py").write_text(app)
    (folder / "circuit.toml").write_text(
        f"""
[worker]
lease = 1.0
children = 1
endpoint_children = 1
[crm]
home = "toy"
[reconcile]
{reconcile or "enabled = false"}
[connectors.toy]
url = "{vendor.url}"
{more or 'account = "A-1"'}
"""
    )
    return load_settings(folder)


@dataclass
class Stage:
    """A vendor, a gateway, a road, and polls as a worker makes them."""

    vendor: StampedVendor
    road: Road
    port: int
    settings: Settings
    housing: Housing
    told: int = 0

    async def target(self) -> Target:
        async with self.road.pool.connection() as connection:
            (found,) = targets_of(self.settings, self.housing, await handled_objects(connection))
        assert isinstance(found, Target)
        return found

    async def poll(self, **options: Any) -> Polled:
        return await Poll(self.road.pool, **options).run(await self.target())

    def webhook(self, id_: str, kind: str = "ContactUpdate", number: str = "", **more: Any) -> bytes:
        """What the vendor tells of a contact as it is now; of when it was changed it says nothing."""
        self.told += 1
        fields = {name: value for name, value in self.vendor.of("Contact")[id_].items() if name != STAMP}
        told = {"type": kind, "locationId": "A-1", "id": id_, "webhookId": number or f"w{self.told}"}
        return json.dumps({**told, **fields, **more}).encode()

    async def send(self, *bodies: bytes) -> None:
        for body in bodies:
            answer = await asyncio.to_thread(post, self.port, body)
            assert answer.status in (200, 202), answer

    async def notes(self) -> Counter[tuple[str, str]]:
        return Counter([tuple(each) for each in await self.road.rows(NOTES)])


@pytest.fixture(params=["ordered", "unordered"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(reconcile_toy, "ORDERED", request.param == "ordered")
    return str(request.param)


@pytest.fixture
async def vendor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StampedVendor]:
    monkeypatch.setitem(VENDORS, "toy", "tests.reconcile_toy")
    async with StampedVendor().serving() as serving:
        assert isinstance(serving, StampedVendor)
        monkeypatch.setenv("CIRCUIT_SECRET_TOY_KEY", serving.key)
        yield serving


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


@pytest.fixture
def port(database: str, tmp_path: Path) -> Iterator[int]:
    with running(database, tmp_path) as port:
        yield port


@asynccontextmanager
async def staged(vendor: StampedVendor, road: Road, port: int, settings: Settings) -> AsyncIterator[Stage]:
    async with open_deliveries_client() as client:
        secrets = open_secrets(settings, road.pool)
        try:
            yield Stage(vendor, road, port, settings, make_housing(settings, road.pool, client, secrets))
        finally:
            await secrets.aclose()


@pytest.fixture
async def stage(vendor: StampedVendor, road: Road, port: int, app_folder: Path) -> AsyncIterator[Stage]:
    """With a worker at work."""
    settings = write_app(app_folder, vendor)
    async with staged(vendor, road, port, settings) as made, working(settings, road.url):
        yield made


async def test_of_webhooks_lost_doubled_and_shuffled_every_state_is_handled_once(stage: Stage, order: str) -> None:
    dice = random.Random(7)
    assert (await stage.poll()).note == "it begins now: what changes from here on is found"
    ids = [stage.vendor.make("Contact", {"firstName": f"N{number}"}) for number in range(200)]
    expected = Counter({(id_, f"N{number}"): 1 for number, id_ in enumerate(ids)})
    for kind, turn in (("ContactCreate", "born"), ("ContactUpdate", "changed")):
        if turn == "changed":
            for number, id_ in enumerate(ids):
                stage.vendor.change(id_, firstName=f"M{number}")
                expected[id_, f"M{number}"] += 1
        bodies = [stage.webhook(id_, kind) for id_ in ids]
        told = [body for body in bodies if dice.random() > 0.3]
        lost = 200 - len(told)
        assert 30 < lost < 90
        told += dice.sample(told, 20)
        dice.shuffle(told)
        early, meanwhile, late = told[:60], told[60:110], told[110:]
        await stage.send(*early)
        polls = await asyncio.gather(stage.poll(), stage.poll(), stage.send(*meanwhile))
        found = sum(each.found for each in polls if isinstance(each, Polled))
        assert found >= lost, polls
        await stage.send(*late)
        assert (await stage.poll()).found == 0  # what is told meanwhile is known, handled or not
        await stage.road.done()
        assert await stage.notes() == expected
        assert (await stage.poll()).found == 0
    states = await stage.road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Contact'")
    assert states == [200]
    assert await stage.road.rows("SELECT more, trouble FROM circuit.reconcile_cursors") == [(False, None)]


async def test_a_new_record_is_an_insert_and_a_known_one_an_update(stage: Stage) -> None:
    await stage.poll()
    id_ = stage.vendor.make("Contact", {"firstName": "Anna"})
    first = await stage.poll()
    await stage.road.done()
    stage.vendor.change(id_, firstName="Bo")
    second = await stage.poll()
    await stage.road.done()
    assert [(each.inserts, each.updates) for each in (first, second)] == [(1, 0), (0, 1)]
    events = await stage.road.rows("SELECT event, handled FROM circuit.events WHERE object = 'Contact' ORDER BY id")
    assert events == [("afterInsert", 1), ("afterUpdate", 1)]
    assert await stage.notes() == {(id_, "Anna"): 1, (id_, "Bo"): 1}
    assert (await stage.road.record(id_, tenant="default") or {})["firstName"] == "Bo"


async def test_what_changed_back_and_forth_is_not_taken_for_a_late_webhook(stage: Stage) -> None:
    await stage.poll()
    id_ = stage.vendor.make("Contact", {"firstName": "Anna"})
    await stage.poll()
    await stage.road.done()
    for name in ("Bo", "Anna"):
        stage.vendor.change(id_, firstName=name)
        await stage.send(stage.webhook(id_))
    await stage.road.done()
    assert await stage.notes() == {(id_, "Anna"): 2, (id_, "Bo"): 1}


async def test_a_webhook_that_says_when_is_late_by_that_even_after_another(stage: Stage) -> None:
    await stage.poll()
    id_ = stage.vendor.make("Contact", {"firstName": "Anna"})
    birth = stage.webhook(id_, "ContactCreate", dateUpdated=stage.vendor.of("Contact")[id_][STAMP])
    older = stage.vendor.change(id_, firstName="Bo")
    changed = stage.webhook(id_, dateUpdated=older[STAMP])
    newest = stage.vendor.change(id_, firstName="Cy")
    last = stage.webhook(id_, dateUpdated=newest[STAMP])
    assert (await stage.poll()).inserts == 1
    await stage.road.done()
    await stage.send(changed, birth, last)
    await stage.road.done()
    assert await stage.notes() == {(id_, "Cy"): 1}
    assert (await stage.road.record(id_, tenant="default") or {})["firstName"] == "Cy"
    later = stage.vendor.change(id_, firstName="Di")
    await stage.send(stage.webhook(id_, dateUpdated=later[STAMP]))
    await stage.road.done()
    assert await stage.notes() == {(id_, "Cy"): 1, (id_, "Di"): 1}


async def test_our_own_writes_are_no_news(vendor: StampedVendor, road: Road, port: int, app_folder: Path) -> None:
    settings = write_app(app_folder, vendor, SCORING)
    async with staged(vendor, road, port, settings) as stage, working(settings, road.url):
        await stage.poll()
        id_ = vendor.make("Contact", {"firstName": "Anna"})
        await stage.send(stage.webhook(id_, "ContactCreate"))
        await road.until("SELECT status FROM circuit.effects WHERE connector = 'toy'", ["delivered"])
        await road.done()
        assert vendor.of("Contact")[id_]["score"] == 4
        assert (await stage.poll()).found == 0
        vendor.change(id_, firstName="Annabel")
        vendor.hold = asyncio.Event()  # our write is done there, and we do not know
        await stage.send(stage.webhook(id_))

        async def written() -> bool:
            return vendor.of("Contact")[id_]["score"] == 7

        await eventually(written, "nothing was written")
        poll = asyncio.create_task(stage.poll())
        await road.until("SELECT claimed IS NOT NULL FROM circuit.reconcile_cursors", [True])
        vendor.hold.set()
        assert (await poll).found == 0
        await road.until("SELECT status FROM circuit.effects WHERE connector = 'toy'", ["delivered", "delivered"])
        assert (await stage.poll()).found == 0
        assert await stage.notes() == {(id_, "Anna"): 1, (id_, "Annabel"): 1}


async def test_two_hosts_that_take_in_the_same_rows_make_one_delivery_of_each(stage: Stage) -> None:
    place = (await stage.target()).place
    ids = [stage.vendor.make("Contact", {"firstName": f"N{number}"}) for number in range(120)]
    rows = [{**stage.vendor.of("Contact")[id_], "id": id_} for id_ in ids]
    (read_at,) = await stage.road.rows("SELECT clock_timestamp()")
    fed = await asyncio.gather(*(feed(stage.road.pool, place, rows, read_at) for _ in range(3)))
    assert sum(each.found.get("afterInsert", 0) for each in fed) == 120
    assert await stage.road.rows(FED) == [120]
    await stage.road.done()
    assert set((await stage.notes()).values()) == {1}


async def test_while_one_host_polls_another_leaves_it_and_what_is_not_due_is_left(stage: Stage) -> None:
    await stage.poll()
    stage.vendor.make("Contact", {"firstName": "Anna"})
    assert (await stage.poll(every=3600.0)).note == "another host polls it, or has"
    stage.vendor.hold = asyncio.Event()
    first = asyncio.create_task(stage.poll())
    await stage.road.until("SELECT claimed > now() FROM circuit.reconcile_cursors", [True])
    assert (await stage.poll()).note == "another host polls it, or has"
    stage.vendor.hold.set()
    assert (await first).found == 1


async def test_a_row_older_than_what_a_webhook_told_meanwhile_is_no_news(stage: Stage) -> None:
    place = (await stage.target()).place
    id_ = stage.vendor.make("Contact", {"firstName": "Anna"})
    await stage.send(stage.webhook(id_, "ContactCreate"))
    old = {**stage.vendor.of("Contact")[id_], "id": id_}
    (read_at,) = await stage.road.rows("SELECT clock_timestamp()")
    stage.vendor.change(id_, firstName="Bo")
    await stage.send(stage.webhook(id_))
    fed = await feed(stage.road.pool, place, [old], read_at)
    assert (fed.found, [each["id"] for each in fed.again]) == ({}, [id_])
    assert await stage.road.rows(FED) == [0]


async def test_the_bound_ends_a_poll_and_the_next_goes_on_at_once(stage: Stage, order: str) -> None:
    await stage.poll()
    ids = [stage.vendor.make("Contact", {"firstName": f"N{number}"}) for number in range(230)]
    found = []
    while not found or found[-1].more:
        found.append(await stage.poll(every=3600.0 if found else None, most=60, page=50))
        assert not found[-1].note
    assert len(found) > 2
    assert sum(each.found for each in found) == 230
    await stage.road.done()
    assert await stage.notes() == {(id_, f"N{number}"): 1 for number, id_ in enumerate(ids)}


async def test_what_changes_while_pages_are_read_is_found(stage: Stage, order: str) -> None:
    await stage.poll()
    ids = [stage.vendor.make("Contact", {"firstName": f"N{number}"}) for number in range(150)]
    changed = []

    def told(polled: Polled) -> None:
        if polled.read >= 50 and not changed:
            changed.extend([ids[0], ids[49], ids[50], ids[149]])
            for id_ in changed:
                stage.vendor.change(id_, firstName="new")

    await stage.poll(page=50, told=told)
    await stage.road.done()
    assert changed
    await stage.poll()
    await stage.road.done()
    notes = await stage.notes()
    assert {id_ for id_, said in notes if said == "new"} == set(changed)
    assert set(notes.values()) == {1}
    assert {id_ for id_, _ in notes} == set(ids)


async def test_trouble_of_one_tenant_is_its_own(vendor: StampedVendor, road: Road, port: int, app_folder: Path) -> None:
    tenants = '[tenants.acme]\ntoy = ["A-1"]\n[tenants.bolt]\n[tenants.cargo]\ntoy = ["A-3"]\n'
    settings = write_app(app_folder, vendor, more=tenants, reconcile='every = "1s"')
    async with (
        staged(vendor, road, port, settings) as stage,
        working(write_app(app_folder, vendor, more=tenants), road.url),
    ):
        polls = Reconciler(settings, road.pool, stage.housing)
        await polls.round()
        notes = await road.rows("SELECT tenant, trouble FROM circuit.reconcile_cursors ORDER BY 1")
        assert notes == [("acme", None), ("bolt", None), ("cargo", None)]
        id_ = vendor.make("Contact", {"firstName": "Anna"})
        await road.run("UPDATE circuit.reconcile_cursors SET polled_at = now() - interval '1 hour'")
        vendor.mishaps = ["429"]
        await polls.round()
        acme, bolt, cargo = await road.rows("SELECT trouble, found FROM circuit.reconcile_cursors ORDER BY tenant")
        assert acme[0].startswith("it is to be asked less")
        assert bolt[0].startswith("not connected")
        assert cargo == (None, 1)
        assert "circuit-script connect" in bolt[0]
        (chore,) = await road.rows("SELECT failure FROM circuit.upkeep WHERE chore = 'reconcile'")
        assert vendor.key not in chore
        await road.run("UPDATE circuit.reconcile_cursors SET polled_at = now() - interval '1 hour'")
        await polls.round()
        await road.done()
        found = await road.rows("SELECT tenant, data ->> 'about' FROM circuit.records WHERE object = 'Note' ORDER BY 1")
        assert found == [("acme", id_), ("cargo", id_)]


async def test_what_an_old_service_still_acts_on_is_not_polled_and_not_made_up_for(
    vendor: StampedVendor, road: Road, port: int, app_folder: Path
) -> None:
    settings = write_app(app_folder, vendor, reconcile='every = "1s"')
    mirrored = settings.model_copy(update={"mirror": {"toy": MirrorSettings(url="http://127.0.0.1:1/old")}})
    due = "UPDATE circuit.reconcile_cursors SET polled_at = now() - interval '1 hour'"
    async with staged(vendor, road, port, settings) as stage, working(write_app(app_folder, vendor), road.url):
        await Reconciler(settings, road.pool, stage.housing).round()
        await road.run(due)
        vendor.make("Contact", {"firstName": "theirs"})
        polls = Reconciler(mirrored, road.pool, stage.housing)
        await polls.round()
        assert await road.rows(FED) == [0], "the old service has it"
        async with road.pool.connection() as connection:
            await move(connection, "toy", NEW, by="ada")
        await polls.round()
        assert await road.rows(FED) == [0], "nor later"
        await road.run(due)
        ours = vendor.make("Contact", {"firstName": "ours"})
        await polls.round()
        await road.done()
        assert await road.rows(FED) == [1]
        assert {id_ for id_, _ in await stage.notes()} == {ours}


@asynccontextmanager
async def process(folder: Path, url: str, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "CIRCUIT_FAILPOINTS": failpoints}
    if not failpoints:
        del environment["CIRCUIT_FAILPOINTS"]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.reconcile_toy", str(folder), url,
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


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("reconcile.before", marks=pytest.mark.slow),
        "reconcile.fed",
        pytest.param("reconcile.moved", marks=pytest.mark.slow),
    ],
)
async def test_a_worker_that_dies_in_a_poll_loses_nothing_and_repeats_nothing(
    vendor: StampedVendor, road: Road, app_folder: Path, place: str
) -> None:
    write_app(app_folder, vendor, reconcile='every = "1s"')
    started = "SELECT count(*) FROM circuit.reconcile_cursors WHERE claimed IS NULL AND polled_at IS NOT NULL"
    async with process(app_folder, road.url):
        await road.until(started, [1])
    ids = [vendor.make("Contact", {"firstName": f"N{number}"}) for number in range(120)]
    async with process(app_folder, road.url, f"{place}=kill@2") as first:
        assert await asyncio.wait_for(first.wait(), PATIENCE) == -signal.SIGKILL
    assert await road.rows("SELECT claimed > now() FROM circuit.reconcile_cursors") == [True]
    await road.run("UPDATE circuit.reconcile_cursors SET claimed = now() - interval '1 second'")
    async with process(app_folder, road.url):
        await road.until(NOTES.replace("data ->> 'about', data ->> 'said'", "count(*)"), [120])
        await road.until("SELECT cursor > now() - interval '1 hour' AND trouble IS NULL AND NOT more "
                         "FROM circuit.reconcile_cursors WHERE claimed IS NULL", [True])  # fmt: skip
        await road.done()
    assert await road.rows(FED) == [120]
    notes = Counter([tuple(each) for each in await road.rows(NOTES)])
    assert notes == {(id_, f"N{number}"): 1 for number, id_ in enumerate(ids)}


async def test_the_command_says_what_it_would_do_and_does_it(
    stage: Stage, app_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", stage.road.url)
    stage.vendor.make("Contact", {"firstName": "Anna"})

    async def said(**options: Any) -> dict[str, Any]:
        capsys.readouterr()
        asked = {"connector": None, "tenant": None, "since": "2h", "dry_run": False, "folder": app_folder}
        await asyncio.to_thread(command.run, **{**asked, **options}, as_json=True)
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    (dry,) = (await said(dry_run=True))["polls"]
    assert (dry["read"], dry["inserts"], dry["found"]) == (1, 1, 1)
    assert await stage.road.rows("SELECT count(*) FROM circuit.reconcile_cursors") == [0]
    assert await stage.road.rows(FED) == [0]
    (done,) = (await said(connector="toy"))["polls"]
    assert (done["inserts"], done["note"]) == (1, "")
    (again,) = (await said(since=""))["polls"]
    assert again["found"] == 0
    await stage.road.done()
    assert len(await stage.notes()) == 1
    assert (await said(connector="webhook"))["polls"] == []


async def test_back_means_from_there_on(stage: Stage) -> None:
    await stage.poll()
    long_ago = stage.vendor.make("Contact", {"firstName": "Anna", STAMP: "2020-01-01T00:00:00Z"})
    assert (await stage.poll()).found == 0
    assert (await stage.poll(back=timedelta(days=365 * 100))).found == 1
    await stage.road.done()
    assert await stage.notes() == {(long_ago, "Anna"): 1}
