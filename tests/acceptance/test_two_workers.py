"""Two workers on one database: one dies, one is frozen for longer than its lease. Nothing is done twice."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from circuit_script.cli.demo.vendor import Vendor
from circuit_script.events.lanes import LANES
from tests.acceptance.platform import Platform, three_hosts
from tests.acceptance.promises import TALLY, hooks, kept
from tests.acceptance.vendor import Load, Receiver, contact_stream
from tests.servers import until


@pytest.fixture
def hosts(app_folder: Path, database: str, vendor: Vendor, receiver: Receiver) -> Iterator[list[Platform]]:
    with three_hosts(app_folder, database, TALLY, public_key=vendor.public_key, more=hooks(receiver)) as started:
        until(lambda: owners(started[2]) == 2, "both workers own lanes")
        yield started


def owners(platform: Platform) -> int:
    return int(platform.value("SELECT count(DISTINCT owner) FROM circuit.lanes WHERE owner IS NOT NULL"))


def owned_by(platform: Platform, worker: Platform) -> int:
    """How many lanes the worker has."""
    statement = "SELECT count(*) FROM circuit.lanes l JOIN circuit.workers w ON w.id = l.owner WHERE w.pid = %s"
    return int(platform.value(statement, worker.process.pid))


def owns_all(platform: Platform, worker: Platform) -> bool:
    return owned_by(platform, worker) == LANES


def test_one_frozen_beyond_its_lease_is_fenced_and_one_killed_is_replaced(
    hosts: list[Platform], vendor: Vendor, receiver: Receiver, chance: random.Random
) -> None:
    one, two, door = hosts
    streams = [contact_stream(vendor, 6, poison=each == 0) for each in range(60)]
    with Load(door.port, streams) as load:
        load.wait_for(chance.uniform(0.1, 0.6))
        with frozen(one):
            until(partial(owns_all, door, two), "the other has taken its lanes", 30)
            load.wait_for(1.0)
            door.wait_settled()
        until(lambda: owned_by(door, one) > 0, "the frozen one has lanes again", 30)
        assert "lanes_lost" in one.log()
    with Load(door.port, [contact_stream(vendor, 6) for _ in range(60)]) as more:
        more.wait_for(chance.uniform(0.1, 0.8))
        two.process.kill()
        two.process.wait()
        more.wait_for(1.0)
    door.wait_settled()
    assert owns_all(door, one)
    load.acknowledged += more.acknowledged
    kept(door, load, receiver, poisoned={streams[0][0].contact})


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_lanes_that_go_to_and_fro_for_long(
    hosts: list[Platform], vendor: Vendor, receiver: Receiver, chance: random.Random, turn: int
) -> None:
    *workers, door = hosts
    streams = [contact_stream(vendor, 10, poison=each == 0) for each in range(300)]
    with Load(door.port, streams, senders=4) as load:
        for share in sorted(chance.uniform(0.02, 0.8) for _ in range(10)):
            load.wait_for(share)
            chosen, other = chance.sample(workers, 2)
            with frozen(chosen):
                if chance.random() < 0.5:
                    until(partial(owns_all, door, other), "the other has its lanes", 30)
                else:
                    load.wait_for(min(1.0, share + 0.02))
        load.wait_for(1.0)
    door.wait_settled(120)
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
