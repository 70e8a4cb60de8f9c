"""Events that wait for their recorded release, while everything else goes on."""

from __future__ import annotations

import asyncio

import pytest

from circuit_script.clock import uuid7
from circuit_script.events.executions import PREPARING
from circuit_script.events.hosts import Host
from tests.road import PATIENCE, SCORE, Road, contact, happens

LONG = 10 * PATIENCE  # seconds
REPLAY = "INSERT INTO circuit.replays (id, status, filter, by_whom, rate, release) "


class Importing:
    """A recorded release that is imported without end."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0

    def find(self, release: int) -> Host | None:
        return None

    async def prepare(self, release: int) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


@pytest.fixture
def importing() -> Importing:
    return Importing()


async def waits_for_its_release(road: Road, *records: str) -> None:
    """Events of these records as they stand in the queue when they are replayed through a recorded release."""
    release, replay = await road.live(SCORE), uuid7()
    await road.run(f"{REPLAY} VALUES (%s, 'running', '{{}}', 'ann', 1, %s)", replay, release.id)
    await road.take_in(*map(contact, records))
    await road.run("UPDATE circuit.queue SET replay = %s", replay)


async def test_a_lane_in_which_events_only_wait_for_their_release_is_given_away(
    road: Road, importing: Importing
) -> None:
    await waits_for_its_release(road, *(f"c{n}" for n in range(300)))
    first = await road.start(lease=2.0, drain=LONG, recorded=importing)
    await happens(lambda: importing.waiting > 0, "they wait")

    second = await road.start(lease=2.0, drain=LONG, recorded=Importing())
    await happens(lambda: len(second.lanes.held) == len(first.lanes.held) == 32, "it keeps them")


async def test_a_worker_that_stops_does_not_wait_for_a_release(road: Road, importing: Importing) -> None:
    await waits_for_its_release(road, "a")
    worker = await road.start(drain=LONG, recorded=importing)
    await happens(lambda: importing.waiting == 1, "it waits")

    await asyncio.wait_for(worker.stop(), PATIENCE)

    assert await road.rows("SELECT record FROM circuit.queue") == ["a"]


async def test_what_waits_for_a_release_is_bounded_and_live_events_go_on(road: Road, importing: Importing) -> None:
    await waits_for_its_release(road, *(f"c{n}" for n in range(3 * PREPARING)))
    await road.run("UPDATE circuit.queue SET depth = substring(record from 2)::integer")  # each a batch of its own
    worker = await road.start(recorded=importing)
    await happens(lambda: importing.waiting == PREPARING, "they wait")

    await road.take_in(contact("live"))
    await happens(lambda: "live" in worker.children.handled, "it waits with them")

    assert importing.most == PREPARING
