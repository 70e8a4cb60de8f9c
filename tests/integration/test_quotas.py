"""Quotas of tenants: leased by any number of workers, and never over in sum."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import TenantSettings, TierQuota, TierSettings
from circuit_script.db.pool import Pool, open_pool
from circuit_script.errors import DatabaseUnavailable, QuotaExceeded
from circuit_script.tasks import end
from circuit_script.tenants import Tiers
from circuit_script.tenants import quotas as module
from circuit_script.tenants.entitlement import Notice, Refused, Ticket
from circuit_script.tenants.leases import seconds
from circuit_script.tenants.quotas import TenantGovernor
from tests.quota_clock import shift
from tests.road import eventually, happens

DAY, MONTH = "day", "month"


def tiers(executions: TierQuota | None = None, **more: Any) -> Tiers:
    """Tenants acme and globex of one tier, and nobody, who has none."""
    tier = TierSettings(executions=executions or TierQuota(day=10), upgrade="https://example.com/plans", **more)
    tenants = {"acme": TenantSettings(tier="own"), "globex": TenantSettings(tier="own"), "nobody": TenantSettings()}
    return Tiers({"own": tier}, tenants)


@dataclass
class Office:
    """A database with any number of governors, as many workers would have them."""

    pool: Pool
    governors: list[TenantGovernor] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    passed: float = 0.0  # seconds by which the governors' clocks are ahead

    def open(self, tiers: Tiers) -> TenantGovernor:
        governor = TenantGovernor(
            database=self.pool, tiers=tiers, worker=uuid7(), notify=self._notify, clock=lambda: seconds() + self.passed
        )
        self.governors.append(governor)
        self.tasks.append(asyncio.create_task(governor.run()))
        return governor

    async def stop(self, governor: TenantGovernor) -> None:
        governor.stop()
        await self.tasks[self.governors.index(governor)]

    async def kill(self, governor: TenantGovernor) -> None:
        """As kill -9: it says nothing any more."""
        await end([self.tasks[self.governors.index(governor)]])

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.pool.connection() as connection:
            found = await (await connection.execute(query.encode(), values)).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    async def run(self, query: str, *values: Any) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(query.encode(), values)

    async def shift(self, moment: str) -> None:
        await shift(self.pool, moment)

    async def used(self, tenant: str = "acme", quota: str = "executions", period: str = DAY) -> int:
        found = await self.rows(
            "SELECT used FROM circuit.quotas_used(ARRAY[%s], 30) WHERE quota = %s AND period = %s",
            tenant,
            quota,
            period,
        )
        return int(found[0]) if found else 0

    async def _notify(self, notice: Notice) -> None:
        self.notices.append(notice)


@pytest.fixture
async def office(database: str) -> AsyncIterator[Office]:
    pool = await open_pool(database, min_size=1, max_size=6, name="test")
    office = Office(pool)
    try:
        yield office
    finally:
        for governor in office.governors:
            governor.stop()
        await asyncio.wait_for(asyncio.gather(*office.tasks, return_exceptions=True), 20)
        await pool.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks, reports and second tries come within moments."""
    for name, value in {"LOOK": 0.01, "TELL": 0.05, "HEAR": 0.1, "SOON": 0.02, "AGAIN": 0.1}.items():
        monkeypatch.setattr(module, name, value)


async def take_all(governor: TenantGovernor, most: int = 10_000, **what: Any) -> int:
    """Take until it is refused; how many there were."""
    for taken in range(most):
        if await governor.take("acme", **what) is not None:
            return taken
    raise AssertionError(f"{most} were admitted and no end")


@pytest.mark.parametrize("ceiling", [1, 3, 10, 257])
async def test_so_many_are_admitted_as_the_tier_says_and_no_more(office: Office, ceiling: int) -> None:
    governor = office.open(tiers(TierQuota(day=ceiling)))

    assert await take_all(governor) == ceiling

    refused = await governor.take("acme")
    assert isinstance(refused, Refused)
    assert (refused.tenant, refused.quota, refused.period, refused.tier) == ("acme", "executions", DAY, "own")
    assert (refused.used, refused.ceiling, refused.upgrade) == (ceiling, ceiling, "https://example.com/plans")
    (midnight,) = await office.rows("SELECT (date_trunc('day', now() AT TIME ZONE 'UTC') + '1 day') AT TIME ZONE 'UTC'")
    assert refused.resets_at == midnight
    left = (await office.rows("SELECT extract(epoch FROM %s - now())::float8", midnight))[0]
    assert abs(refused.retry_after - left) < 5


