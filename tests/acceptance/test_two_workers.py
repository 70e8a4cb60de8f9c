"""Two workers on one database: one dies, one is frozen for longer than its lease. Nothing is done twice."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, running, write_app
from tests.acceptance.promises import TALLY, hooks, kept
from tests.acceptance.vendor import Load, Receiver, contact_stream
from tests.servers import until

LEASE = "lease = 1\nbackoff = 0.05"


@pytest.fixture
def hosts(app_folder: Path, database: str, vendor: Vendor, receiver: Receiver) -> Iterator[list[Platform]]:
    """Two workers, and a gateway in front of them, as three hosts would have them."""
    with contextlib.ExitStack() as stack:
        started = []
        for name, role in (("one", "worker"), ("two", "worker"), ("door", "gateway")):
            folder = app_folder / name
            port = write_app(folder, TALLY, public_key=vendor.public_key, worker=LEASE, more=hooks(receiver))
            started.append(stack.enter_context(running(Platform(folder, port, database, ["--role", role]))))
        until(lambda: owners(started[2]) == 2, "both workers own lanes")
        yield started


def owners(platform: Platform) -> int:
    return int(platform.value("SELECT count(DISTINCT owner) FROM circuit.lanes WHERE owner IS NOT NULL"))


def owned_by(platform: Platform, worker: Platform) -> int:
    """How many lanes the worker has."""
    statement = "SELECT count(*) FROM circuit.lanes l JOIN circuit.workers w ON w.id = l.owner WHERE w.pid = %s"
    return int(platform.value(statement, worker.process.pid))


def test_one_frozen_beyond_its_lease_is_fenced_and_one_killed_is_replaced(
    hosts: list[Platform], vendor: Vendor, receiver: Receiver, chance: random.Random
) -> None:
    one, two, door = hosts
    streams = [contact_stream(vendor, 6, poison=each == 0) for each in range(60)]
    with Load(door.port, streams) as load:
        load.wait_for(chance.uniform(0.1, 0.6))
        with frozen(one):
            until(lambda: owned_by(door, two) == 64, "the other has taken its lanes", 30)
            load.wait_for(1.0)
            door.wait_settled()
        until(lambda: owned_by(door, one) > 0, "the frozen one has lanes again", 30)
    with Load(door.port, [contact_stream(vendor, 6) for _ in range(60)]) as more:
        more.wait_for(chance.uniform(0.1, 0.8))
        two.process.kill()
        two.process.wait()
        more.wait_for(1.0)
    door.wait_settled()
    assert owned_by(door, one) == 64
    load.acknowledged += more.acknowledged
    kept(door, load, receiver, poisoned={streams[0][0].contact})


@contextlib.contextmanager
def frozen(worker: Platform) -> Iterator[None]:
    """The worker alone is stopped: its children finish what they were given, and nobody hears of it."""
    process = psutil.Process(worker.process.pid)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
