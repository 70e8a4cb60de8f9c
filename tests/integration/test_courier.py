from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.connectors.connector import (
    Connector,
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Refused,
    Unknown,
)
from circuit_script.connectors.registry import make_registry
from circuit_script.effects.courier import GROUPS, Courier, CourierOptions
from circuit_script.effects.due import Group, Lap, read_due
from tests.receiver import receiving, response
from tests.road import Road, happens, open_road


class Vendor:
    """A connector that answers as the test says, by the effect's ``n``; and remembers."""

    name = "vendor"

    def __init__(self, answer: Mapping[int, Delivery | Exception], rule: InDoubt = InDoubt.REPEAT) -> None:
        self.answer = answer
        self.operations: Mapping[str, Operation] = {"post": Operation(rule, timeout=0.5)}
        self.got: list[int] = []

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        self.got += [each.payload["n"] for each in effects]
        results = [self.answer.get(each.payload["n"], Delivered()) for each in effects]
        for each in results:
            if isinstance(each, Exception):
                raise each
        return [each for each in results if not isinstance(each, Exception)]


class Post:
    """The courier of a worker that holds every lane with epoch 1."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.worker = uuid7()
        self.held = dict.fromkeys(range(64), 1)

    async def effect(
        self,
        n: int,
        *,
        key: int | None = None,
        tenant: str = "acme",
        connector: str = "vendor",
        operation: str = "post",
        target: str = "alerts",
    ) -> UUID:
        order = n if key is None else key
        id_ = uuid7()
        await self.road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, record, payload) VALUES (%s, %s, %s, 1, %s, %s, %s, %s, %s, %s, %s)",
            id_, tenant, uuid7(), order % 64, order, connector, operation, target, f"c{order}", Jsonb({"n": n}),
        )  # fmt: skip
        return id_

    @asynccontextmanager
    async def delivering(self, *connectors: Connector, **options: Any) -> AsyncIterator[Courier]:
        chosen = CourierOptions(**({"attempts": 3, "backoff": 0.02, "poll": 0.02} | options))
        courier = Courier(
            database=self.road.pool,
            connectors={each.name: each for each in connectors},
            worker=self.worker,
            held=lambda: self.held,
            options=chosen,
        )
        task = asyncio.create_task(courier.run())
        yield courier
        courier.stop()
        await asyncio.wait_for(task, 5)

    async def until(self, *states: str) -> None:
        await self.road.until("SELECT status FROM circuit.effects ORDER BY id", list(states))


@pytest.fixture
async def post(database: str) -> AsyncIterator[Post]:
    async with open_road(database) as road:
        made = Post(road)
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 1", made.worker)
        yield made


async def test_effects_are_posted_to_a_real_receiver_and_kept_as_delivered(post: Post) -> None:
    ids = [await post.effect(n, connector="webhook") for n in range(3)]

    async with receiving(lambda got: response(200)) as receiver:
        registry = make_registry({"alerts": Address(url=receiver.url)}, post.road.client)
        async with post.delivering(*registry.values()):
            await post.until("delivered", "delivered", "delivered")

    assert {got.headers["idempotency-key"] for got in receiver.got} == set(map(str, ids))
    assert sorted(got.body for got in receiver.got) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert await post.road.rows("SELECT DISTINCT attempts, settled_at IS NOT NULL FROM circuit.effects") == [(1, True)]
    assert await post.road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_a_receiver_that_is_down_gets_the_effect_again_with_the_same_key(post: Post) -> None:
    await post.effect(1, connector="webhook")

    def answer(_: object) -> bytes | None:
        return [None, response(503), response(200)][min(len(receiver.got), 3) - 1]

    async with receiving(answer) as receiver:
        registry = make_registry({"alerts": Address(url=receiver.url)}, post.road.client)
        async with post.delivering(*registry.values()):
            await post.until("delivered")

    assert len(receiver.got) == 3
    assert len({got.headers["idempotency-key"] for got in receiver.got}) == 1


async def test_effects_of_one_record_leave_in_their_order_even_behind_a_retry(post: Post) -> None:
    for n in (1, 2, 3):
        await post.effect(n, key=7)
    await post.effect(4)
    answers: dict[int, Delivery | Exception] = {1: Later("busy")}
    vendor = Vendor(answers)

    async with post.delivering(vendor, attempts=50, backoff=0.001):
        await post.until("pending", "pending", "pending", "delivered")
        assert set(vendor.got) == {1, 4}
        answers.clear()
        await post.until("delivered", "delivered", "delivered", "delivered")

    assert [n for n in dict.fromkeys(vendor.got) if n != 4] == [1, 2, 3]
    assert vendor.got.count(2) == vendor.got.count(3) == 1


async def test_an_effect_that_used_up_its_attempts_is_a_dead_letter_and_the_next_one_goes(post: Post) -> None:
    first = await post.effect(1, key=7)
    await post.effect(2, key=7)
    vendor = Vendor({1: Later("busy")})

    async with post.delivering(vendor):
        await post.until("dead", "delivered")

    assert vendor.got == [1, 1, 1, 2]
    assert await post.road.rows("SELECT kind, tenant, effect, record, attempts, reason FROM circuit.dead_letters") == [
        ("effect", "acme", first, "c7", 3, "busy")
    ]


async def test_a_refusal_is_final(post: Post) -> None:
    await post.effect(1)
    vendor = Vendor({1: Refused("no such lead \0 \ud800")})

    async with post.delivering(vendor):
        await post.until("dead")

    assert vendor.got == [1]
    assert await post.road.rows("SELECT reason FROM circuit.dead_letters") == ["no such lead \ufffd ?"]


@pytest.mark.parametrize(
    ("rule", "status", "tries"),
    [(InDoubt.REPEAT, "dead", 3), (InDoubt.ASK_A_PERSON, "in_doubt", 1), (InDoubt.LOOK_UP, "in_doubt", 1)],
)
async def test_an_unknown_result_is_settled_by_the_rule_of_its_operation(
    post: Post, rule: InDoubt, status: str, tries: int
) -> None:
    await post.effect(1)
    vendor = Vendor({1: Unknown("cut")}, rule)

    async with post.delivering(vendor):
        await post.until(status)

    assert len(vendor.got) == tries
    assert await post.road.rows("SELECT reason, attempts FROM circuit.effects") == [("cut", tries)]
    assert await post.road.rows("SELECT status FROM circuit.dead_letters") == ["open"] * (status == "dead")


async def test_a_connector_that_raises_is_in_doubt_and_the_courier_goes_on(post: Post) -> None:
    await post.effect(1)
    vendor = Vendor({1: RuntimeError("bug")}, InDoubt.ASK_A_PERSON)

    async with post.delivering(vendor):
        await post.until("in_doubt")
        await post.effect(2)
        await post.until("in_doubt", "delivered")

    assert await post.road.rows("SELECT reason FROM circuit.effects ORDER BY id") == ["RuntimeError: bug", None]


async def test_a_connector_with_too_few_results_is_in_doubt_too(post: Post) -> None:
    await post.effect(1)

    class Short(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
            return []

    async with post.delivering(Short({}, InDoubt.ASK_A_PERSON)):
        await post.until("in_doubt")


async def test_a_connector_that_hangs_is_given_up_after_its_time(post: Post) -> None:
    await post.effect(1)

    class Hanging(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
            await asyncio.Event().wait()
            return []

    async with post.delivering(Hanging({}, InDoubt.ASK_A_PERSON)):
        await post.until("in_doubt")


async def test_an_effect_for_nobody_is_a_dead_letter_that_says_so(post: Post) -> None:
    await post.effect(1, connector="fax")
    await post.effect(2, operation="shout")

    async with post.delivering(Vendor({})):
        await post.until("dead", "dead")

    reasons = await post.road.rows("SELECT reason FROM circuit.dead_letters ORDER BY reason")
    assert "'fax'" in reasons[0]
    assert "'shout'" in reasons[1]


async def test_a_lane_lost_in_between_means_that_nothing_is_told(post: Post) -> None:
    await post.effect(1)
    road = post.road
    told = asyncio.Event()

    class Slow(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
            await road.run("UPDATE circuit.lanes SET owner = %s, epoch = epoch + 1", uuid7())
            post.held = {}
            told.set()
            return await super().deliver(operation, effects)

    vendor = Slow({1: Refused("too late to say")})
    async with post.delivering(vendor):
        await told.wait()

    assert vendor.got == [1]
    assert await road.rows("SELECT status, attempts FROM circuit.effects") == [("pending", 0)]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_lanes_of_others_are_not_touched(post: Post) -> None:
    await post.effect(1)
    await post.effect(2)
    post.held = {1: 1}
    vendor = Vendor({})

    async with post.delivering(vendor):
        await post.until("delivered", "pending")

    assert vendor.got == [1]


async def test_what_waits_for_a_dead_receiver_does_not_hold_up_other_effects(post: Post) -> None:
    for n in range(30):
        await post.effect(n, tenant="noisy")
    await post.road.run("UPDATE circuit.effects SET next_at = now() + interval '1 hour'")
    await post.effect(100, tenant="quiet")
    vendor = Vendor({})

    async with post.delivering(vendor, bulk=5):
        await post.road.until("SELECT status FROM circuit.effects WHERE tenant = 'quiet'", ["delivered"])

    assert vendor.got == [100]


async def test_tenants_take_turns_in_the_couriers_bulk(post: Post) -> None:
    for n in range(20):
        await post.effect(n, tenant="noisy")
    await post.effect(100, tenant="quiet")
    vendor = Vendor({})

    async with post.delivering(vendor, bulk=4):
        await post.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [21])

    assert 100 in vendor.got[:4]
    assert len(vendor.got) == 21


async def test_the_vendors_wish_to_wait_is_granted_and_zero_means_our_own_delay(post: Post) -> None:
    await post.effect(1)
    await post.effect(2)
    vendor = Vendor({1: Later("slow down", 120.0), 2: Later("now", 0.0)})

    async with post.delivering(vendor, backoff=60.0):
        await post.road.until("SELECT attempts FROM circuit.effects", [1, 1])

    waits = await post.road.rows("SELECT extract(epoch FROM next_at - now())::float FROM circuit.effects ORDER BY id")
    assert 100 < waits[0] <= 120
    assert 20 < waits[1] <= 60


async def test_a_database_that_fails_for_a_moment_does_not_end_the_courier(post: Post) -> None:
    await post.effect(1)
    await post.road.run("ALTER TABLE circuit.effects RENAME TO away")

    async with post.delivering(Vendor({})):
        await asyncio.sleep(0)
        await post.road.run("ALTER TABLE circuit.away RENAME TO effects")
        await post.until("delivered")


class Stuck(Vendor):
    """A connector whose ``stuck`` effects wait until they are ``free``."""

    def __init__(self, *stuck: int, timeout: float = 30.0) -> None:
        super().__init__({})
        self.operations = {"post": Operation(InDoubt.REPEAT, timeout=timeout)}
        self.stuck = set(stuck)
        self.free = asyncio.Event()

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        results = await super().deliver(operation, effects)
        if self.stuck & {each.payload["n"] for each in effects}:
            await self.free.wait()
        return results


async def test_a_target_that_hangs_delays_nobody_else(post: Post) -> None:
    await post.effect(1, target="slow")
    vendor = Stuck(1)

    async with post.delivering(vendor):
        await post.until("pending")
        await post.effect(2, target="fast", tenant="quiet")
        await post.effect(3, target="slow")
        await post.until("pending", "delivered", "delivered")
        vendor.free.set()
        await post.until("delivered", "delivered", "delivered")

    assert sorted(vendor.got) == [1, 2, 3], "what was on its way was not sent again"


async def test_what_stands_behind_an_effect_on_its_way_waits_for_its_result(post: Post) -> None:
    await post.effect(1, key=7)
    await post.effect(2, key=7)
    await post.effect(3)
    vendor = Stuck(1)

    async with post.delivering(vendor):
        await post.until("pending", "pending", "delivered")
        await post.effect(4)
        await post.until("pending", "pending", "delivered", "delivered")
        assert sorted(vendor.got) == [1, 3, 4], "another round went by"
        vendor.free.set()
        await post.until("delivered", "delivered", "delivered", "delivered")

    assert [n for n in vendor.got if n < 3] == [1, 2]


async def test_a_hanging_target_has_room_for_so_many_and_the_rest_of_the_bulk_goes_to_others(post: Post) -> None:
    for n in range(20):
        await post.effect(n, target="slow")
    await post.effect(100, target="fast")
    vendor = Stuck(*range(20))

    async with post.delivering(vendor, bulk=4, room=3):
        await post.road.until("SELECT status FROM circuit.effects WHERE target = 'fast'", ["delivered"])
        await post.effect(101, target="fast")
        await post.road.until("SELECT status FROM circuit.effects WHERE target = 'fast'", ["delivered", "delivered"])
        assert len(vendor.got) == 5, "another round went by"
        vendor.free.set()
        await post.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [22])

    assert len(vendor.got) == 22


async def test_stop_sends_nothing_more_and_tells_what_comes_back(post: Post) -> None:
    await post.effect(1)
    await post.effect(2)
    vendor = Stuck(1)

    async with post.delivering(vendor) as courier:
        await post.until("pending", "delivered")
        courier.stop()
        await post.effect(3)
        await asyncio.sleep(0.05)
        vendor.free.set()

    assert await post.road.rows("SELECT status FROM circuit.effects ORDER BY id") == ["delivered"] * 2 + ["pending"]


async def test_stop_waits_no_longer_than_the_operation_may_take(post: Post) -> None:
    await post.effect(1)

    vendor = Stuck(1, timeout=0.3)  # which nobody frees: only its timeout ends it

    async with post.delivering(vendor) as courier:
        await happens(lambda: vendor.got == [1], "it is on its way")
        courier.stop()

    assert await post.road.rows("SELECT status, attempts FROM circuit.effects") == [("pending", 1)]


async def test_a_result_that_could_not_be_told_is_told_later_and_not_sent_again(post: Post) -> None:
    await post.effect(1)
    road = post.road

    class Cut(Vendor):
        async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
            await road.run("ALTER TABLE circuit.effects RENAME TO away")
            return await super().deliver(operation, effects)

    vendor = Cut({})
    async with post.delivering(vendor):
        await road.until("SELECT to_regclass('circuit.away') IS NOT NULL", [True])
        await asyncio.sleep(0.1)
        await road.run("ALTER TABLE circuit.away RENAME TO effects")
        await post.until("delivered")

    assert vendor.got == [1]


async def test_those_behind_a_retry_wait_as_long_as_it_does(post: Post) -> None:
    for n in (1, 2, 3):
        await post.effect(n, key=7)
    await post.effect(4)
    vendor = Vendor({1: Later("busy", 100.0)})

    async with post.delivering(vendor):
        await post.until("pending", "pending", "pending", "delivered")
        await post.road.until("SELECT DISTINCT next_at > now() FROM circuit.effects WHERE status = 'pending'", [True])

    assert await post.road.rows("SELECT attempts FROM circuit.effects ORDER BY id") == [1, 0, 0, 1]


async def test_no_error_of_a_round_ends_the_courier(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    await post.effect(1)
    due, errors = Courier._due, [RuntimeError("bug"), KeyError("bug")]

    async def failing(self: Courier, *rest: Any) -> Any:
        if errors:
            raise errors.pop()
        return await due(self, *rest)

    monkeypatch.setattr(Courier, "_due", failing)
    async with post.delivering(Vendor({})):
        await post.until("delivered")


async def test_effects_that_wait_for_their_time_cost_the_courier_nothing(post: Post) -> None:
    await post.road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload, next_at) SELECT gen_random_uuid(), 'tenant ' || n %% 50, gen_random_uuid(), 1, n %% 64, n, 'vendor', "
        "'post', 'alerts', jsonb_build_object('text', repeat('x', 300)), now() + interval '1 hour' "
        "FROM generate_series(1, 200000) AS n"
    )
    most = {Group(f"tenant {n}", "vendor", "post", "alerts"): 64 for n in range(50)}
    async with post.road.pool.connection() as connection, connection.transaction():
        assert await Lap(GROUPS).next(connection) == ([], False)
        assert await read_due(connection, most, dict.fromkeys(range(64), 1), (), 200) == []
        looked = await connection.execute(
            "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables "
            "WHERE relid = 'circuit.effects'::regclass"
        )
        ((rows,),) = await looked.fetchall()
        assert rows <= len(most)  # of each tenant its next one