@pytest.mark.parametrize("ceiling", [1, 7, 1000])
async def test_several_workers_that_race_never_admit_more_in_sum(office: Office, ceiling: int) -> None:
    governors = [office.open(tiers(TierQuota(day=ceiling))) for _ in range(3)]
    admitted = 0

    async def hammer(governor: TenantGovernor) -> None:
        nonlocal admitted
        while await governor.take("acme") is None:
            admitted += 1

    await asyncio.gather(*(hammer(each) for each in governors for _ in range(8)))

    assert ceiling * 0.8 <= admitted <= ceiling
    for each in governors:
        await office.stop(each)
    assert await office.used() == admitted, "what was not used was given back"


async def test_who_has_no_tier_has_no_quota_and_asks_nobody(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=1)))

    for _ in range(100):
        assert governor.admit("nobody")
        assert governor.admit("stranger")
        assert await governor.take("nobody") is None
        await governor.spend("acme", "api_calls")  # of which its tier says nothing

    assert len(governor) == 0
    assert governor.leases.statements == 0


async def test_in_the_common_case_nothing_is_asked_of_the_database(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=1_000_000)))
    assert await governor.take("acme") is None
    before = governor.leases.statements

    assert all(governor.admit("acme") for _ in range(5_000))

    assert governor.leases.statements == before


async def test_leases_are_fetched_ahead_in_proportion_to_use(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=100_000)))
    asked = 0
    for _ in range(20_000):
        if not governor.admit("acme"):
            asked += 1
            assert await governor.take("acme") is None
        await asyncio.sleep(0)

    assert asked < 20, "seldom had anybody to wait"
    assert governor.leases.statements < 60


async def test_a_call_spends_and_hears_why_not(office: Office) -> None:
    governor = office.open(tiers(api_calls=TierQuota(day=2)))
    await governor.spend("acme", "api_calls")
    await governor.spend("acme", "api_calls")

    with pytest.raises(
        QuotaExceeded, match=r"quota of api calls a day is used up: 2 of 2.*https://example.com"
    ) as caught:
        await governor.spend("acme", "api_calls")

    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 86_400
    assert await governor.take("globex", "api_calls") is None, "another tenant has its own"


async def test_several_at_once_are_taken_whole_or_not(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=10)))

    assert await governor.take("acme", amount=7) is None
    assert await governor.take("acme", amount=4) is not None
    assert await governor.take("acme", amount=3) is None


async def test_what_was_not_used_can_be_given_back(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=1)))
    ticket = await governor.enter("acme")
    assert isinstance(ticket, Ticket)
    governor.give_back(ticket)

    assert await governor.take("acme") is None
    assert await governor.take("acme") is not None


async def test_the_month_bounds_also_the_day(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=5, month=7)))
    assert await take_all(governor) == 5
    await office.shift("2030-03-14 23:59:57Z")
    governor = office.open(tiers(TierQuota(day=5, month=7)))
    assert await take_all(governor) == 5
    await office.stop(governor)
    await office.shift("2030-03-15 09:00Z")
    governor = office.open(tiers(TierQuota(day=5, month=7)))

    assert await take_all(governor) == 2

    refused = await governor.take("acme")
    assert refused is not None
    assert (refused.period, f"{refused.resets_at:%F %T}") == (MONTH, "2030-04-01 00:00:00")
    assert refused.retry_after == pytest.approx((16 * 24 + 15) * 3600, abs=60)


@pytest.mark.usefixtures("impatient")
async def test_a_day_ends_by_the_databases_clock(office: Office) -> None:
    await office.shift("2030-12-31 23:59:58.5Z")
    governor = office.open(tiers(TierQuota(day=20, month=1000)))
    before = await take_all(governor)
    days = await office.rows("SELECT DISTINCT (circuit.quota_now() AT TIME ZONE 'UTC')::date::text")
    assert (before, days) == (20, ["2030-12-31"])

    async def admitted() -> bool:
        return await governor.take("acme") is None

    await eventually(admitted, "the next day never began")

    assert 1 + await take_all(governor) == 20
    assert await office.rows("SELECT starts::text FROM circuit.quota_use ORDER BY period") == ["2031-01-01"] * 2


