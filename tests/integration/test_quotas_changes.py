"""Quotas where something changes or is wrong: a day, a clock, a tier."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from circuit_script.config import TenantSettings, TierQuota, TierSettings
from circuit_script.errors import DatabaseUnavailable
from circuit_script.tenants import Tiers
from circuit_script.tenants.entitlement import Ticket
from circuit_script.tenants.leases import Lease
from tests.integration import test_quotas as plain
from tests.integration.test_quotas import Office, take_all, tiers
from tests.road import eventually, happens

office, impatient = plain.office, plain.impatient


@pytest.mark.usefixtures("impatient")
async def test_what_was_taken_yesterday_is_not_given_back_to_today(office: Office) -> None:
    await office.shift("2030-03-01 23:59:50Z")
    governor = office.open(tiers(TierQuota(day=10)))
    ticket = await governor.enter("acme")
    assert isinstance(ticket, Ticket)

    await office.shift("2030-03-02 00:01:30Z")
    office.passed = 100.0
    admitted = await take_all(governor)
    governor.give_back(ticket)

    assert admitted + await take_all(governor) == 10


@pytest.mark.parametrize("clock", ["2031-12-31 12:00Z", "2030-12-10 12:00Z"])
async def test_a_clock_that_was_ahead_for_a_while_starves_nobody(office: Office, clock: str) -> None:
    tier = tiers(TierQuota(day=10, month=25))
    await office.shift(clock)
    stays = office.open(tier)
    assert await take_all(stays) == 10

    for day, left in ("2030-11-21", 10), ("2030-11-22", 10), ("2030-11-23", 5), ("2030-12-01", 10):
        await office.shift(f"{day} 12:00Z")
        governor = office.open(tier)
        assert await take_all(governor) == left, day
        await office.stop(governor)

    office.passed = 60.0
    assert await stays.take("acme") is not None, "who was there then has what is left now"
    await office.shift("2030-12-02 12:00Z")
    office.passed = 120.0
    assert await take_all(stays) == 10


async def test_a_tier_that_the_database_refuses_stops_nobody_else(office: Office) -> None:
    big = TierSettings(executions=TierQuota.model_construct(day=10**19, month=None))
    own = TierSettings(executions=TierQuota(day=10))
    tenants = {"acme": TenantSettings(tier="own"), "globex": TenantSettings(tier="big")}
    governor = office.open(Tiers({"own": own, "big": big}, tenants))

    found = await asyncio.gather(governor.take("acme"), governor.take("globex"), return_exceptions=True)

    assert found[0] is None
    assert isinstance(found[1], DatabaseUnavailable)
    with pytest.raises(DatabaseUnavailable):
        await governor.take("globex")
    assert await take_all(governor) == 9


def test_no_tier_has_more_than_can_be_counted() -> None:
    with pytest.raises(ValidationError):
        TierQuota(day=10**19)


@pytest.mark.usefixtures("impatient")
async def test_a_tenant_that_is_slow_waits_once(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=10_000)))
    assert await governor.take("acme") is None
    entry = governor._entries["acme", "executions"]

    for _ in range(10):
        told = entry.told
        await happens(lambda told=told: entry.told > told, "the database never hears of what is held")  # type: ignore[misc]
        assert governor.admit("acme"), "longer than a report apart"

    assert governor.leases.statements < 30


@pytest.mark.usefixtures("impatient")
async def test_who_waits_while_tiers_change_is_held_to_the_new_ones(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    governor = office.open(tiers(TierQuota(day=1000)))
    real, asked, gate = governor.leases._rows, asyncio.Event(), asyncio.Event()

    async def slow(*said: Any) -> Any:
        asked.set()
        await gate.wait()
        return await real(*said)

    monkeypatch.setattr(governor.leases, "_rows", slow)
    early = asyncio.create_task(governor.take("acme"))
    await asked.wait()
    governor.change(tiers(TierQuota(day=1)))
    late = asyncio.create_task(governor.take("acme"))
    gate.set()

    found = await asyncio.wait_for(asyncio.gather(early, late), 10)

    assert sum(each is None for each in found) == 1

    async def given_back() -> bool:
        return await office.rows("SELECT DISTINCT granted FROM circuit.quota_use") == [1]

    await eventually(given_back, "what was leased for the tier before is kept")


@pytest.mark.usefixtures("impatient")
async def test_of_another_ceiling_there_are_other_notices(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=10)))
    assert await take_all(governor) == 10
    await happens(lambda: len(office.notices) == 2, "nobody was told")

    governor.change(tiers(TierQuota(day=40)))
    assert await take_all(governor) == 30

    await happens(lambda: len(office.notices) == 4, "of the new tier nobody was told")
    assert [(each.percent, each.period.ceiling) for each in office.notices] == [
        (80, 10),
        (100, 10),
        (80, 40),
        (100, 40),
    ]


@pytest.mark.usefixtures("impatient")
async def test_an_answer_that_is_older_than_a_notice_tells_nobody_again(office: Office) -> None:
    governor = office.open(tiers(TierQuota(day=10)))
    assert await take_all(governor) == 10
    await happens(lambda: len(office.notices) == 2, "nobody was told")
    notifier, seen = governor._notifier, office.notices[1]
    lease = Lease(tenant=seen.tenant, quota=seen.quota, tier=seen.tier, slot=0)

    notifier.heard(lease, [replace(seen.period, noticed=0)])
    notifier.heard(lease, [replace(seen.period, ceiling=8, noticed=0)])

    await happens(lambda: len(office.notices) == 4, "of the new ceiling nobody was told")
    assert [(each.percent, each.period.ceiling) for each in office.notices[2:]] == [(80, 8), (100, 8)]
