"""SIGHUP to `serve`: the app's files as they are now, or, when they cannot be run, what ran before."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import psutil
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.servers import Server, until

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import CircuitDB, trigger

WORD = "first"


@trigger("Contact", ["afterInsert"])
async def greet(context):
    await CircuitDB.insert("Greeting", [{"contactId": each["id"], "word": WORD} for each in context.new_records])
"""
GREETED = "SELECT data ->> 'word' FROM circuit.records WHERE object = 'Greeting' ORDER BY created_at DESC LIMIT 1"


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with served(embedded_server, TRIGGERS, public_key=make_vendor().public_key) as started:
        yield started


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    vendor = make_vendor()
    vendor.random.seed(chance.random())
    return vendor


def greeted(platform: Platform, vendor: Vendor) -> str:
    """The word with which the next contact is greeted."""
    send_all(platform.port, contact_stream(vendor, 1))
    platform.wait_settled()
    return str(platform.value(GREETED))


def save(platform: Platform, text: str) -> None:
    (platform.folder / "app" / "triggers.py").write_text(text)


def test_serve_runs_what_is_saved_when_it_is_told_to(platform: Platform, vendor: Vendor) -> None:
    gateway, worker = platform.one("gateway").pid, platform.one("worker").pid
    save(platform, TRIGGERS.replace('"first"', '"second"'))
    assert greeted(platform, vendor) == "first", "serve follows no files"
    platform.signal(signal.SIGHUP)
    until(lambda: "release.live" in platform.log(), "the other release is live")
    assert greeted(platform, vendor) == "second"
    assert (platform.one("gateway").pid, platform.one("worker").pid) == (gateway, worker), "nothing was restarted"


def test_serve_goes_on_when_what_is_saved_cannot_run(platform: Platform, vendor: Vendor) -> None:
    before = greeted(platform, vendor)
    save(platform, "import not_there_at_all\n")
    platform.signal(signal.SIGHUP)
    until(lambda: "release.refused" in platform.log(), "it says so")
    assert "app/triggers.py:1" in platform.log()
    assert greeted(platform, vendor) == before


@pytest.mark.slow
def test_files_that_changed_are_not_run_unasked_after_their_host_died(platform: Platform, vendor: Vendor) -> None:
    save(platform, TRIGGERS.replace('"first"', '"third"'))
    for zygote in platform.find("zygote"):
        zygote.kill()
    send_all(platform.port, contact_stream(vendor, 1))
    until(lambda: "kill -HUP" in platform.log(), "it says what to do")
    named = int(platform.log().rpartition("kill -HUP ")[2].split()[0])
    assert named == platform.one("worker").pid
    psutil.Process(named).send_signal(signal.SIGHUP)
    platform.wait_settled()
    assert platform.value(GREETED) == "third"