async def test_a_lease_ends_with_its_day_whatever_the_host_thinks(office: Office) -> None:
    """The host slept, and its clock for people is of no account."""
    await office.shift("2030-06-01 12:00Z")
    governor = office.open(tiers(TierQuota(day=1000)))
    assert await governor.take("acme") is None
    assert governor.admit("acme")

    office.passed = 12 * 3600 + 1
    assert not governor.admit("acme"), "it was yesterday's"
    await office.shift("2030-06-02 00:00:01Z")
    assert await governor.take("acme") is None
    assert await office.rows("SELECT day::text FROM circuit.quota_leases") == ["2030-06-02"]


async def test_a_database_whose_clock_steps_back_begins_no_day_again(office: Office) -> None:
    await office.shift("2030-06-02 00:00:05Z")
    governor = office.open(tiers(TierQuota(day=3)))
    assert await take_all(governor) == 3
    await office.shift("2030-06-01 23:59:50Z")

    assert await take_all(office.open(tiers(TierQuota(day=3)))) == 0


@pytest.mark.usefixtures("impatient")
async def test_what_nobody_uses_goes_to_who_needs_it(office: Office) -> None:
    first, second = (office.open(tiers(TierQuota(day=400))) for _ in range(2))
    assert await first.take("acme") is None
    (held,) = await office.rows("SELECT granted FROM circuit.quota_leases")
    assert held > 1

    taken = 0

    async def all_taken() -> bool:
        nonlocal taken
        while await second.take("acme") is None:
            taken += 1
        return taken == 399

    await eventually(all_taken, lambda: f"{taken} of 399")
    await happens(lambda: len(first) == 0, "an idle tenant stays in memory")


async def test_many_tenants_cost_no_memory_for_ever(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    many = [f"tenant {number}" for number in range(2_000)]
    tier = TierSettings(executions=TierQuota(day=100))
    governor = office.open(Tiers({"own": tier}, {each: TenantSettings(tier="own") for each in many}))
    await asyncio.gather(*(governor.take(each) for each in many))
    assert len(governor) == 2_000
    assert governor.leases.statements < 200

    office.passed = 301.0
    await happens(lambda: len(governor) == 0, "they stay in memory")

    async def given_back() -> bool:
        return await office.rows("SELECT count(*) FROM circuit.quota_leases") == [0]

    await eventually(given_back, "they are not given back")
    assert await office.rows("SELECT DISTINCT granted FROM circuit.quota_use") == [1]


async def test_a_worker_that_is_killed_takes_no_more_than_its_chunk_along(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=1_000)))
    for _ in range(20):
        assert await governor.take("acme") is None
        await asyncio.sleep(0)
    await office.kill(governor)
    (held,) = await office.rows("SELECT granted FROM circuit.quota_leases")
    assert 20 <= held <= 20 + 1_000 // 20

    other = office.open(tiers(TierQuota(day=1_000)))
    assert await take_all(other) == 1_000 - held, "never over"
    assert await office.used() < 1_000
    await office.run("UPDATE circuit.quota_leases SET at = at - interval '31 s' WHERE used < 20")  # its lease ends

    assert await office.used() == 1_000, "what it may have used counts"


async def test_an_answer_that_is_lost_costs_nothing(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=10)))
    assert await governor.take("acme") is None
    real = governor.leases._rows

    async def lost(*asked: Any) -> Any:
        await real(*asked)
        governor.leases._rows = real  # type: ignore[method-assign]
        raise ConnectionResetError("the line is cut after the commit")

    governor.leases._rows = lost  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await governor.take("acme", amount=3)

    async def again() -> bool:
        with contextlib.suppress(DatabaseUnavailable):
            return await governor.take("acme", amount=3) is None
        return False

    await eventually(again, "never again")
    assert await take_all(governor) == 6


async def test_while_the_database_is_away_what_is_leased_goes_on(office: Office, server: Any) -> None:
    governor = office.open(tiers(TierQuota(day=1_000)))
    assert await governor.take("acme") is None
    left = governor._entries["acme", "executions"].lease.left
    assert left > 2
    await office.pool.close()

    for _ in range(left):
        assert await governor.take("acme") is None
    with pytest.raises(DatabaseUnavailable):
        await governor.take("acme")
