"""Who tells tenants how much of a quota they have used: once per quota, period and threshold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import psycopg
import structlog

from circuit_script.errors import CircuitError
from circuit_script.tenants.entitlement import Notice
from circuit_script.tenants.leases import Lease, Leases, Period

log = structlog.get_logger()

PAUSE = 1.0  # seconds before a notice that could not be stored is tried again
GOODBYE = 3.0  # seconds that notices have when the worker stops
THRESHOLDS = (80, 100)  # percent

Key = tuple[str, str, Period]


def crossed(period: Period) -> list[int]:
    """The thresholds that its use has reached and of which nobody was told."""
    if period.ceiling is None:
        return []
    return [each for each in THRESHOLDS if each > period.noticed and period.used * 100 >= period.ceiling * each]


class Notifier:
    """``notify`` stores a notice, and may get one again; what was stored is noted in the database, for all workers."""

    def __init__(self, leases: Leases, notify: Callable[[Notice], Awaitable[None]]) -> None:
        self._leases = leases
        self._notify = notify
        self._telling: dict[Key, asyncio.Task[None]] = {}
        self._told_of: dict[tuple[str, str, str], Period] = {}  # the last by tenant, quota and period's name
        self._stopping = False

    def heard(self, lease: Lease, periods: Sequence[Period]) -> None:
        """So much is used: tell the tenant of each threshold that was crossed."""
        for heard in periods:
            period = self._known(lease, heard)
            key = lease.tenant, lease.quota, replace(period, used=0, noticed=0)
            if crossed(period) and key not in self._telling:
                self._telling[key] = asyncio.create_task(self._tell(key, lease, period))

    async def finish(self) -> None:
        """What cannot be stored soon is left to the next worker that hears of it."""
        self._stopping = True
        if self._telling:
            await asyncio.wait(set(self._telling.values()), timeout=GOODBYE)

    def _known(self, lease: Lease, heard: Period) -> Period:
        """``heard`` with what was told since the database was asked for it."""
        told = self._told_of.get((lease.tenant, lease.quota, heard.name))
        if told is None or (told.starts, told.ceiling) != (heard.starts, heard.ceiling):
            return heard
        return replace(heard, noticed=max(heard.noticed, told.noticed))

    async def _tell(self, key: Key, lease: Lease, period: Period) -> None:
        what = {"tenant": lease.tenant, "quota": lease.quota, "period": period.name, "used": period.used}
        try:
            for percent in crossed(period):
                while not await self._told(Notice(lease.tenant, lease.quota, period, percent, lease.tier)):
                    if self._stopping:
                        return
                    await asyncio.sleep(PAUSE)
                self._told_of[lease.tenant, lease.quota, period.name] = replace(period, noticed=percent)
                log.warning("quota.notice", **what, percent=percent, ceiling=period.ceiling)
        finally:
            del self._telling[key]

    async def _told(self, notice: Notice) -> bool:
        try:
            await self._notify(notice)
            await self._leases.noticed(notice.tenant, notice.quota, notice.period, notice.percent)
        except (psycopg.Error, OSError, CircuitError) as error:
            log.warning("quota.notice", tenant=notice.tenant, error=str(error), next="trying again")
            return False
        return True
