"""Chunks of quotas that a worker holds, and the one statement by which it takes, reports and gives them back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import structlog

from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import CircuitError, DatabaseUnavailable
from circuit_script.failpoints import areach
from circuit_script.tenants.tiers import Tier

log = structlog.get_logger()

PATIENCE = 3.0  # seconds for the database
SILENT = 30.0  # seconds after which what a silent worker holds counts as used

LEASE = """
SELECT * FROM circuit.lease_quotas(
    %s, %s, %s, %s::int[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::boolean[], %s::boolean[])
"""
NOTICED = """
UPDATE circuit.quota_use u
SET noticed = CASE u.noticed_of WHEN n.ceiling THEN greatest(u.noticed, n.percent) ELSE n.percent END,
    noticed_of = n.ceiling
FROM (VALUES (%s::bigint, %s::smallint)) AS n (ceiling, percent)
WHERE u.tenant = %s AND u.quota = %s AND u.period = %s AND u.starts = %s
"""


USED = "SELECT tenant, quota, period, used FROM circuit.quotas_used(%s::text[], %s)"
TODAY = "SELECT (circuit.quota_now() AT TIME ZONE 'UTC')::date"

Used = dict[tuple[str, str, str], int]  # by tenant, quota and period


def seconds() -> float:
    """A clock that nobody sets, and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(slots=True, eq=False)
class Lease:
    """A chunk of one quota of one tenant, of one day of the database's. ``used`` and ``left`` are units of it;
    ``until`` is its end by the worker's clock, 0 before it was heard of."""

    slot: int
    tenant: str
    quota: str
    tier: Tier
    left: int = 0
    used: int = 0
    told: int = 0  # of what was used
    until: float = 0.0
    sent: bool = False
    fresh: bool = True  # no answer has been heard yet
    closing: bool = False
    refused: bool = False  # the database cannot do with what it says, however often it is asked


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call says of one lease, and wants for it."""

    lease: Lease
    need: int = 0
    want: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """How much of one quota a tenant has used in a day or in a month. ``noticed`` is in percent of this ceiling."""

    name: str
    starts: date
    used: int
    ceiling: int | None
    noticed: int = 0

    @property
    def resets_at(self) -> datetime:
        """When the next one begins."""
        days = timedelta(days=1 if self.name == "day" else 32)
        following = self.starts + days
        day = following if self.name == "day" else following.replace(day=1)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    @property
    def percent(self) -> int:
        """Of the ceiling, rounded down; 0 without one."""
        return self.used * 100 // self.ceiling if self.ceiling else 0


@dataclass(frozen=True, slots=True)
class Granted:
    """The database's answer for one lease: how many units came to it, and how day and month stand.
    ``elsewhere`` are units that other workers hold and may give back; it is ``scarce`` where others use it, too, and
    less than a quarter is left for all; ``seconds`` are left of the lease's day."""

    ask: Ask
    units: int
    seconds: float
    periods: tuple[Period, Period]
    elsewhere: int
    scarce: bool


async def read_use(connection: Connection, tenants: Sequence[str]) -> tuple[date, Used]:
    """The database's day, and what these tenants have used; of what is not there, nothing. Raises psycopg.Error."""
    row = await (await connection.execute(TODAY)).fetchone()
    assert row is not None  # it reads no table
    found = await (await connection.execute(USED, [list(tenants), SILENT])).fetchall()
    return row[0], {(tenant, quota, period): used for tenant, quota, period, used in found}


class Leases:
    """One worker's line to the database. Calls follow one another: their order is what makes a lost answer harmless."""

    def __init__(self, database: Pool, worker: UUID, clock: Callable[[], float] = seconds) -> None:
        self._database = database
        self._worker = worker
        self._clock = clock
        self._slots = itertools.count(1)
        self._calls = itertools.count(1)
        self.statements = 0

    def open(self, tenant: str, quota: str, tier: Tier) -> Lease:
        """A lease of nothing yet."""
        return Lease(next(self._slots), tenant, quota, tier)

    async def call(self, asks: Sequence[Ask]) -> list[Granted]:
        """Tell how each lease stands and get what is granted; of one that the database refuses, nothing.

        Raises DatabaseUnavailable; then nothing is known.
        """
        asked = self._clock()
        told = [(ask.lease.used, 0 if ask.lease.closing else ask.lease.left) for ask in asks]
        for ask in asks:
            ask.lease.sent = True
        try:
            await areach("quotas.lease")
            rows = await self._rows(LEASE, self._values(asks, told))
        except (psycopg.DataError, psycopg.IntegrityError) as error:  # not of the database: of what one of them says
            if len(asks) > 1:
                return [granted for ask in asks for granted in await self.call([ask])]
            lease = asks[0].lease
            lease.refused = True
            log.error(
                "quotas.refused", tenant=lease.tenant, quota=lease.quota, error=str(error), next="nothing is granted"
            )
            return []
        except (psycopg.Error, OSError, CircuitError) as error:
            raise DatabaseUnavailable(f"quotas: {error}") from None
        by_slot = {ask.lease.slot: (ask, used) for ask, (used, _) in zip(asks, told, strict=True)}
        found = []
        for slot, units, day, left, day_used, month_used, day_noticed, month_noticed, elsewhere, scarce, known in rows:
            ask, used = by_slot[slot]
            lease = ask.lease
            if not known:  # the next one is another
                lease.left, lease.until = 0, asked
                continue
            lease.fresh, lease.told, lease.until = False, used, asked + left
            lease.left += units
            per_day, per_month = lease.tier.ceilings(lease.quota)
            of_day = Period("day", day, day_used, per_day, day_noticed)
            of_month = Period("month", day.replace(day=1), month_used, per_month, month_noticed)
            found.append(Granted(ask, units, left, (of_day, of_month), elsewhere, scarce))
        return found

    async def noticed(self, tenant: str, quota: str, period: Period, percent: int) -> None:
        """Remember that the tenant was told. Raises psycopg.Error, OSError."""
        await self._rows(NOTICED, [period.ceiling, percent, tenant, quota, period.name, period.starts])

    def _values(self, asks: Sequence[Ask], told: Sequence[tuple[int, int]]) -> list[Any]:
        leases = [ask.lease for ask in asks]
        ceilings = [lease.tier.ceilings(lease.quota) for lease in leases]
        return [
            self._worker,
            next(self._calls),
            SILENT,
            [lease.slot for lease in leases],
            [lease.tenant for lease in leases],
            [lease.quota for lease in leases],
            [day for day, _ in ceilings],
            [month for _, month in ceilings],
            [used for used, _ in told],
            [left for _, left in told],
            [ask.need for ask in asks],
            [ask.want for ask in asks],
            [lease.fresh for lease in leases],
            [lease.closing for lease in leases],
        ]

    async def _rows(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(PATIENCE), self._database.connection() as connection:
            self.statements += 1
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []
