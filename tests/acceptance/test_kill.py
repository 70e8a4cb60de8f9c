"""`kill -9` of every process at random moments under load: nothing acknowledged is lost, doubled or overtaken."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, served
from tests.acceptance.promises import TALLY, hooks, kept
from tests.acceptance.vendor import Load, Receiver, Sent, contact_stream, make_vendor, receiving
from tests.servers import Server

ROLES = ("gateway", "worker", "zygote", "child")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def platform(embedded_server: Server, receiver: Receiver) -> Iterator[Platform]:
    """One for all: each test also finds what those before it left."""
    with served(embedded_server, TALLY, public_key=make_vendor().public_key, more=hooks(receiver)) as started:
        yield started


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    vendor = make_vendor()
    vendor.random.seed(chance.random())  # else each test's contacts would be the last one's
    return vendor


def streams_of(vendor: Vendor, contacts: int, steps: int) -> list[list[Sent]]:
    """The first contact's step 2 raises each time: a death among the living."""
    return [contact_stream(vendor, steps, poison=number == 0) for number in range(contacts)]


def moments(chance: random.Random, rounds: int) -> list[float]:
    return sorted(chance.uniform(0.05, 0.9) for _ in range(rounds))


def strike(platform: Platform, load: Load, role: str, shares: list[float], chance: random.Random) -> None:
    """Kill a process of the role each time another share of the load is acknowledged."""
    for share in shares:
        load.wait_for(share)
        first = platform.one(role)
        with suppress(psutil.NoSuchProcess):
            chance.choice(platform.find(role) or [first]).kill()


@pytest.mark.parametrize("role", ROLES)
def test_what_was_acknowledged_survives_the_death_of_each_process(
    platform: Platform, vendor: Vendor, receiver: Receiver, chance: random.Random, role: str
) -> None:
    streams = streams_of(vendor, contacts=40, steps=6)
    with Load(platform.port, streams) as load:
        strike(platform, load, role, moments(chance, 3), chance)
        load.wait_for(1.0)
    platform.wait_settled()
    kept(platform, load, receiver, poisoned={streams[0][0].contact})


def test_a_killed_supervisor_takes_its_processes_along_and_starts_again(
    platform: Platform, vendor: Vendor, receiver: Receiver, chance: random.Random
) -> None:
    streams = streams_of(vendor, contacts=40, steps=6)
    with Load(platform.port, streams) as load:
        for share in moments(chance, 2):
            load.wait_for(share)
            platform.process.kill()
            platform.process.wait()
            platform.start()
        load.wait_for(1.0)
    platform.wait_settled()
    kept(platform, load, receiver, poisoned={streams[0][0].contact})


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(5))
def test_deaths_of_everything_in_any_order(
    platform: Platform, vendor: Vendor, receiver: Receiver, chance: random.Random, turn: int
) -> None:
    streams = streams_of(vendor, contacts=200, steps=10)
    with Load(platform.port, streams) as load:
        for share in moments(chance, 12):
            strike(platform, load, chance.choice(ROLES), [share], chance)
        load.wait_for(1.0)
    platform.wait_settled(120)
    kept(platform, load, receiver, poisoned={streams[0][0].contact})
