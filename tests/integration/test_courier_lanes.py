"""What is on its way to a vendor when its lane goes to another worker: told first, sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Delivery, Effect, InDoubt, Operation
from circuit_script.effects import courier as couriers
from circuit_script.effects.courier import Courier
from circuit_script.effects.due import Due, Group
from circuit_script.effects.results import DONE_AFTER_ALL, Told, mark, settle
from circuit_script.errors import LetterRefused
from circuit_script.events.letters.doubt import Decision, find_doubt, settle_doubt
from circuit_script.events.letters.story import answers_of
from tests.integration.courier_vendor import PATIENCE, Office, Vendor
from tests.road import SCORE, Road, Worker, happens, open_road


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


class Slow(Vendor):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        done = await super().deliver(operation, effects)
        await self.may.wait()
        return done


async def delivering(road: Road, vendor: Vendor) -> tuple[Worker, asyncio.Task[None]]:
    worker = await road.start()
    worker.courier._connectors = {vendor.name: vendor}
    return worker, asyncio.create_task(worker.courier.run())


async def test_a_worker_that_stops_keeps_its_lanes_until_what_vendors_answer_is_told(road: Road) -> None:
    await Office(road).effect(1)
    vendor = Slow()

    worker, courier = await delivering(road, vendor)
    await happens(lambda: bool(vendor.got), "it does not leave")
    worker.courier.stop()
    worker.dispatcher.stop()
    await asyncio.wait({worker.task}, timeout=0.5)  # it must not end; if it does, the rest finds out
    vendor.may.set()
    await asyncio.wait_for(asyncio.gather(worker.task, courier), PATIENCE)

    assert await road.rows("SELECT status, attempts FROM circuit.effects") == [("delivered", 1)]
    assert await road.rows("SELECT count(*) FROM circuit.lanes WHERE owner IS NOT NULL") == [0]


async def test_lanes_of_which_something_is_on_its_way_go_to_a_new_worker_when_it_has_come_back(road: Road) -> None:
    office, vendor = Office(road), Slow()
    for n in range(64):
        await office.effect(n)

    first, courier = await delivering(road, vendor)
    await happens(lambda: len(first.courier.busy_lanes()) == 64, "they do not leave")
    second, other = await delivering(road, vendor)
    await happens(lambda: bool(first.dispatcher._leaving or second.lanes.held), "it gives nothing")
    await office.effect(64, key=63)
    vendor.may.set()
    await road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [65])
    await happens(lambda: len(second.lanes.held) == 32, "it got no lanes")
    for each in (first, second):
        each.courier.stop()
    await asyncio.wait_for(asyncio.gather(courier, other), PATIENCE)

    assert sorted(vendor.got) == list(range(65))
    assert await road.rows("SELECT DISTINCT attempts FROM circuit.effects") == [1]


async def test_what_was_read_too_long_ago_is_not_sent(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(road)
    await office.hold()
    held = dict.fromkeys(range(64), 1)
    read = asyncio.Event()
    real = couriers.read_due

    async def slow(*asked: object) -> list[Due]:
        due = await real(*asked)  # type: ignore[arg-type]
        if due:
            held.clear()  # the lease ended meanwhile
            read.set()
        return due

    monkeypatch.setattr(couriers, "read_due", slow)
    vendor = Vendor()
    async with office.delivering(vendor) as courier:
        courier._held = lambda: held
        await office.effect(1)
        await asyncio.wait_for(read.wait(), PATIENCE)
        rounds = courier._rounds
        await happens(lambda: courier._rounds > rounds + 1, "it stands still")

    assert vendor.got == []


async def test_what_loses_its_lane_between_mark_and_request_is_not_sent(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(road)
    await office.hold()
    running: list[Courier] = []

    class Charging(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
            raise AssertionError("another worker has it")

    async def marked(*asked: object) -> set[object]:
        due: list[Due] = asked[1]  # type: ignore[assignment]
        found = await mark(*asked)  # type: ignore[arg-type]
        running[0]._held = dict
        return {*found, *(each.effect.id for each in due)}

    monkeypatch.setattr("circuit_script.effects.carry.mark", marked)
    await office.effect(1)
    vendor = Charging(in_doubt=InDoubt.ASK_A_PERSON)
    async with office.delivering(vendor) as courier:
        running.append(courier)
        await happens(lambda: not courier._held(), "nothing was marked")
        await happens(lambda: not courier.busy_lanes(), "it is not given back")

    assert await road.rows("SELECT status, left_at FROM circuit.effects") == [("pending", None)]


async def test_what_was_put_in_doubt_meanwhile_is_done_if_the_slow_worker_hears_so(road: Road) -> None:
    office, vendor = Office(road), Slow()
    vendor.operations = {"post": Operation(InDoubt.ASK_A_PERSON)}
    await office.hold()
    await office.effect(1)
    other = uuid7()

    async with office.delivering(vendor):
        await happens(lambda: bool(vendor.got), "it does not leave")
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 2", other)
        await road.run("UPDATE circuit.effects SET status = 'in_doubt', attempts = 1, settled_at = now()")
        vendor.may.set()
        await office.until("delivered")

    assert vendor.got == [1]


async def test_what_a_person_discarded_in_doubt_says_that_it_was_done_when_the_slow_worker_hears_so(
    road: Road,
) -> None:
    office, vendor = Office(road), Slow()
    vendor.operations = {"post": Operation(InDoubt.ASK_A_PERSON)}
    await office.hold()
    id_ = await office.effect(1)

    async with office.delivering(vendor):
        await happens(lambda: bool(vendor.got), "it does not leave")
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 2", uuid7())
        await road.run("UPDATE circuit.effects SET status = 'in_doubt', attempts = 1, settled_at = now()")
        async with road.pool.connection() as connection:
            doubt = await find_doubt(connection, str(id_))
            await settle_doubt(connection, doubt, Decision.discard, "ann", "not in their inbox")
        vendor.may.set()
        await road.until("SELECT status, attempts, reason, settled_by FROM circuit.effects",
                         [("delivered", 1, DONE_AFTER_ALL, "ann")])  # fmt: skip

    async with road.pool.connection() as connection:
        assert (await answers_of(connection, id_))[-1].said == DONE_AFTER_ALL
        with pytest.raises(LetterRefused, match=r"not in their inbox\. Its vendor said later that it was done"):
            await find_doubt(connection, str(id_))


async def test_of_two_workers_that_mark_the_same_effect_one_may_send_it(road: Road) -> None:
    """The lane changes hands while the first one's statement waits for the row."""
    office = Office(road)
    id_ = await office.effect(1)
    await office.hold()
    other = uuid7()
    effect = Effect(id_, "acme", "post", "alerts", "c1", {"n": 1})
    group = Group("acme", "vendor", "post", "alerts")

    async def by(worker: object, epoch: int) -> set[object]:
        async with road.pool.connection() as connection:
            return set(await mark(connection, [Due(effect, group, 1, epoch)], worker))  # type: ignore[arg-type]

    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%%SET left_at = t.mark%%' AND pid <> pg_backend_pid()"
    )
    async with road.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM circuit.effects FOR UPDATE")
        first = asyncio.create_task(by(office.worker, 1))
        await road.until(waiting, [1])
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 2", other)
        second = asyncio.create_task(by(other, 2))
        await road.until(waiting, [2])
    got = await asyncio.gather(first, second)

    assert sorted(map(len, got)) == [0, 1]


