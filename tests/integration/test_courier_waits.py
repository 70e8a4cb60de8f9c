"""What keeps effects waiting: rates, a vendor's 429, an open circuit, a pause. None of it costs an attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.connectors import circuits
from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Rate, SlowDown
from circuit_script.connectors.registry import make_registry
from circuit_script.effects.due import DUE
from circuit_script.effects.waits import DEEPEST, effects_waiting
from circuit_script.tenants.pauses import Kind
from circuit_script.wiring.deliveries import open_deliveries_client
from tests.integration.courier_vendor import Office, Vendor
from tests.receiver import Got, receiving, response
from tests.road import happens


async def why(office: Office) -> dict[tuple[str, str], int]:
    """How many effects of each tenant wait, by reason."""
    async with office.road.pool.connection() as connection:
        return {(each.tenant, each.why): each.n for each in await effects_waiting(connection)}


async def test_no_more_calls_leave_than_the_rate_allows_and_other_tenants_have_their_own(office: Office) -> None:
    for n in range(10):
        await office.effect(n)
    await office.effect(100, tenant="quiet")
    vendor = Vendor(bulk=2, rate=Rate(3, seconds=3600))

    async with office.delivering(vendor):
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [7])
        await office.road.until("SELECT kind FROM circuit.courier_waits", ["rate"])
        assert await why(office) == {("acme", "rate"): 4}

    assert len([call for call in vendor.calls if 100 not in call]) == 3
    assert await office.road.rows("SELECT DISTINCT attempts FROM circuit.effects WHERE status = 'pending'") == [0]


async def test_what_circuit_toml_says_replaces_what_the_connector_declares(office: Office) -> None:
    for n in range(4):
        await office.effect(n)
    vendor = Vendor(rate=Rate(1, seconds=3600))

    async with office.delivering(vendor, rates={("vendor", "post"): Rate(1000)}):
        await office.until(*["delivered"] * 4)


async def test_what_waits_for_a_rate_or_as_its_vendor_asked_leaves_when_that_is_over_and_not_a_poll_later(
    office: Office,
) -> None:
    for n in range(4):
        await office.effect(n)
    asked = iter([SlowDown("slow", 0.3)])
    rated = Vendor(rate=Rate(20, seconds=1, burst=1))
    busy = Vendor(lambda effects: [next(asked, None) or Delivered() for _ in effects])
    busy.name = "busy"
    await office.effect(4, connector="busy")

    async with office.delivering(rated, busy, poll=3600):
        await office.until(*["delivered"] * 5)

    assert (rated.got, busy.got) == ([0, 1, 2, 3], [4, 4])


async def test_workers_share_a_rate_as_they_share_the_lanes(office: Office) -> None:
    for n in range(64):
        await office.effect(n)
    other = uuid7()
    await office.road.run("UPDATE circuit.lanes SET owner = %s WHERE lane >= 48", other)
    here, there = Vendor(rate=Rate(16, seconds=3600)), Vendor(rate=Rate(16, seconds=3600))

    async with office.delivering(here, lanes=range(48)), office.delivering(there, worker=other, lanes=range(48, 64)):
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [16])
        await office.road.until("SELECT count(*) FROM circuit.courier_waits WHERE kind = 'rate'", [2])

    assert (len(here.got), len(there.got)) == (12, 4)


async def test_a_429_lets_every_worker_leave_that_tenants_target_alone(office: Office) -> None:
    for n in range(2):
        await office.effect(n, key=n * 32, connector="webhook")
    other = uuid7()
    await office.road.run("UPDATE circuit.lanes SET owner = %s WHERE lane >= 32", other)

    async with receiving(lambda got: response(429, retry_after="600")) as receiver:
        registry = make_registry({"alerts": Address(url=receiver.url)}, office.road.client)
        async with office.delivering(*registry.values(), lanes=range(32)):
            await office.road.until("SELECT reason FROM circuit.courier_waits", ["HTTP 429"])
        async with office.delivering(*registry.values(), worker=other, lanes=range(32, 64)):
            await office.effect(2, key=40, connector="webhook", tenant="quiet")
            await happens(lambda: len(receiver.got) == 2, "the other tenant's effect has not come")

    assert [got.body for got in receiver.got] == [b'{"n":0}', b'{"n":2}']
    assert await office.road.rows("SELECT status, attempts FROM circuit.effects ORDER BY id") == [("pending", 0)] * 3
    assert await why(office) == {("acme", "asked"): 2, ("quiet", "asked"): 1}
    (until,) = await office.road.rows(
        "SELECT extract(epoch FROM until - now())::float FROM circuit.courier_waits WHERE tenant = 'acme'"
    )
    assert 500 < until <= 600


async def test_after_the_time_that_a_vendor_asked_for_all_goes_on_in_order(office: Office) -> None:
    for n in range(6):
        await office.effect(n, key=n % 2)
    asked: list[int] = []

    def answer(effects: Sequence[Effect]) -> list[Delivery]:
        if len(asked) < 2:
            asked.append(1)
            return [SlowDown("HTTP 429", 0.05) for _ in effects]
        return [Delivered() for _ in effects]

    vendor = Vendor(answer)
    async with office.delivering(vendor):
        await office.until(*["delivered"] * 6)

    done = list(dict.fromkeys(vendor.got))
    assert [n for n in done if n % 2 == 0] == [0, 2, 4]
    assert [n for n in done if n % 2] == [1, 3, 5]
    assert await office.road.rows("SELECT DISTINCT attempts FROM circuit.effects") == [1]


async def test_a_wish_without_end_is_granted_for_a_day(office: Office) -> None:
    await office.effect(0)
    await office.effect(1, target="other")
    answers: dict[str, Delivery] = {"alerts": Later("locked", float("inf")), "other": SlowDown("429", float("inf"))}
    vendor = Vendor(lambda effects: [answers[each.target] for each in effects])

    async with office.delivering(vendor):
        hours = "SELECT round(extract(epoch FROM {0} - now()) / 3600)::int FROM circuit.{1}"
        await office.road.until(hours.format("next_at", "effects") + " WHERE attempts = 1", [24])
        await office.road.until(hours.format("until", "courier_waits"), [24])

    assert sorted(vendor.got) == [0, 1]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circuits rest for a moment only."""
    monkeypatch.setattr(circuits, "REST", 0.05)
    monkeypatch.setattr(circuits, "LONGEST_REST", 0.1)


