"""What waits in memory: order per record, fairness among tenants, batches by size or age.

Pure: no database and no clock of its own. A **chain** holds the waiting rows of one order key for one handler;
only its head may run. Heads that may run stand in **groups** (tenant, handler, object, event, depth), which
batches are cut from: what a batch causes is as deep for each of its records.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from circuit_script.execution.outcome import HandlerSpec
from circuit_script.tenants.entitlement import NOTICE

GroupKey = tuple[str, int, str, str, int]
ChainKey = tuple[int, str, int]


FULL = 20_000
LEAST_SHARE = 20
MOST_UNCOUNTED = 50_000


@dataclass(slots=True, eq=False)
class Queued:
    """One event for one handler, as it stands in the queue."""

    id: int
    handler: int
    lane: int
    attempts: int
    ordinal: int
    order_hash: int
    delivery: UUID
    not_before: datetime | None
    held_until: datetime | None
    tenant: str
    object: str
    event: str
    record: str
    depth: int = 0
    recovered: bool = False
    journal: dict[bytes, bytes] = field(default_factory=dict)
    since: float = 0.0
    running: bool = False
    lost: int = 0
    splits: int = 0
    delayed: bool = False
    uncounted: bool = False
    alone: bool = False  # it runs in a child of its own, also where its handler lets several share one

    @property
    def chain(self) -> ChainKey:
        return self.handler, self.tenant, self.order_hash

    @property
    def group(self) -> GroupKey:
        return self.tenant, self.handler, self.object, self.event, self.depth


@dataclass(frozen=True, slots=True)
class Pace:
    """When a batch closes: at ``size`` rows, or when its oldest row has waited ``linger`` seconds."""

    size: int
    linger: float


class Backlog:
    """Rows of the lanes that this worker owns. Times are seconds of one monotonic clock."""

    def __init__(self, handlers: Mapping[int, HandlerSpec], look_ahead: int = 2000) -> None:
        self.handlers = handlers
        self._look_ahead = look_ahead
        self._known: dict[tuple[int, int], Queued] = {}
        self._chains: dict[ChainKey, deque[Queued]] = {}
        self._groups: dict[str, dict[GroupKey, deque[Queued]]] = {}
        self._turns: deque[str] = deque()
        self._count: dict[str, int] = {}
        self._uncounted = 0
        self._timers: list[tuple[float, bool, int, Queued]] = []  # at one moment, ends of holds come first
        self._parked: dict[str, dict[GroupKey, deque[Queued]]] = {}
        self._parks: list[tuple[float, str]] = []  # when they end
        self._ticket = itertools.count()
        self.skipped: dict[str, dict[int, int]] = {}  # the first row of each tenant, by lane

    def __len__(self) -> int:
        return len(self._known)

    def offer(self, row: Queued, now: float, wait: float = 0.0, hold: float = 0.0) -> bool:
        """Take a row that was read from the queue, or skip it because its tenant has enough in memory.

        Skipped tenants are read again from the first of ``skipped[tenant]`` on. ``wait`` and ``hold`` are what is
        left of a retry's delay and of the time that it holds its record's later events.
        """
        key = row.id, row.handler
        if key in self._known:
            return False
        full = row.tenant in self.skipped or self._count.get(row.tenant, 0) >= self._share()
        if full and row.object != NOTICE:  # what says that the tenant's quota is used up must not wait for the next one
            self.skip(row.tenant, row.lane, row.id)
            return False
        self._known[key] = row
        self._count[row.tenant] = self._count.get(row.tenant, 0) + 1
        chain = self._chains.setdefault(row.chain, deque())
        chain.append(row)
        if wait > 0:
            self._delay(row, now, wait, hold)
        elif chain[0] is row:
            self._ready(row, now)
        return True

    def skip(self, tenant: str, lane: int, first: int) -> None:
        """From this row on the tenant is to be read again in this lane."""
        lanes = self.skipped.setdefault(tenant, {})
        lanes[lane] = min(first, lanes.get(lane, first))

    def _share(self) -> int:
        """How many rows of one tenant may stand in memory: fewer, the more tenants there are. Rows that wait for
        their next attempt do not count, while there are not too many of them: else a vendor that is away would keep
        all that its tenant has to do elsewhere out of memory."""
        return min(self._look_ahead, max(LEAST_SHARE, FULL // max(1, len(self._count))))

    def _uncount(self, tenant: str) -> None:
        self._count[tenant] -= 1
        if not self._count[tenant]:
            del self._count[tenant]

    def hungry(self) -> list[str]:
        """Skipped tenants of which less than half the look-ahead is left in memory."""
        return [each for each in self.skipped if self._count.get(each, 0) < self._share() // 2]

    def next_batch(
        self, now: float, pace: Callable[[HandlerSpec], Pace], may_run: Callable[[str, HandlerSpec], bool]
    ) -> list[Queued]:
        """The next closed batch, tenants taking turns; empty when none may run now."""
        self._ring(now)
        for _ in range(len(self._turns)):
            tenant = self._turns[0]
            self._turns.rotate(-1)
            groups = self._groups.get(tenant)
            if not groups:
                self._turns.remove(tenant)
                self._groups.pop(tenant, None)
                continue
            for key, ready in list(groups.items()):
                spec = self.handlers[key[1]]
                close = pace(spec)
                full = len(ready) >= close.size
                if (full or now - ready[0].since >= close.linger) and may_run(tenant, spec):
                    return self._cut(groups, key, ready, spec.batch_size)
        return []

    def waiting_tenants(self) -> int:
        """How many tenants have something that could run."""
        return sum(1 for groups in self._groups.values() if groups)

    def next_due(self, now: float, pace: Callable[[HandlerSpec], Pace]) -> float | None:
        """Seconds until the next batch closes by age or a retry is due; None when nothing waits."""
        ages = [
            ready[0].since + pace(self.handlers[key[1]]).linger - now
            for groups in self._groups.values()
            for key, ready in itertools.islice(groups.items(), 8)
        ]
        ages += [each[0][0] - now for each in (self._timers, self._parks) if each]
        return max(0.0, min(ages)) if ages else None

    def park(self, tenant: str, now: float, seconds: float) -> None:
        """Nothing of this tenant runs for so long, but what is done about notices."""
        if tenant in self._parked:
            return
        groups = self._groups.get(tenant, {})
        self._parked[tenant] = {key: groups.pop(key) for key in list(groups) if key[2] != NOTICE}
        heapq.heappush(self._parks, (now + seconds, tenant))

    def is_parked(self, row: Queued) -> bool:
        """Whether the row waits with its tenant."""
        return row.tenant in self._parked and row.object != NOTICE

    def done(self, row: Queued, now: float) -> None:
        """The row has left the queue; the next of its order key may run."""
        if not self._is_known(row):
            return
        del self._known[row.id, row.handler]
        if row.uncounted:
            self._uncounted -= 1
        else:
            self._uncount(row.tenant)
        self._unchain(row, now)

    def again(self, row: Queued, now: float, wait: float = 0.0, hold: float = 0.0) -> None:
        """The row runs again after ``wait`` seconds; until ``hold`` has passed it holds its order key."""
        row.running = False
        if not self._is_known(row):
            return
        if wait > 0:
            self._delay(row, now, wait, hold)
        else:
            self._ready(row, now)

    def drop(self, lanes: Iterable[int], now: float) -> None:
        """Forget what waits in lanes that are no longer ours; what runs is fenced when it settles."""
        gone = set(lanes)
        for row in [each for each in self._known.values() if each.lane in gone]:
            if not row.running:
                self._ungroup(row)
            self.done(row, now)
        for tenant, firsts in list(self.skipped.items()):
            self.skipped[tenant] = {lane: first for lane, first in firsts.items() if lane not in gone}
            if not self.skipped[tenant]:
                del self.skipped[tenant]

    def low_water(self, lanes: Iterable[int], cursor: int) -> dict[int, int]:
        """Per lane, the id below which nothing is left: its oldest row that is known or skipped, else what was read
        last."""
        low = dict.fromkeys(lanes, cursor)
        for firsts in self.skipped.values():
            for lane in low.keys() & firsts:
                low[lane] = min(low[lane], firsts[lane] - 1)
        for row in self._known.values():
            if row.lane in low:
                low[row.lane] = min(low[row.lane], row.id - 1)
        return low

    def running_in(self, lanes: Iterable[int]) -> bool:
        wanted = set(lanes)
        return any(row.running and row.lane in wanted for row in self._known.values())

    def _is_known(self, row: Queued) -> bool:
        """False for a row that was dropped, also when it was read anew after its lane came back."""
        return self._known.get((row.id, row.handler)) is row

    def _cut(
        self, groups: dict[GroupKey, deque[Queued]], key: GroupKey, ready: deque[Queued], size: int
    ) -> list[Queued]:
        batch = [ready.popleft() for _ in range(min(size, len(ready)))]
        for row in batch:
            row.running = True
        if not ready:
            del groups[key]
        else:
            groups[key] = groups.pop(key)
        return batch

    def _ready(self, row: Queued, now: float) -> None:
        row.since = now
        groups = self._parked[row.tenant] if self.is_parked(row) else self._ready_groups(row.tenant)
        groups.setdefault(row.group, deque()).append(row)

    def _ready_groups(self, tenant: str) -> dict[GroupKey, deque[Queued]]:
        groups = self._groups.get(tenant)
        if groups is None:
            groups = self._groups[tenant] = {}
            self._turns.append(tenant)
        return groups

    def _delay(self, row: Queued, now: float, wait: float, hold: float) -> None:
        row.delayed = True
        if not row.uncounted and self._uncounted < MOST_UNCOUNTED:
            row.uncounted = True
            self._uncounted += 1
            self._uncount(row.tenant)
        heapq.heappush(self._timers, (now + wait, True, next(self._ticket), row))
        if hold < wait:
            heapq.heappush(self._timers, (now + max(0.0, hold), False, next(self._ticket), row))

    def _ring(self, now: float) -> None:
        while self._parks and self._parks[0][0] <= now:
            tenant = heapq.heappop(self._parks)[1]
            for key, waiting in self._parked.pop(tenant).items():
                self._ready_groups(tenant).setdefault(key, deque()).extend(waiting)
        while self._timers and self._timers[0][0] <= now:
            _, due, _, row = heapq.heappop(self._timers)
            if not self._is_known(row):
                continue
            if not due:
                self._unchain(row, now)
                continue
            row.delayed = False
            if row.uncounted:
                row.uncounted = False
                self._uncounted -= 1
                self._count[row.tenant] = self._count.get(row.tenant, 0) + 1
            chain = self._chains.setdefault(row.chain, deque())
            if row not in chain:
                chain.insert(1 if chain and chain[0].running else 0, row)
                self._stand_down(chain, row)
            if chain[0] is row:
                self._ready(row, now)

    def _stand_down(self, chain: deque[Queued], row: Queued) -> None:
        """A late retry that comes back before a waiting head takes its place."""
        if chain[0] is row and len(chain) > 1:
            self._ungroup(chain[1])

    def _unchain(self, row: Queued, now: float) -> None:
        chain = self._chains.get(row.chain)
        if chain is None:
            return
        was_head = bool(chain) and chain[0] is row
        if row in chain:
            chain.remove(row)
        if not chain:
            del self._chains[row.chain]
        elif was_head and not chain[0].running and not chain[0].delayed:
            self._ready(chain[0], now)

    def _ungroup(self, row: Queued) -> None:
        groups = self._parked[row.tenant] if self.is_parked(row) else self._groups.get(row.tenant, {})
        ready = groups.get(row.group)
        if ready and row in ready:
            ready.remove(row)
            if not ready:
                del groups[row.group]
