"""Releases that move under load: deployed, taken back, again and again, and a worker killed in between."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from circuit_script.cli.demo.vendor import Vendor
from circuit_script.releases.moving import go_live
from tests.acceptance.platform import Platform, answers, running, three_hosts, write_app
from tests.acceptance.promises import hooks, kept
from tests.acceptance.team import MARKED, WRONG, Team, handled, stale_of
from tests.acceptance.vendor import Load, Receiver, contact_stream, send_all
from tests.servers import until

SAYS = """
from circuit_script import CircuitDB, trigger

WORD = "first"


@trigger("Contact", ["afterInsert"])
async def say(context):
    await CircuitDB.insert("Said", [{"word": WORD} for _ in context.new_records])
"""
ASKED = """

from circuit_script import endpoint


@endpoint("word", methods=["GET"], auth="none")
async def word():
    return {"word": WORD}
"""
SAID = "SELECT data ->> 'word' FROM circuit.records WHERE object = 'Said' ORDER BY created_at"
LIVE = "SELECT release FROM circuit.live"
SENDERS = 8


@pytest.fixture
def hosts(app_folder: Path, database: str, vendor: Vendor, receiver: Receiver) -> Iterator[list[Platform]]:
    with three_hosts(app_folder, database, MARKED, public_key=vendor.public_key, more=hooks(receiver)) as started:
        yield started


@pytest.mark.parametrize(
    ("contacts", "turns", "kills"), [(300, 6, 1), pytest.param(2500, 40, 4, marks=pytest.mark.slow)]
)
def test_nothing_is_lost_doubled_or_taken_by_the_wrong_release_while_releases_go_to_and_fro(
    hosts: list[Platform],
    vendor: Vendor,
    receiver: Receiver,
    chance: random.Random,
    database: str,
    app_folder: Path,
    contacts: int,
    turns: int,
    kills: int,
) -> None:
    one, two, door = hosts
    folder = app_folder / "team"
    write_app(folder, MARKED, public_key=vendor.public_key, more=hooks(receiver))
    team = Team(folder, database)
    first, second = team.put("v1"), team.put("v2")
    seconds = [team.warm(first)]
    done = [team.move(first, "deploy")]
    seconds.append(team.warm(second))

    streams = [contact_stream(vendor, 6, poison=each == 0) for each in range(contacts)]
    began, killed = time.monotonic(), set(chance.sample(range(2, turns - 2), kills))
    with Load(door.port, streams, senders=SENDERS) as load:
        for number in range(turns):
            wanted = load.size * (number + 1) // (turns + 2)
            until(partial(handled, door, wanted), f"{wanted} events are handled", 120)
            if number in killed:
                victim = chance.choice([one, two])
                victim.process.kill()
                victim.process.wait()
                victim.start(wait=False)
            done.append(team.move((second, first)[number % 2], "rollback" if number % 2 else "deploy"))
            if number in killed:
                victim.wait_ready()
        load.wait_for(1.0)
    rate = len(load.acknowledged) / (time.monotonic() - began)
    door.wait_settled(120)
    kept(door, load, receiver, poisoned={streams[0][0].contact})

    assert door.value(WRONG) == 0, "an execution ran other code than that of its release"
    counts = dict(door.rows("SELECT release, count(*) FROM circuit.executions GROUP BY release"))
    assert counts[first.id] > 0
    assert counts[second.id] > 0
    found = stale_of(team, done[1:])
    print(
        f"\n{len(load.acknowledged)} deliveries, {rate:.0f}/s, {len(done)} moves, {kills} workers killed: "
        f"lost 0, doubled 0; executions by release {counts}; last start of the release before, ms after the move: "
        f"{[round(each) for each in found]}; ready after {[round(each, 1) for each in seconds]} s"
    )
    assert max(found) < 1000.0, found


def test_a_worker_that_is_killed_while_it_prepares_has_it_ready_when_it_is_back(
    app_folder: Path, database: str, vendor: Vendor
) -> None:
    failpoints, folder, other = app_folder / "failpoints", app_folder / "app", app_folder / "team"
    failpoints.mkdir()
    port = write_app(folder, SAYS, public_key=vendor.public_key)
    write_app(other, SAYS, public_key=vendor.public_key)
    team = Team(other, database)
    with running(Platform(folder, port, database, more={"CIRCUIT_FAILPOINTS": str(failpoints)})) as platform:
        first = platform.one("worker").pid
        row = team.put("v1")
        (failpoints / "release.prepare").write_text("kill")
        team.warm(row, workers=1)
        assert platform.one("worker").pid != first
        assert not (failpoints / "release.prepare").exists()
        team.move(row, "deploy")
        send_all(port, contact_stream(vendor, 1))
        until(lambda: platform.rows(SAID) == [("v1",)], "the new release handles it")


def test_the_gateway_offers_the_endpoints_of_what_is_live(app_folder: Path, database: str, vendor: Vendor) -> None:
    folder, other = app_folder / "app", app_folder / "team"
    port = write_app(folder, SAYS, public_key=vendor.public_key)
    write_app(other, SAYS + ASKED, public_key=vendor.public_key)
    team = Team(other, database)
    with running(Platform(folder, port, database)) as platform:
        own = platform.value(LIVE)
        assert answers(port, "/api/word") == 404
        row = team.put("v1")
        team.warm(row, workers=1)
        team.move(row, "deploy")
        until(lambda: answers(port, "/api/word") == 200, "the endpoint of the new release answers")
        team.do(lambda connection: go_live(connection, own, kind="rollback", by="anna"))
        until(lambda: answers(port, "/api/word") == 404, "it is gone with its release")


@pytest.mark.slow
def test_serve_runs_what_was_deployed_until_somebody_asks_for_the_folder(
    app_folder: Path, database: str, vendor: Vendor
) -> None:
    folder, other = app_folder / "app", app_folder / "team"
    port = write_app(folder, SAYS, public_key=vendor.public_key)
    write_app(other, SAYS, public_key=vendor.public_key)
    team = Team(other, database)
    row = team.put("v1")
    team.move(row, "deploy")
    with running(Platform(folder, port, database)) as platform:
        assert platform.value(LIVE) == row.id
        assert "what the folder holds is not run" in platform.log()
        send_all(port, contact_stream(vendor, 1))
        until(lambda: platform.rows(SAID) == [("v1",)], "what was deployed handles it")
        assert platform.stop() == 0
    with running(Platform(folder, port, database, ["--folder-release"])) as platform:
        own = platform.value(LIVE)
        assert own != row.id
        assert platform.value("SELECT kind FROM circuit.moves ORDER BY id DESC LIMIT 1") == "folder"
        send_all(port, contact_stream(vendor, 1))
        until(lambda: platform.rows(SAID) == [("v1",), ("first",)], "the folder's app handles it")
        team.move(row, "rollback")
        worker = platform.one("worker")
        worker.kill()
        worker.wait()
        until(lambda: any(each.pid != worker.pid for each in platform.find("worker")), "it is started again")
        send_all(port, contact_stream(vendor, 1))
        until(lambda: platform.rows(SAID) == [("v1",), ("first",), ("v1",)], "one that restarts follows what is live")
        assert platform.value(LIVE) == row.id
