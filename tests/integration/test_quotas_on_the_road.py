"""A tenant over its quota: its events wait, nobody else's do, and it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.config import TenantSettings, TierQuota, TierSettings
from circuit_script.events.notices import Notices
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from circuit_script.tenants import Tiers
from circuit_script.tenants import quotas as module
from circuit_script.tenants.quotas import TenantGovernor
from tests.quota_clock import shift
from tests.receiver import Got, receiving, response
from tests.road import SCORE, Incoming, Road, contact, happens, open_road, score

ALONE = HandlerSpec("alone", (("Contact", "afterInsert"),), batch_size=1)
TELL = HandlerSpec("tell", (("Quota", "afterUpdate"),))


def tiers(**allows: Any) -> Tiers:
    """acme has a tier; globex has none."""
    tier = TierSettings(upgrade="https://example.com/plans", **allows)
    return Tiers({"own": tier}, {"acme": TenantSettings(tier="own"), "globex": TenantSettings()})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOOK": 0.01, "TELL": 0.5, "SOON": 0.02, "AGAIN": 0.2}.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        yield made


@pytest.fixture
async def governed(road: Road) -> AsyncIterator[Callable[[Tiers], TenantGovernor]]:
    """Makes governors as a worker has them, whose notices go into the ledger."""
    running: dict[TenantGovernor, asyncio.Task[None]] = {}

    def open_governor(tiers: Tiers) -> TenantGovernor:
        notices = Notices(road.connect, pooler=road.pooler)
        governor = TenantGovernor(database=road.pool, tiers=tiers, worker=uuid7(), notify=notices.add)
        running[governor] = asyncio.create_task(governor.run())
        return governor

    yield open_governor
    await road.close_workers()
    for governor, task in running.items():
        governor.stop()
        await asyncio.wait_for(task, 10)


async def heard(work: Work, broker: ExecutionBroker) -> Outcome:
    return Succeeded(Usage())


async def test_events_of_a_tenant_over_its_quota_wait_and_nobody_elses_do(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    await road.live(ALONE)
    worker = await road.start(heard, quotas=governed(tiers(executions=TierQuota(day=3))))

    await road.take_in(*(contact(f"a{n}") for n in range(40)))
    await road.take_in(*(Incoming(f"g{n}", tenant="globex") for n in range(40)))

    await road.until("SELECT DISTINCT tenant, count(*) FROM circuit.queue GROUP BY tenant", [("acme", 37)])
    assert Counter(work.tenant for work in worker.children.works) == {"acme": 3, "globex": 40}
    assert await road.rows("SELECT DISTINCT attempts, not_before FROM circuit.queue") == [(0, None)]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_a_tenant_over_its_quota_keeps_no_lane_from_another_worker(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    """Its batch still runs when the lanes are to go; it fails, and its parts are refused."""
    await road.live(HandlerSpec("many", (("Contact", "afterInsert"),), batch_size=200))
    began, gate = asyncio.Event(), asyncio.Event()

    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.tenant != "acme":
            return Succeeded(Usage())
        began.set()
        await gate.wait()
        return Failed("no", Usage())

    own = tiers(executions=TierQuota(day=1))
    first = await road.start(fail, quotas=governed(own), lease=2.0)
    await road.take_in(*(contact(f"a{n}") for n in range(200)))
    await began.wait()
    second = await road.start(fail, quotas=governed(own), lease=2.0)
    await happens(lambda: bool(first.dispatcher._leaving), "it is to give nothing")
    gate.set()

    await happens(
        lambda: not first.dispatcher._leaving and len(second.lanes.held) == 32,
        "lanes are never handed over",
    )
    await road.take_in(*(Incoming(f"g{n}", tenant="globex") for n in range(200)))
    await road.until("SELECT DISTINCT tenant FROM circuit.queue", ["acme"])


async def test_a_batch_is_one_execution_and_one_of_echoes_is_none(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    await road.live(SCORE)
    governor = governed(tiers(executions=TierQuota(day=100)))
    worker = await road.start(score, quotas=governor)
    await road.take_in(*(contact(f"c{n}") for n in range(200)))
    await road.done()
    executed = len(worker.children.works)

    await road.take_in(*(contact(f"c{n}", "afterUpdate", score=1) for n in range(200)))
    await road.done()

    assert len(worker.children.works) == executed < 100
    await road.close_workers()
    await road.until("SELECT used FROM circuit.quotas_used(NULL, 30) WHERE period = 'day'", [executed])


async def test_a_retry_counts(road: Road, governed: Callable[[Tiers], TenantGovernor]) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        return Failed("no", Usage())

    await road.live(ALONE)
    worker = await road.start(fail, quotas=governed(tiers(executions=TierQuota(day=2))), attempts=5, backoff=0.01)
    await road.take_in(contact("c1"))

    await road.until("SELECT attempts FROM circuit.queue", [2])
    await road.until("SELECT used FROM circuit.quotas_used(NULL, 30) WHERE period = 'day'", [2])
    assert len(worker.children.works) == 2


async def test_an_execution_that_the_platform_lost_counts_once(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    async def lose(work: Work, broker: ExecutionBroker) -> Outcome:
        if len(worker.children.works) < 3:
            return Failed("its process was lost", Usage(), blameless=True)
        return Succeeded(Usage())

    await road.live(ALONE)
    worker = await road.start(lose, quotas=governed(tiers(executions=TierQuota(day=1))))
    await road.take_in(contact("c1"))

    await road.done()
    assert len(worker.children.works) == 3
    await road.until("SELECT used FROM circuit.quotas_used(NULL, 30) WHERE period = 'day'", [1])


async def test_they_go_on_in_their_order_when_there_is_more(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    await road.live(HandlerSpec("alone", (("Contact", "afterUpdate"),), batch_size=1))
    governor = governed(tiers(executions=TierQuota(day=2)))
    worker = await road.start(heard, quotas=governor)
    await road.take_in(*(contact("c1", "afterUpdate", n=n) for n in range(6)))
    await road.until("SELECT count(*) FROM circuit.queue", [4])

    governor.change(tiers(executions=TierQuota(day=100)))

    await road.done()
    assert [work.records[0]["n"] for work in worker.children.works] == list(range(6))


async def test_they_go_on_when_the_day_is_over(road: Road, governed: Callable[[Tiers], TenantGovernor]) -> None:
    await shift(road.pool, "2031-05-04 23:59:58Z")
    await road.live(ALONE)
    await road.start(heard, quotas=governed(tiers(executions=TierQuota(day=3))))

    await road.take_in(*(contact(f"c{n}") for n in range(5)))

    await road.done()
    assert await road.rows("SELECT starts::text FROM circuit.quota_use WHERE period = 'day'") == ["2031-05-05"]


async def test_a_worker_that_waits_for_a_quota_does_not_look_all_the_time(
    road: Road, governed: Callable[[Tiers], TenantGovernor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 55.0)
    await road.live(ALONE)
    governor = governed(tiers(executions=TierQuota(day=1)))
    worker = await road.start(heard, quotas=governor)
    await road.take_in(*(contact(f"c{n}") for n in range(300)))
    await road.until("SELECT count(*) FROM circuit.queue", [299])
    await happens(lambda: worker.dispatcher._asleep, "it does not sleep")

    await road.until("SELECT noticed FROM circuit.quota_use WHERE period = 'day'", [100])

    before, loads = governor.leases.statements, len(worker.children.works)
    await road.take_in(*(contact(f"d{n}") for n in range(50)))
    await road.take_in(Incoming("g1", tenant="globex"))
    await road.until("SELECT count(*) FROM circuit.queue WHERE tenant = 'globex'", [0])

    assert governor.leases.statements - before <= 4, "a report, a lease given back"
    assert len(worker.children.works) == loads + 1
    assert worker.dispatcher.backlog.waiting_tenants() == 0


async def test_nothing_is_added_to_the_road(
    road: Road, governed: Callable[[Tiers], TenantGovernor], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: Counter[str] = Counter()
    real = psycopg.AsyncCursor.execute

    async def counted(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
        said[" ".join(str(query).split())[:200]] += 1
        return await real(self, query, *rest, **more)

    async def statements(governor: TenantGovernor | None) -> Counter[str]:
        await road.take_in(*(contact(str(uuid7())) for _ in range(10)))  # wait for the worker: as after one that died
        said.clear()
        worker = await road.start(heard, **({} if governor is None else {"quotas": governor}))
        await road.done()
        await road.take_in(*(contact(str(uuid7())) for _ in range(300)))
        await road.done()
        assert len(worker.children.works) == 310
        await road.close_workers()
        return Counter(said)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    monkeypatch.setattr(module, "TELL", 3600)  # on a slow machine the reports were what is counted here
    await road.live(ALONE)
    without = await statements(None)
    assert any("circuit.journal" in each for each in without), "what waited is read as after a retry"
    governor = governed(tiers(executions=TierQuota(day=100_000)))
    held = await statements(governor)

    leases = sum(count for statement, count in held.items() if "lease_quotas" in statement)
    assert leases <= 10, "310 executions"
    assert {each for each in held if "quota" not in each} <= set(without) | {""}, "no other statement"


async def test_notices_reach_their_handler_once_each_though_nothing_is_left(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    await road.live(ALONE, TELL)
    told: list[Any] = []

    async def listen(work: Work, broker: ExecutionBroker) -> Outcome:
        if work.object == "Quota":
            told.extend(work.records)
        return Succeeded(Usage())

    several = [governed(tiers(executions=TierQuota(day=10))) for _ in range(3)]
    for each in several:
        await road.start(listen, quotas=each)
    await road.take_in(*(contact(f"c{n}") for n in range(30)))

    await happens(lambda: len(told) >= 2, "nobody was told")
    await road.until("SELECT count(*) FROM circuit.queue", [20])
    assert [each["percent"] for each in told] == [80, 100]
    (midnight,) = await road.rows("SELECT (date_trunc('day', now() AT TIME ZONE 'UTC') + '1 day') AT TIME ZONE 'UTC'")
    last = told[-1]
    assert last == {
        "id": "executions-day", "quota": "executions", "period": "day", "used": 10, "ceiling": 10, "percent": 100,
        "resets_at": midnight.isoformat(), "tier": "own", "upgrade": "https://example.com/plans",
    }  # fmt: skip
    assert 8 <= told[0]["used"] <= 10
    assert (
        await road.rows("SELECT source, account, tenant FROM circuit.deliveries WHERE source = 'circuit'")
        == [("circuit", "acme", "acme")] * 2
    )
    assert await road.rows("SELECT noticed FROM circuit.quota_use WHERE period = 'day'") == [100]


async def test_what_is_done_about_notices_may_also_call(
    road: Road, governed: Callable[[Tiers], TenantGovernor]
) -> None:
    await road.live(ALONE, TELL)
    refused: list[str] = []

    def well(got: Got) -> bytes:
        return response(200)

    async with receiving(well) as receiver:

        async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
            answer = await broker.request("http", {"method": "POST", "url": receiver.url, "body": work.object.encode()})
            if "refused" in answer:
                refused.append(work.object)
            return Succeeded(Usage())

        await road.start(handle, quotas=governed(tiers(api_calls=TierQuota(day=1))))
        await road.take_in(*(contact(f"c{n}") for n in range(5)))
        await road.done()

        await road.until("SELECT sum(records) FROM circuit.executions WHERE object = 'Quota'", [2])
    assert refused == ["Contact"] * 4
