from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.events.lanes import LANES, Lanes, this_host
from tests.road import Road, open_road


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        yield made


@pytest.fixture
async def connection(road: Road) -> AsyncIterator[Connection]:
    made = await road.connect()
    yield made
    await made.close()


async def expire(road: Road, lanes: Lanes) -> None:
    """As if the worker had stood still for longer than its lease."""
    await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 second' WHERE id = %s", lanes.worker)


async def test_the_first_worker_takes_every_lane(connection: Connection) -> None:
    lanes = Lanes(uuid7(), 10)
    assert not lanes.valid

    change = await lanes.beat(connection)

    assert lanes.valid
    assert set(change.won) == set(lanes.held) == set(range(LANES))
    assert (change.lost, change.owed) == (frozenset(), 0)
    assert set(lanes.held.values()) == {1}
    assert (await lanes.beat(connection)).won == {}


@pytest.mark.every_server
async def test_two_workers_share_when_the_first_gives_what_it_owes(connection: Connection) -> None:
    first, second = Lanes(uuid7(), 10), Lanes(uuid7(), 10)
    await first.beat(connection)
    assert (await second.beat(connection)).won == {}

    owed = (await first.beat(connection)).owed
    assert owed == LANES // 2
    await first.release(connection, {lane: first.held[lane] for lane in range(owed)})
    won = (await second.beat(connection)).won

    assert set(won) == set(range(owed))
    assert set(first.held).isdisjoint(second.held)
    assert len(first.held) == len(second.held) == LANES // 2
    assert (await first.beat(connection)).owed == 0


@pytest.mark.every_server
async def test_lanes_of_an_expired_worker_are_taken_with_a_higher_epoch(road: Road, connection: Connection) -> None:
    gone, heir = Lanes(uuid7(), 10), Lanes(uuid7(), 10)
    await gone.beat(connection)
    await gone.mark(connection, {3: 41})
    await expire(road, gone)

    won = (await heir.beat(connection)).won

    assert len(won) == LANES
    assert won[3] == 41
    assert won[4] == 0
    assert heir.held[3] == gone.held[3] + 1
    change = await gone.beat(connection)
    assert change.lost == frozenset(range(LANES))
    assert gone.held == {}


async def test_an_expired_worker_that_nobody_replaced_keeps_its_lanes(road: Road, connection: Connection) -> None:
    lanes = Lanes(uuid7(), 10)
    await lanes.beat(connection)
    before = dict(lanes.held)
    await expire(road, lanes)

    change = await lanes.beat(connection)

    assert (change.won, change.lost, lanes.held) == ({}, frozenset(), before)


async def test_a_lane_lost_and_won_back_counts_as_both(road: Road, connection: Connection) -> None:
    lanes, other = Lanes(uuid7(), 10), Lanes(uuid7(), 10)
    await lanes.beat(connection)
    await expire(road, lanes)
    await other.beat(connection)
    await other.leave(connection)

    change = await lanes.beat(connection)

    assert change.lost == frozenset(range(LANES))
    assert set(change.won) == set(range(LANES))
    assert set(lanes.held.values()) == {3}


async def test_lanes_that_were_taken_by_a_beat_whose_answer_got_lost_are_won_by_the_next(
    connection: Connection,
) -> None:
    unlucky = Lanes(uuid7(), 10)
    await unlucky.beat(connection)
    reborn = Lanes(unlucky.worker, 10)

    change = await reborn.beat(connection)

    assert set(change.won) == set(range(LANES)), "the database says they are ours, so somebody must read them"
    assert reborn.held == unlucky.held


async def test_workers_that_start_in_the_same_moment_rob_each_other_of_nothing(road: Road) -> None:
    connections = [await road.connect() for _ in range(4)]
    for _ in range(10):
        workers = [Lanes(uuid7(), 10) for _ in connections]

        await asyncio.gather(*(each.beat(there) for each, there in zip(workers, connections, strict=True)))

        owners = await road.rows("SELECT owner, epoch, lane FROM circuit.lanes WHERE owner IS NOT NULL")
        assert sorted(owners) == sorted((each.worker, each.held[lane], lane) for each in workers for lane in each.held)
        for each, there in zip(workers, connections, strict=True):
            await each.leave(there)
    for there in connections:
        await there.close()


async def test_leaving_frees_the_lanes_at_once(connection: Connection, road: Road) -> None:
    leaving, staying = Lanes(uuid7(), 1000), Lanes(uuid7(), 10)
    await leaving.beat(connection)
    await leaving.leave(connection)

    assert leaving.held == {}
    assert len((await staying.beat(connection)).won) == LANES
    assert await road.rows("SELECT id FROM circuit.workers") == [staying.worker]


@pytest.mark.every_server
async def test_what_a_fenced_worker_releases_or_marks_changes_nothing(road: Road, connection: Connection) -> None:
    fenced, owner = Lanes(uuid7(), 10), Lanes(uuid7(), 10)
    await fenced.beat(connection)
    await expire(road, fenced)
    await owner.beat(connection)

    await fenced.mark(connection, {5: 99})
    await fenced.release(connection, dict(fenced.held))

    assert await road.rows("SELECT owner, low_water FROM circuit.lanes WHERE lane = 5") == [(owner.worker, 0)]
    assert (await owner.beat(connection)).lost == frozenset()


async def test_low_water_only_rises(road: Road, connection: Connection) -> None:
    lanes = Lanes(uuid7(), 10)
    await lanes.beat(connection)

    for low in (7, 3, 9):
        await lanes.mark(connection, {1: low})

    assert await road.rows("SELECT low_water FROM circuit.lanes WHERE lane IN (1, 2) ORDER BY lane") == [9, 0]


async def test_sleeping_is_told_to_the_gateways(road: Road, connection: Connection) -> None:
    lanes = Lanes(uuid7(), 10)
    await lanes.beat(connection)

    asleep = []
    for wanted in (True, True, False):
        await lanes.sleep(connection, wanted)
        asleep += await road.rows("SELECT asleep FROM circuit.workers")

    assert asleep == [True, True, False]


async def test_workers_that_died_long_ago_are_forgotten(road: Road, connection: Connection) -> None:
    await road.run(
        "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, 'x', 1, now() - interval '2 hours')",
        uuid7(),
    )
    lanes = Lanes(uuid7(), 10)

    await lanes.beat(connection)

    assert await road.rows("SELECT id FROM circuit.workers") == [lanes.worker]


@pytest.mark.parametrize(("host", "free"), [("this", True), ("another", False)])
async def test_the_lanes_of_a_killed_worker_are_free_at_once_on_its_host_only(
    connection: Connection, host: str, free: bool
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed, successor = Lanes(uuid7(), 60), Lanes(uuid7(), 60)
    await killed.beat(connection)
    named = this_host() if host == "this" else host
    await connection.execute("UPDATE circuit.workers SET pid = %s, host = %s", [ended.pid, named])

    await successor.beat(connection)

    assert len(successor.held) == (LANES if free else 0)
