"""Bulks: of one tenant, told apart result by result, halved where the vendor refuses all for one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

import pytest

from circuit_script.connectors import circuits
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Refused,
    SlowDown,
    Unknown,
)
from tests.integration.courier_vendor import Office, Vendor


async def test_a_bulk_is_of_one_tenant_operation_and_target(office: Office) -> None:
    for n in range(6):
        await office.effect(n, tenant=("acme", "other")[n % 2], target=("x", "y")[n // 4])
    vendor = Vendor(bulk=100)

    async with office.delivering(vendor):
        await office.until(*["delivered"] * 6)

    assert sorted(map(sorted, vendor.calls)) == [[0, 2], [1, 3], [4], [5]]
    assert {each.tenant for each in vendor.effects} == {"acme", "other"}


async def test_a_bulk_is_no_larger_than_its_operation_allows_and_may_be_larger_than_the_room(office: Office) -> None:
    for n in range(10):
        await office.effect(n)
    vendor = Vendor(bulk=4)

    async with office.delivering(vendor, room=2):
        await office.until(*["delivered"] * 10)

    assert max(map(len, vendor.calls)) == 4
    assert sorted(vendor.got) == list(range(10))


async def test_a_partial_failure_fails_its_own_records_only(office: Office) -> None:
    for n in range(5):
        await office.effect(n)

    def answer(effects: Sequence[Effect]) -> Sequence[Delivery]:
        said: dict[int, Delivery] = {1: Refused("no such lead"), 3: Later("locked")}
        return [said.get(each.payload["n"], Delivered()) for each in effects]

    vendor = Vendor(answer, bulk=5)
    async with office.delivering(vendor):
        await office.until("delivered", "dead", "delivered", "dead", "delivered")

    assert vendor.calls == [[0, 1, 2, 3, 4], [3], [3]]
    letters = await office.road.rows("SELECT record, attempts, reason FROM circuit.dead_letters ORDER BY record")
    assert letters == [("c1", 1, "no such lead"), ("c3", 3, "locked")]


async def test_a_bulk_that_is_refused_as_a_whole_is_halved_until_the_bad_one_stands_alone(office: Office) -> None:
    for n in range(8):
        await office.effect(n)

    def answer(effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        if any(each.payload["n"] == 5 for each in effects):
            return Refused("item invalid")
        return [Delivered() for _ in effects]

    vendor = Vendor(answer, bulk=8)
    async with office.delivering(vendor):
        await office.until(*["delivered"] * 5, "dead", *["delivered"] * 2)

    assert vendor.calls == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]
    assert await office.road.rows("SELECT DISTINCT attempts FROM circuit.effects") == [1]


async def test_one_answer_for_the_whole_bulk_counts_for_each_of_it(office: Office) -> None:
    for n in range(3):
        await office.effect(n)
    vendor = Vendor(lambda effects: Unknown("cut"), bulk=3, in_doubt=InDoubt.ASK_A_PERSON)

    async with office.delivering(vendor):
        await office.until(*["in_doubt"] * 3)

    assert vendor.calls == [[0, 1, 2]]
    assert await office.road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_order_per_record_is_kept_in_bulks(office: Office) -> None:
    for n in range(30):
        await office.effect(n, key=n % 3)
    vendor = Vendor(bulk=10)

    async with office.delivering(vendor):
        await office.until(*["delivered"] * 30)

    for key in range(3):
        assert [n for n in vendor.got if n % 3 == key] == list(range(key, 30, 3))
    assert all(len({n % 3 for n in call}) == len(call) for call in vendor.calls), "no bulk has two of one record"


class Moody(Vendor):
    """Does each of its first 40 requests in part: a result for each, a cut after some, too few results, or nothing at
    all. Those after them it does whole: what fails again and again would wait for seconds. ``done`` is what it did, as
    (n, idempotency key)."""

    def __init__(self, seed: int) -> None:
        super().__init__(bulk=8)
        self.done: list[tuple[int, UUID]] = []
        self._chance = random.Random(seed)
        self._asked = 0

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        await asyncio.sleep(self._chance.choice((0, 0, 0.003)))
        self._asked += 1
        if self._asked > 40:
            self.done += ((each.payload["n"], each.id) for each in effects)
            return [Delivered()] * len(effects)
        way = self._chance.choice(("each", "each", "each", "cut", "few", "whole"))
        if way == "whole":
            return self._chance.choice((Later("HTTP 503"), SlowDown("HTTP 429", 0.01), Refused("one of them is bad")))
        several = [
            self._chance.choice((Delivered(), Delivered(), Later("locked"), Unknown("it hung"))) for _ in effects
        ]
        for each, one in zip(effects, several, strict=True):
            if isinstance(one, Delivered) or (isinstance(one, Unknown) and self._chance.random() < 0.5):
                self.done.append((each.payload["n"], each.id))
        if way == "cut":
            raise ConnectionResetError("after some of them")
        return several[: len(several) // 2] if way == "few" else several


async def test_a_vendor_that_does_bulks_in_part_loses_none_and_keeps_the_order_of_each_record(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuits, "REST", 0.02)
    monkeypatch.setattr(circuits, "LONGEST_REST", 0.02)
    ids = {n: await office.effect(n, key=n % 9) for n in range(72)}
    vendor = Moody(11)

    async with office.delivering(vendor, attempts=500, backoff=0.001):
        # One that is refused stands alone by then: it is a dead letter, and nobody's fault but its own.
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'pending'", [0])

    status = dict(await office.road.rows("SELECT id, status FROM circuit.effects"))
    done = list(dict.fromkeys(vendor.done))
    assert len(done) == len({n for n, _ in done}), "each came under one key"
    assert {key for _, key in done} >= {key for key, said in status.items() if said == "delivered"}, "none is lost"
    assert set(status.values()) <= {"delivered", "dead"}
    assert {each.id for each in vendor.effects} <= set(ids.values())
    for key in range(9):
        order = [n for n, _ in done if n % 9 == key]
        assert order == sorted(order), "of one record in their order"


async def test_stop_halves_no_further_and_what_has_not_left_is_as_it_was(office: Office) -> None:
    for n in range(4):
        await office.effect(n)
    stopping = asyncio.Event()

    class Strict(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
            self.calls.append([each.payload["n"] for each in effects])
            await stopping.wait()
            return Refused("all of it")

    vendor = Strict(bulk=4, in_doubt=InDoubt.ASK_A_PERSON)
    async with office.delivering(vendor) as courier:
        while not vendor.calls:
            await asyncio.sleep(0.01)
        courier.stop()
        stopping.set()

    assert vendor.calls == [[0, 1, 2, 3]]
    rows = await office.road.rows("SELECT DISTINCT status, attempts, left_at IS NULL FROM circuit.effects")
    assert rows == [("pending", 0, True)]


@pytest.mark.parametrize(
    "answer",
    [None, {"ok": True}, "ok", [None], ["ok"], [Refused(ValueError("no"))], [Later("busy", after="soon")],  # type: ignore[arg-type]
     [Delivered(vendor_id=7)]],  # type: ignore[arg-type]
    ids=str,
)  # fmt: skip
async def test_an_answer_that_says_nothing_leaves_its_effect_in_doubt_and_the_courier_goes_on(
    office: Office, answer: object
) -> None:
    vendor = Vendor(lambda effects: answer if effects[0].payload["n"] == 1 else [Delivered()],  # type: ignore[arg-type]
                    in_doubt=InDoubt.ASK_A_PERSON)  # fmt: skip
    await office.effect(1, key=7)
    await office.effect(2, key=7)
    async with office.delivering(vendor):
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status <> 'pending'", [2])

    assert (vendor.got[0], vendor.got[-1]) == (1, 2)
    said = {Refused: "dead", Later: "discarded", Delivered: "delivered"}
    kind = type(answer[0]) if isinstance(answer, list) else None
    first = await office.road.rows("SELECT status FROM circuit.effects ORDER BY seq LIMIT 1")
    assert first == ["dead" if kind is Later else said.get(kind, "in_doubt")]  # type: ignore[arg-type]