async def test_a_vendor_that_is_down_opens_its_circuit_and_its_effects_wait_without_an_attempt(office: Office) -> None:
    for n in range(20):
        await office.effect(n)
    await office.effect(100, target="well")
    await office.effect(200, tenant="other")
    vendor = Vendor(
        lambda effects: [
            Delivered() if each.target == "well" or each.tenant == "other" else Later("HTTP 503", down=True)
            for each in effects
        ]
    )

    async with office.delivering(vendor, room=1, attempts=50, backoff=60.0):
        await office.road.until("SELECT count(*) FROM circuit.courier_waits WHERE kind = 'open'", [1])
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [2])
        assert await why(office) == {("acme", "open"): 20}
        (reason,) = await office.road.rows("SELECT reason FROM circuit.courier_waits")

    assert reason == "5 failures in a row: HTTP 503"
    assert len([n for n in vendor.got if n < 100]) == 5
    tried = "SELECT count(*) FROM circuit.effects WHERE attempts > 0 AND status = 'pending'"
    assert await office.road.rows(tried) == [5]


@pytest.mark.usefixtures("quick")
async def test_one_probe_at_a_time_finds_out_that_it_is_back_and_nothing_is_lost_or_disordered(office: Office) -> None:
    for n in range(30):
        await office.effect(n, key=n % 10, connector="webhook")
    up = asyncio.Event()
    open_now = Counter[str]()

    def answer(got: Got) -> bytes:
        open_now["requests"] += 1
        return response(200 if up.is_set() else 503)

    async with receiving(answer) as receiver:
        registry = make_registry({"alerts": Address(url=receiver.url)}, office.road.client)
        async with office.delivering(*registry.values(), attempts=3, backoff=0.01):
            await office.road.until("SELECT count(*) FROM circuit.courier_waits WHERE kind = 'open'", [1])
            seen = len(receiver.got)
            await happens(lambda: len(receiver.got) >= seen + 8, "no probes leave")
            up.set()
            await office.until(*["delivered"] * 30)

    bodies = [int(got.body[5:-1]) for got in receiver.got]
    done = list(dict.fromkeys(reversed(bodies)))[::-1]  # by their last request, which was the one that succeeded
    for key in range(10):
        assert [n for n in done if n % 10 == key] == [key, key + 10, key + 20]
    await office.road.until("SELECT count(*) FROM circuit.courier_waits WHERE kind = 'open' AND until > now()", [0])