async def by_another(road: Road, told: Told, worker: UUID, meanwhile: str) -> None:
    """The first worker tells what it heard; its statement has begun when the lane and the effect become another's."""
    async with road.pool.connection() as telling, road.pool.connection() as other:
        async with other.transaction():
            await other.execute("SELECT 1 FROM circuit.effects FOR UPDATE")
            late = asyncio.create_task(settle(telling, [told], worker))
            await road.until(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE '%%WITH told AS%%' AND pid <> pg_backend_pid()",
                [1],
            )
            await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 2", uuid7())
            await other.execute(meanwhile.encode())
        await asyncio.wait_for(late, PATIENCE)


@pytest.mark.parametrize("status", ["pending", "dead", "in_doubt"])
async def test_who_loses_the_lane_while_it_tells_leaves_the_new_workers_mark(road: Road, status: str) -> None:
    office = Office(road)
    id_ = await office.effect(1)
    await office.hold()
    due = Due(Effect(id_, "acme", "post", "alerts", "c1", {"n": 1}), Group("acme", "vendor", "post", "alerts"), 1, 1)

    marked = "UPDATE circuit.effects SET left_at = '2026-01-01'"
    await by_another(road, Told(due, status, 1, reason="no answer"), office.worker, marked)

    assert await road.rows("SELECT status, attempts, left_at IS NULL FROM circuit.effects") == [("pending", 0, False)]


async def test_who_loses_the_lane_while_it_tells_does_not_undo_what_the_new_worker_told(road: Road) -> None:
    office = Office(road)
    id_ = await office.effect(1)
    await office.hold()
    due = Due(Effect(id_, "acme", "post", "alerts", "c1", {"n": 1}), Group("acme", "vendor", "post", "alerts"), 1, 1)

    tried = "UPDATE circuit.effects SET attempts = 1, reason = 'busy', next_at = now() + interval '1 hour'"
    await by_another(road, Told(due, "dead", 3, reason="no answer"), office.worker, tried)

    assert await road.rows("SELECT status, attempts, reason FROM circuit.effects") == [("pending", 1, "busy")]


async def test_what_was_done_under_a_mark_that_still_stands_is_done_whoever_has_the_lane(road: Road) -> None:
    office, vendor = Office(road), Slow()
    vendor.operations = {"post": Operation(InDoubt.ASK_A_PERSON)}
    await office.hold()
    await office.effect(1)

    async with office.delivering(vendor):
        await happens(lambda: bool(vendor.got), "it does not leave")
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 2", uuid7())
        vendor.may.set()
        await office.until("delivered")
