"""Quotas of tenants per day and month, held exactly by any number of workers without a transaction on the road.

A worker leases a quota in chunks and counts in memory. Leases are fetched ahead, in proportion to use, by one task;
what is not used for some minutes is given back, and after seconds where others may need it. A chunk counts as used from
the moment it is leased, until its worker says otherwise: so the sum of what is admitted is never over the quota,
whatever crashes. What a killed worker held and had not used is lost to the tenant until the period ends: at most one
chunk of each quota, a twentieth of its ceiling.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

import structlog

from circuit_script.db.pool import Pool
from circuit_script.errors import DatabaseUnavailable
from circuit_script.tenants.entitlement import FREE, Notice, Refused, Ticket
from circuit_script.tenants.leases import Ask, Granted, Lease, Leases, Period, seconds
from circuit_script.tenants.notifier import Notifier, crossed
from circuit_script.tenants.tiers import EXECUTIONS, Tier, Tiers

log = structlog.get_logger()

AHEAD = 2.0  # seconds of use that a chunk is to last
SHARE = 20  # a chunk is at most this part of its ceiling
FIRST = 100  # the first one of a tenant that was quiet is this part, and nobody fetches less ahead
FEW = 2  # nor less than so many
LOOK = 1.0  # seconds between looks at what is held
TELL = 5.0  # seconds after which use is reported, and what was not used is given back where it is scarce
HEAR = 20.0  # seconds after which the database hears of what is held and not used, lest it counts as used
KEEP = 300.0  # seconds after which what was not used is given back in any case
AGAIN = 55.0  # seconds after which a quota that was used up is asked for again
SOON = 2.0  # the same, while other workers hold some of it
AWAY = 0.5  # seconds in which nobody asks a database again that was away
MANY = 500  # leases in one statement
KEPT = 10_000  # leases that could not be given back yet


@dataclass(slots=True, eq=False)
class _Entry:
    """One quota of one tenant that this worker uses. Times are of the governor's clock."""

    lease: Lease
    touched: float
    told: float  # when use was reported
    want: int = 0  # units that are to be at hand
    drawn: int = 0  # since units came last,
    filled: float = 0.0  # which was then
    refused: Refused | None = None
    asks_again: float = 0.0
    scarce: bool = False  # others may need what is held here
    periods: tuple[Period, ...] = ()  # as they were told last
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)
    asked: int = 0  # for so many of them, when the database was asked last

    def draw(self, amount: int, moment: float) -> Ticket | None:
        lease = self.lease
        if lease.left < amount or moment >= lease.until:
            return None
        lease.left -= amount
        lease.used += amount
        self.drawn += amount
        self.touched = moment
        return Ticket(lease, amount)

    def refusal(self, moment: float) -> Refused | None:
        """Why none can be taken now, as far as is known without asking."""
        left = self.asks_again - moment
        if self.refused is None or left <= 0:
            return None
        passed = self.refused.asks_again - left
        return replace(self.refused, retry_after=max(1.0, self.refused.retry_after - passed), asks_again=left)

    def heard(self, granted: Granted, moment: float) -> None:
        """What the database says of it."""
        self.told, self.periods, self.scarce = moment, granted.periods, granted.scarce
        if granted.ask.need:
            self.touched = moment
        if granted.units:
            self.filled, self.drawn = moment, 0
        if granted.ask.need <= granted.units:
            self.refused = None if granted.ask.need else self.refused
        elif granted.seconds > 0:
            asks_again = min(SOON if granted.elsewhere else AGAIN, granted.seconds)
            self.refused = _refusal(self.lease, granted, asks_again)
            self.asks_again = moment + asks_again

    def answered(self, error: DatabaseUnavailable | None = None) -> None:
        """Whoever waits may look again."""
        self.asked = len(self.waiting)
        self.answered_so_far(error)

    def answered_so_far(self, error: DatabaseUnavailable | None = None) -> None:
        """Those for whom the database was asked may look again; who came meanwhile is still to be asked for."""
        for _ in range(min(self.asked, len(self.waiting))):
            _, future = self.waiting.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def is_to_go(self, moment: float) -> bool:
        """Whether what is held is to be given back, as nobody uses it."""
        idle = moment - self.touched
        return idle >= TELL and (self.scarce or not self.lease.left or idle >= KEEP)

    def is_to_tell(self, moment: float) -> bool:
        """Whether its use is to be reported: after some seconds, or when a threshold may have been crossed."""
        untold = self.lease.used - self.lease.told
        if not untold:
            return self.lease.left > 0 and moment - self.told >= HEAR
        return moment - self.told >= TELL or any(
            each.ceiling is not None and crossed(replace(each, used=each.used + untold)) for each in self.periods
        )