async def test_targets_that_hang_use_up_no_connection_of_others() -> None:
    hanging: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: hanging.append(writer), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with open_deliveries_client() as client, server:
        posts = [asyncio.create_task(client.post(url, timeout=None)) for _ in range(128)]
        await happens(lambda: len(hanging) == 128, "one waits for a connection of another")
        for each in posts:
            each.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        for writer in hanging:
            writer.close()


@pytest.mark.usefixtures("quick")
async def test_probes_take_turns_so_that_one_bad_effect_does_not_keep_the_circuit_open(office: Office) -> None:
    await office.effect(0)

    def answer(effects: Sequence[Effect]) -> list[Delivery]:
        return [Later("HTTP 500", down=True) if each.payload["n"] == 0 else Delivered() for each in effects]

    vendor = Vendor(answer)
    async with office.delivering(vendor, attempts=7, backoff=0.01):
        await happens(lambda: len(vendor.got) > 6, "it was not probed")
        for n in range(1, 20):
            await office.effect(n)
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [19])


@pytest.mark.parametrize(
    ("kind", "value", "tenant"),
    [
        ("connector", "vendor", "acme"),
        ("tenant", "acme", None),
        ("record", "c1", "acme"),
        ("record", "c7", None),
        ("everything", "", None),
    ],
)
async def test_what_is_paused_waits_and_goes_on_when_it_is_resumed(
    office: Office, kind: Kind, value: str, tenant: str | None
) -> None:
    await office.effect(7, tenant="other")
    await office.effect(1)
    await office.effect(2, key=7)
    vendor = Vendor()
    await office.pause(kind, value, tenant)
    held = {"vendor": {1, 2}, "acme": {1, 2}, "c1": {1}, "c7": {2, 7}, "": {1, 2, 7}}[value]
    pending = "SELECT (payload ->> 'n')::int FROM circuit.effects WHERE status = 'pending' ORDER BY 1"

    async with office.delivering(vendor):
        await office.effect(3, tenant="third", connector="jobs", operation="enqueue")  # nothing waits for this one
        await office.road.until(pending, sorted(held))
        async with office.road.pool.connection() as connection:
            found = await effects_waiting(connection)
        assert {(each.why, each.reason) for each in found} == {("paused", "they asked")}
        assert sum(each.n for each in found) == len(held)
        assert not held & set(vendor.got)
        await office.resume(kind, value, tenant)
        await office.road.until(pending, [])

    assert sorted(vendor.got) == [1, 2, 7]


async def test_what_stands_behind_a_paused_record_waits_too_and_the_order_is_kept(office: Office) -> None:
    first, second = await office.effect(1, key=7), await office.effect(2, key=7)
    await office.road.run("UPDATE circuit.effects SET record = 'other' WHERE id = %s", second)
    await office.effect(3)
    vendor = Vendor()
    await office.pause("record", "c7", "acme")

    async with office.delivering(vendor):
        await office.until("pending", "pending", "delivered")
        assert await office.road.rows("SELECT status FROM circuit.effects WHERE id = %s", first) == ["pending"]
        await office.resume("record", "c7", "acme")
        await office.until(*["delivered"] * 3)

    assert vendor.got == [3, 1, 2]


