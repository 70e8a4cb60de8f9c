"""Whatever workers do, die of or sleep through: a quota is never over, and never stuck."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_script.config import TierQuota
from circuit_script.db.pool import open_pool
from circuit_script.errors import DatabaseUnavailable
from circuit_script.tenants import leases
from circuit_script.tenants.entitlement import Refused, Ticket
from circuit_script.tenants.quotas import TenantGovernor
from tests.integration.test_quotas import Office, tiers

DAY, MONTH = 8, 20
NOON = "2030-01-{day} 12:00Z"
HOURS = 24 * 3600.0

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["take"] * 6 + ["race", "give back", "kill", "stop", "lose", "idle", "night", "clock", "change"]
        ),
        st.integers(0, 2),
        st.integers(1, 3),
    ),
    min_size=5,
    max_size=40,
)


class Life:
    """Three workers' life with one quota, and what they admitted on each day of the database's."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.day = 10
        self.admitted: Counter[int] = Counter()
        self.lost = False  # units went with a worker, or with an answer
        self.tickets: list[tuple[TenantGovernor, int, Ticket]] = []
        self.workers = [self._open() for _ in range(3)]

    def _open(self) -> TenantGovernor:
        return self.office.open(tiers(TierQuota(day=DAY, month=MONTH)))

    async def step(self, what: str, which: int, amount: int) -> None:
        worker = self.workers[which]
        match what:
            case "take":
                await self._take(worker, amount)
            case "race":
                await asyncio.gather(*(self._take(each, amount) for each in self.workers for _ in range(3)))
            case "give back":
                await self._take(worker, 1)
                self._give_back(amount)
            case "change":  # of tiers; what was held goes back
                worker.change(worker.tiers)
            case "kill":
                await self.office.kill(worker)
                self.workers[which], self.lost = self._open(), True
            case "stop":
                await self.office.stop(worker)
                self.workers[which] = self._open()
            case "lose":
                self._lose_an_answer(worker)
            case "idle":
                self.office.passed += 301.0
                await asyncio.sleep(0)
            case "night":
                self.day += 1
                self.office.passed += HOURS
                await self.office.shift(NOON.format(day=self.day))
            case "clock" if await self._has_begun():  # the database's steps back, as after a failover
                await self.office.shift(f"2030-01-{self.day - 1} 23:59:00Z")

    async def _has_begun(self) -> bool:
        """Whether the database knows of this day; else it is still the day before."""
        begun = await self.office.rows("SELECT DISTINCT starts::text FROM circuit.quota_use WHERE period = 'day'")
        return begun == [f"2030-01-{self.day}"]

    async def _take(self, worker: TenantGovernor, amount: int) -> bool:
        try:
            found = await worker.enter("acme", amount=amount)
        except DatabaseUnavailable:
            worker._away_until = 0.0  # nobody waits here
            return False
        if isinstance(found, Refused):
            return False
        self.admitted[self.day] += amount
        self.tickets.append((worker, self.day, found))
        return True

    def _give_back(self, which: int) -> None:
        """Of what was taken, something of a while ago: where its day is over or its lease closed, it stays taken."""
        if not self.tickets:
            return
        worker, day, ticket = self.tickets.pop(-min(which, len(self.tickets)))
        assert ticket.lease is not None
        before = ticket.lease.left
        worker.give_back(ticket)
        if worker in self.workers:
            self.admitted[day] -= ticket.lease.left - before

    def _lose_an_answer(self, worker: TenantGovernor) -> None:
        real, self.lost = worker.leases._rows, True

        async def cut(*asked: object) -> list[tuple[object, ...]]:
            worker.leases._rows = real  # type: ignore[method-assign]
            await real(*asked)  # type: ignore[arg-type]
            raise ConnectionResetError("the line is cut after the commit")

        worker.leases._rows = cut  # type: ignore[method-assign, assignment]

    def holds(self) -> None:
        assert all(count <= DAY for count in self.admitted.values()), self.admitted
        assert self.admitted.total() <= MONTH, self.admitted

    async def ends(self) -> None:
        for worker in self.workers:
            await self.office.stop(worker)
        await self.office.shift(NOON.format(day=self.day))
        left = min(DAY - self.admitted[self.day], MONTH - self.admitted.total())
        last = self._open()
        taken = 0
        while await self._take(last, 1):
            taken += 1
        self.holds()
        if not self.lost:
            assert taken == left, "what nobody used was not given back"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are lost where a step says so, never because the machine is slow."""
    monkeypatch.setattr(leases, "PATIENCE", 60.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_never_over_and_never_stuck(database: str, steps: list[Step]) -> None:
    async def run() -> None:
        pool = await open_pool(database, min_size=1, max_size=4, name="test")
        office = Office(pool)
        try:
            await office.run("TRUNCATE circuit.quota_use, circuit.quota_leases")
            await office.shift(NOON.format(day=10))
            life = Life(office)
            for step in steps:
                await life.step(*step)
                life.holds()
            await life.ends()
        finally:
            for governor in office.governors:
                governor.stop()
            await asyncio.gather(*office.tasks, return_exceptions=True)
            await pool.close()

    asyncio.run(run())