class TenantGovernor:
    """Holds tenants to the quotas of their tiers. ``run`` is the task that leases and reports, until ``stop``.

    ``notify`` stores a notice; it gets each at least once. ``clock`` gives seconds, and is never set.
    """

    def __init__(
        self,
        *,
        database: Pool,
        tiers: Tiers,
        worker: UUID,
        notify: Callable[[Notice], Awaitable[None]],
        clock: Callable[[], float] = seconds,
    ) -> None:
        self.tiers = tiers
        self.leases = Leases(database, worker, clock)
        self._notifier = Notifier(self.leases, notify)
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._hungry: dict[_Entry, None] = {}
        self._closing: deque[Lease] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._away_until = 0.0
        self._look_at = 0.0

    def __len__(self) -> int:
        """How many quotas of tenants are in memory now."""
        return len(self._entries)

    def admit(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket | None:
        """Take some of what is at hand: no more than a look into a dictionary. None says to ask ``enter``."""
        if self.tiers.of(tenant) is None:
            return FREE
        entry = self._entries.get((tenant, quota))
        if entry is None or (ticket := entry.draw(amount, self._clock())) is None:
            return None
        if entry.lease.left * 2 < entry.want:
            self._feed(entry)
        return ticket

    def give_back(self, ticket: Ticket) -> None:
        """What was taken was not used. Where its lease is closed or its day is over, it counts all the same."""
        lease = ticket.lease
        if lease is not None and not lease.closing and self._clock() < lease.until:
            lease.used -= ticket.amount
            lease.left += ticket.amount

    async def enter(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Ticket | Refused:
        """Take some, or say why not; it waits for a lease if none is at hand.

        Raises DatabaseUnavailable when nobody can say, as the database is away and the lease is used up.
        """
        while (ticket := self.admit(tenant, quota, amount)) is None:
            entry = self._entry(tenant, quota)  # another one each time: the tiers may have changed
            if entry is None:
                return FREE
            if (refused := entry.refusal(self._clock())) is not None:
                return refused
            await self._wait_for(entry, amount)
        return ticket

    async def take(self, tenant: str, quota: str = EXECUTIONS, amount: int = 1) -> Refused | None:
        """Take some for good, or say why not; as `enter`."""
        found = await self.enter(tenant, quota, amount)
        return found if isinstance(found, Refused) else None

    async def spend(self, tenant: str, what: str, amount: int = 1) -> None:
        """Take some. Raises QuotaExceeded when it is used up, DatabaseUnavailable when nobody can say."""
        if (refused := await self.take(tenant, what, amount)) is not None:
            raise refused.error

    async def run(self) -> None:
        """Lease ahead, report and give back, until stopped; then give back everything."""
        while not self._stopping:
            await self._pause()
            await self._round()
        await self._finish()

    def change(self, tiers: Tiers) -> None:
        """Hold tenants to these from now on."""
        self.tiers = tiers
        for entry in self._entries.values():
            self._close(entry)
            entry.answered()
        self._entries.clear()
        self._hungry.clear()
        self._wake.set()

    def stop(self) -> None:
        """Nothing more will be taken."""
        self._stopping = True
        self._wake.set()

    def _entry(self, tenant: str, quota: str) -> _Entry | None:
        """What is known of it here; None where there is no bound."""
        key = tenant, quota
        if (entry := self._entries.get(key)) is None:
            tier = self.tiers.of(tenant)
            if tier is None or tier.ceilings(quota) == (None, None):
                return None
            moment = self._clock()
            entry = self._entries[key] = _Entry(self.leases.open(tenant, quota, tier), moment, moment)
            entry.want = _first(tier, quota)
        return entry

    def _feed(self, entry: _Entry) -> None:
        if entry not in self._hungry:
            self._hungry[entry] = None
            self._wake.set()

    async def _wait_for(self, entry: _Entry, amount: int) -> None:
        """Until the database has said something of this entry. Raises DatabaseUnavailable."""
        if self._stopping or self._clock() < self._away_until or entry.lease.refused:
            raise DatabaseUnavailable("No quota can be leased now.")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.waiting.append((amount, future))
        entry.touched = self._clock()
        self._feed(entry)
        await future

    async def _pause(self) -> None:
        """Until something is wanted, or a look is due; where nothing is held, none is."""
        while not self._hungry and not self._stopping:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK if self._entries or self._closing else None):
                    await self._wake.wait()
            if self._clock() >= self._look_at:
                self._look()
            if self._closing:
                return

    def _look(self) -> None:
        """Find what is to be reported or given back, and what nobody uses any more."""
        moment = self._clock()
        self._look_at = moment + LOOK
        for key, entry in list(self._entries.items()):
            if entry.waiting:
                continue
            if entry.is_to_go(moment):
                self._close(entry)
                if moment >= entry.asks_again:
                    del self._entries[key]
                    self._hungry.pop(entry, None)
            elif entry.is_to_tell(moment):
                self._hungry[entry] = None

    def _close(self, entry: _Entry) -> None:
        """Give back what is left of its lease; the next one is another."""
        lease = entry.lease
        if lease.sent and not lease.refused:
            lease.closing, lease.left = True, 0
            if len(self._closing) < KEPT:  # of one that is dropped, the rest counts as used
                self._closing.append(lease)
            entry.lease = self.leases.open(lease.tenant, lease.quota, lease.tier)

    async def _round(self) -> None:
        """One statement for all that is wanted now."""
        if self._clock() >= self._look_at:
            self._look()
        entries = _next_of(self._hungry)
        asks = [ask for ask in map(self._ask, entries) if ask is not None]
        asks = [Ask(self._closing.popleft()) for _ in range(min(MANY, len(self._closing)))] + asks
        try:
            granted = await self.leases.call(asks) if asks else []
        except DatabaseUnavailable as error:
            log.warning("quotas.database", error=str(error), next="going on within what is leased")
            self._away_until = self._clock() + AWAY
            self._closing.extendleft(ask.lease for ask in asks if ask.lease.closing)
            for entry in entries:
                entry.answered(error)
            return
        by_lease = {each.ask.lease: each for each in granted}
        for entry in entries:
            if self._entries.get((entry.lease.tenant, entry.lease.quota)) is not entry:
                self._close(entry)  # the tiers have changed meanwhile
            if (found := by_lease.get(entry.lease)) is not None:
                entry.heard(found, self._clock())
            entry.answered_so_far(DatabaseUnavailable("No quota can be leased.") if entry.lease.refused else None)
        for each in granted:
            self._notifier.heard(each.ask.lease, each.periods)

    def _ask(self, entry: _Entry) -> Ask | None:
        moment = self._clock()
        if entry.lease.until and moment >= entry.lease.until:
            self._close(entry)
            entry.refused, entry.asks_again = None, 0.0
        lease = entry.lease
        if entry.drawn:
            spent = max(0.01, moment - entry.filled)
            most = max(1, _least(lease.tier, lease.quota) // SHARE)
            entry.want = min(most, max(_first(lease.tier, lease.quota), round(entry.drawn * AHEAD / spent)))
        entry.asked = len(entry.waiting)
        need = max(0, sum(amount for amount, future in entry.waiting if not future.done()) - lease.left)
        used_now = moment >= entry.asks_again and moment - entry.touched < TELL
        want = max(0, entry.want - lease.left) if used_now else 0
        return Ask(lease, need, want) if need or want or entry.is_to_tell(moment) else None

    async def _finish(self) -> None:
        """Give back everything, as far as the database can be told."""
        for entry in self._entries.values():
            entry.answered(DatabaseUnavailable("The worker stops."))
            self._close(entry)
        self._entries.clear()
        self._hungry.clear()
        while self._closing and self._clock() >= self._away_until:
            await self._round()
        await self._notifier.finish()


def _least(tier: Tier, quota: str) -> int:
    """The smaller of its ceilings; 0 where it has none."""
    return min((each for each in tier.ceilings(quota) if each is not None), default=0)


def _first(tier: Tier, quota: str) -> int:
    """How many are fetched for a tenant that was quiet; a chunk of its ceiling is the most."""
    least = _least(tier, quota)
    return max(1, min(least // SHARE, max(FEW, least // FIRST)))


def _next_of(hungry: dict[_Entry, None]) -> list[_Entry]:
    """Take those out that are next: first those for which somebody waits."""
    found = sorted(hungry, key=lambda entry: not entry.waiting)[:MANY]
    for entry in found:
        del hungry[entry]
    return found


def _refusal(lease: Lease, granted: Granted, asks_again: float) -> Refused:
    """Which period is used up: of both, the one that lasts longer."""
    bounded = [each for each in granted.periods if each.ceiling is not None]
    period = max(bounded, key=lambda each: (each.percent >= 100, each.used / (each.ceiling or 1), each.name))
    days = (period.resets_at.date() - granted.periods[0].resets_at.date()).days
    return Refused(
        tenant=lease.tenant,
        quota=lease.quota,
        period=period.name,
        used=period.used,
        ceiling=period.ceiling or 0,
        resets_at=period.resets_at,
        retry_after=asks_again if granted.elsewhere else granted.seconds + days * 86400,
        asks_again=asks_again,
        tier=lease.tier.name,
        upgrade=lease.tier.allows.upgrade,
        defer=lease.tier.allows.at_ceiling == "defer",
    )