async def test_status_says_what_stands_behind_another_effect_and_what_waits_for_its_next_attempt(
    office: Office,
) -> None:
    for n in range(3):
        await office.effect(n, key=7)
    vendor = Vendor(lambda effects: [Later("locked", 600.0) for _ in effects], in_doubt=InDoubt.REPEAT)

    async with office.delivering(vendor):
        await office.road.until("SELECT max(attempts) FROM circuit.effects", [1])

    async with office.road.pool.connection() as connection:
        behind, first = await effects_waiting(connection)
    assert (behind.why, behind.n, first.why, first.n, first.reason) == ("behind", 2, "retry", 1, "locked")
    assert first.until is not None


async def test_a_tenant_hears_of_its_own_effects_however_many_others_have(office: Office) -> None:
    await office.road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload) SELECT gen_random_uuid(), 'aaa', gen_random_uuid(), 1, 0, n, 'vendor', 'post', 'alerts', '{}' "
        "FROM generate_series(1, %s) n",
        DEEPEST,
    )
    await office.effect(1, tenant="quiet")

    async with office.road.pool.connection() as connection:
        found = await effects_waiting(connection, tenant="quiet")
    assert [(each.tenant, each.why, each.n) for each in found] == [("quiet", "due", 1)]


async def test_whether_something_comes_first_is_looked_up_for_each_effect_however_deep_its_key_is(
    office: Office,
) -> None:
    """Joined with all that waits under one key, the time would grow with the square of it."""
    await office.road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload) SELECT gen_random_uuid(), 'acme', gen_random_uuid(), 1, 0, 7, 'vendor', 'post', 'alerts', '{}' "
        "FROM generate_series(1, 5000) n"
    )
    await office.road.run("ANALYZE circuit.effects")
    values = {"tenants": ["acme"], "connectors": ["vendor"], "operations": ["post"], "targets": ["alerts"],
              "most": [64], "lanes": list(range(64)), "flying": [], "bulk": 2000, "records": [],
              "own_records": []}  # fmt: skip
    async with office.road.pool.connection() as connection:
        plan = await (await connection.execute(f"EXPLAIN {DUE}".encode(), values)).fetchall()
        rows = await (await connection.execute(DUE.encode(), values)).fetchall()

    assert not [line for (line,) in plan if "Anti Join" in line or "Hash" in line or "Merge" in line]
    assert len(rows) == 1


async def test_many_tenants_take_turns_at_one_target(office: Office) -> None:
    await office.road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload) SELECT gen_random_uuid(), 'tenant ' || n %% 500, gen_random_uuid(), 1, n %% 64, n, 'vendor', "
        "'post', 'alerts', '{\"n\": 0}' FROM generate_series(1, 15000) AS n"
    )
    vendor = Vendor(bulk=10)

    async with office.delivering(vendor):
        await happens(lambda: len({each.tenant for each in vendor.effects}) == 500, "some tenant has had no turn")

    turns = Counter(each.tenant for each in vendor.effects)
    assert max(turns.values()) <= 30, "nobody had his third turn before everybody had the first"


@pytest.mark.parametrize("after", [0.0, -1.0, float("nan")])
async def test_a_429_that_asks_for_no_time_is_not_answered_by_the_next_request_at_once(
    office: Office, after: float
) -> None:
    await office.effect(1)
    vendor = Vendor(lambda effects: SlowDown("HTTP 429", after))
    async with office.delivering(vendor, backoff=60.0) as courier:
        await office.road.until("SELECT until > now() + interval '20 seconds' FROM circuit.courier_waits", [True])
        rounds = courier._rounds
        await happens(lambda: courier._rounds > rounds + 2, "it stands still")

    assert vendor.got == [1]
