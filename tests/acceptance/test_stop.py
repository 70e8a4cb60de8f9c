"""Stopping: SIGTERM lets what runs finish, a second Ctrl-C does not wait, and one folder has one platform."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator

import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import COMMAND, START, Platform, environment, left_behind, served
from tests.acceptance.promises import kept
from tests.acceptance.vendor import Load, contact_stream, make_vendor, send_all
from tests.servers import Server, until

# Says that it has begun, outside of the road, and goes on until it is allowed to end.
SLOW = """
import asyncio
from pathlib import Path

from circuit_script import CircuitDB, CircuitTrigger, trigger

HERE = Path(__file__).parent


class Slow(CircuitTrigger):
    @trigger("Contact", ["afterInsert"])
    async def count(self, context):
        (HERE / "begun").touch()
        while not (HERE / "go").exists():
            await asyncio.sleep(0.01)
        rows = [
            {"contactId": contact["id"], "step": contact["step"], "event": event["id"]}
            for contact, event in zip(context.new_records, context.events)
        ]
        await CircuitDB.insert("Tally", rows)
"""


@pytest.fixture(scope="module")
def stoppable(embedded_server: Server) -> Iterator[Platform]:
    with served(embedded_server, SLOW, measured=True, public_key=make_vendor().public_key) as started:
        yield started


@pytest.fixture
def platform(stoppable: Platform) -> Platform:
    """It runs, and the next execution will wait for leave to end."""
    for name in ("begun", "go"):
        (stoppable.folder / "app" / name).unlink(missing_ok=True)
    return stoppable if stoppable.process.poll() is None else stoppable.start()


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    vendor = make_vendor()
    vendor.random.seed(chance.random())
    return vendor


def begin(platform: Platform, vendor: Vendor) -> Load:
    """One event whose handler is now in the middle."""
    load = send_all(platform.port, contact_stream(vendor, 1))
    until((platform.folder / "app" / "begun").exists, "the handler runs")
    return load


def test_a_second_platform_in_the_same_folder_is_refused_and_the_first_goes_on(
    platform: Platform, vendor: Vendor
) -> None:
    command = [COMMAND, "serve", "--folder", str(platform.folder)]
    ran = subprocess.run(
        command, env=environment(platform.database), capture_output=True, text=True, timeout=START, check=False
    )
    assert ran.returncode == 1
    assert f"kill {platform.process.pid}" in ran.stderr, "it names whom to stop"
    (platform.folder / "app" / "go").touch()
    load = send_all(platform.port, contact_stream(vendor, 1))
    platform.wait_settled()
    kept(platform, load, None)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_what_runs_is_finished_and_settled_before_the_end(
    platform: Platform, vendor: Vendor, asked: signal.Signals
) -> None:
    load = begin(platform, vendor)
    if asked is signal.SIGINT:
        platform.interrupt()
    else:
        platform.signal(asked)
    until(lambda: not platform.find("gateway"), "the door is closed first")
    assert platform.find("child"), f"the handler still runs:\n{platform.log()}"
    (platform.folder / "app" / "go").touch()
    assert platform.wait() == 0
    assert left_behind(platform.folder) == []
    kept(platform, load, None)
    assert platform.value("SELECT count(*) FROM circuit.workers") == 0, "its lanes are free for the next"


def test_a_second_ctrl_c_ends_everything_at_once_and_the_next_start_goes_on(platform: Platform, vendor: Vendor) -> None:
    load = begin(platform, vendor)
    platform.interrupt()
    until(lambda: "again to stop at once" in platform.log(), "it says that it waits")
    platform.interrupt()
    assert platform.wait(10) == 130
    until(lambda: left_behind(platform.folder) == [], "nothing runs any more")
    assert "Traceback" not in platform.log()
    (platform.folder / "app" / "go").touch()
    platform.start()
    platform.wait_settled()
    kept(platform, load, None)
