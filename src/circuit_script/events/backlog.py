"""What waits in memory: order per record, fairness among tenants, batches by size or age.

Pure: no database and no clock of its own. A **chain** holds the waiting rows of one order key for one handler;
only its head may run. Heads that may run stand in **groups** (tenant, handler, object, event, depth), which
batches are cut from: what a batch causes is as deep for each of its records. What is paused is put **aside**: only
where it begins is remembered.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from circuit_script.events.aside import Aside, AsideKey
from circuit_script.events.queued import ChainKey, GroupKey, Pace, Queued, unknown_handler
from circuit_script.execution.outcome import ALL_OR_NONE, HandlerSpec
from circuit_script.tenants.entitlement import NOTICE
from circuit_script.tenants.pauses import Pauses

__all__ = ["Backlog", "Pace", "Queued"]

FULL = 20_000
LEAST_SHARE = 20
MOST_UNCOUNTED = 50_000
MOST = 100_000  # in all: beyond, a tenant that has one in memory waits with its others


class Backlog:
    """Rows of the lanes that this worker owns. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        handlers: Mapping[int, HandlerSpec],
        look_ahead: int = 2000,
        pauses: Pauses | None = None,
        recorded: Callable[[int, int], HandlerSpec] = unknown_handler,
    ) -> None:
        """``recorded`` knows a handler, by its id, as a recorded release has it."""
        self.handlers = handlers
        self._recorded = recorded
        self.pauses = Pauses() if pauses is None else pauses
        self.aside = Aside()
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
        self._refused_at = -math.inf  # when nothing that had closed might run
        self.skipped: dict[str, dict[int, int]] = {}  # the first row of each tenant, by lane

    def __len__(self) -> int:
        return len(self._known)

    def offer(self, row: Queued, now: float, wait: float = 0.0, hold: float = 0.0) -> bool:
        """Take a row that was read from the queue, or skip it because its tenant has enough in memory.

        Skipped tenants are read again from the first of ``skipped[tenant]`` on. ``wait`` and ``hold`` are what is
        left of a retry's delay and of the time that it holds its record's later events.
        """
        key = row.id, row.handler
        if key in self._known or self._put_aside(row):
            return False
        full = row.tenant in self.skipped or self._count.get(row.tenant, 0) >= self._share()
        if full and row.object != NOTICE:  # what says that the tenant's quota is used up must not wait for the next one
            self.skip(row.tenant, row.lane, row.id)
            return False
        self._known[key] = row
        self._count[row.tenant] = self._count.get(row.tenant, 0) + 1
        chain = self._chains.setdefault(row.chain, deque())
        chain.append(row)
        self._bundle(row)
        if wait > 0:
            self._delay(row, now, wait, hold)
        elif chain[0] is row:
            self._ready(row, now)
        return True

    def _spec(self, handler: int, release: int | None) -> HandlerSpec:
        return self.handlers[handler] if release is None else self._recorded(handler, release)

    def skip(self, tenant: str, lane: int, first: int) -> None:
        """From this row on the tenant is to be read again in this lane."""
        lanes = self.skipped.setdefault(tenant, {})
        lanes[lane] = min(first, lanes.get(lane, first))

    def _share(self) -> int:
        """How many rows of one tenant may stand in memory: fewer, the more tenants there are. Rows that wait for
        their next attempt do not count, while there are not too many of them: else a vendor that is away would keep
        all that its tenant has to do elsewhere out of memory."""
        return min(self._look_ahead, max(1 if len(self) >= MOST else LEAST_SHARE, FULL // (len(self._count) or 1)))

    def _uncount(self, tenant: str) -> None:
        self._count[tenant] -= 1
        if not self._count[tenant]:
            del self._count[tenant]

    def hungry(self) -> list[str]:
        """Skipped tenants of which less than half the look-ahead, or nothing, is left in memory."""
        return [each for each in self.skipped if self._count.get(each, 0) < max(1, self._share() // 2)]

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
                spec = self._spec(key[1], key[-1])
                close = pace(spec)
                full = len(ready) >= close.size
                if (full or now - ready[0].since >= close.linger) and may_run(tenant, spec):
                    # Nothing is left to cut when all were updates of which newer ones wait elsewhere: look again.
                    return self._cut(groups, key, ready, spec) or self.next_batch(now, pace, may_run)
        self._refused_at = now
        return []

    def waiting_tenants(self, release: int | None = None) -> int:
        """How many tenants have something that could run in this release."""
        return sum(1 for groups in self._groups.values() if any(key[-1] == release for key in groups))

    def next_due(self, now: float, pace: Callable[[HandlerSpec], Pace]) -> float | None:
        """Seconds until the next batch closes by age or a retry is due; None when nothing does. What had closed at the
        last look and might not run waits for no time, but for an execution that ends, or for its release."""
        moments = [
            ready[0].since + linger
            for groups in self._groups.values()
            for key, ready in groups.items()
            if self._refused_at - ready[0].since < (linger := pace(self._spec(key[1], key[-1])).linger)
        ]
        moments += [each[0][0] for each in (self._timers, self._parks) if each]
        return max(0.0, min(moments) - now) if moments else None

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
        if self._put_aside(row):
            self._forget(row, now)
            return
        self._bundle(row)
        if wait > 0:
            self._delay(row, now, wait, hold)
        else:
            self._ready(row, now)

    def restore(self, row: Queued, now: float) -> None:
        """An older update for which a newer one stood runs after all: that one has left the queue without it."""
        row.running = False
        if not self._is_known(row):
            return
        if self._put_aside(row):
            self._forget(row, now)
        else:
            self._come_back(row, now)

    def pauses_changed(self, now: float) -> None:
        """Put aside what is paused now, and let be read again what is not any more."""
        for row in sorted((each for each in self._known.values() if not each.running), key=lambda each: each.id):
            if self._put_aside(row):
                self._ungroup(row)
                self._forget(row, now)
        self.aside.bring_back(
            (handler, tenant, order)
            for handler, tenant, order in self.aside
            if order is not None or not self.pauses.holds(self.handlers[handler].name, tenant)
        )

    def meet(self, release: int, now: float) -> None:
        """The handlers of a recorded release are known from now on: what is paused of it, and what runs together."""
        rows = [each for each in self._known.values() if each.release == release and not each.running]
        for row in sorted(rows, key=lambda each: each.id):
            ready = self._ungroup(row)
            if self._put_aside(row):
                self._forget(row, now)
                continue
            self._bundle(row)
            if ready:
                self._ready(row, row.since)

    def is_paused(self, row: Queued) -> bool:
        """Whether nothing of this row may start."""
        return self._aside_key(row) is not None

    def _aside_key(self, row: Queued) -> AsideKey | None:
        if not (self.pauses or self.aside):
            return None
        whole: AsideKey = (row.handler, row.tenant, None)
        name = self.handlers[row.handler].name or self._spec(row.handler, row.release).name
        if self.aside.has(whole, row.lane, row.id) or self.pauses.holds(name, row.tenant):
            return whole
        one: AsideKey = (row.handler, row.tenant, row.order_hash)
        held = self.aside.has(one, row.lane, row.id) or self.pauses.holds_record(row.tenant, row.record)
        return one if held else None

    def _put_aside(self, row: Queued) -> bool:
        key = self._aside_key(row)
        if key is None:
            return False
        self.aside.put(key, row.lane, min((each.id for each in row.absorbed), default=row.id))
        return True

    def _forget(self, row: Queued, now: float) -> None:
        for each in (*row.absorbed, row):
            self.done(each, now)

    def _bundle(self, row: Queued) -> None:
        """Rows of a batch that is all or none come back at one moment, and run together."""
        if row.attempts:
            bound = row.not_before is not None and self._spec(row.handler, row.release).batch == ALL_OR_NONE
            row.bundle = row.not_before.timestamp() if bound and row.not_before is not None else 0.0

    def drop(self, lanes: Iterable[int], now: float) -> None:
        """Forget what waits in lanes that are no longer ours; what runs is fenced when it settles."""
        gone = set(lanes)
        for row in [each for each in self._known.values() if each.lane in gone]:
            if not row.running:
                self._ungroup(row)
            self.done(row, now)
        self.aside.drop(gone)
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
        for lane, first in self.aside.low():
            if lane in low:
                low[lane] = min(low[lane], first - 1)
        for row in self._known.values():
            if row.lane in low:
                low[row.lane] = min(low[row.lane], row.id - 1)
        return low

    def _is_known(self, row: Queued) -> bool:
        """False for a row that was dropped, also when it was read anew after its lane came back."""
        return self._known.get((row.id, row.handler)) is row

    def _cut(
        self, groups: dict[GroupKey, deque[Queued]], key: GroupKey, ready: deque[Queued], spec: HandlerSpec
    ) -> list[Queued]:
        batch: list[Queued] = []
        while ready and len(batch) < spec.batch_size:
            row = ready.popleft()
            if not (spec.coalesce and self._absorb(row)):
                row.running = True
                batch.append(row)
        if not ready:
            del groups[key]
        else:
            groups[key] = groups.pop(key)
        return batch

    def _absorb(self, row: Queued) -> bool:
        """Let the newest of the updates of this record that wait stand for it and for those between; False when it is
        the newest itself. Another event of the record is not jumped over."""
        chain, updates = self._chains[row.chain], [row]
        for each in itertools.islice(chain, 1, None):
            if (each.object, each.record) != (row.object, row.record):
                continue
            if each.delayed or not each.may_coalesce:
                break
            updates.append(each)
        newest, older = updates[-1], updates[:-1]
        if not older or not row.may_coalesce:
            return False
        newest.absorbed = [one for each in older for one in (*each.absorbed, each)] + newest.absorbed
        newest.before = row.before
        for each in older:
            each.absorbed, each.running = [], True  # nothing of it starts by itself
            chain.remove(each)
        if not chain[0].running and not chain[0].delayed:
            self._ready(chain[0], row.since)
        return True

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
        if len(self._timers) > FULL and len(self._timers) > 4 * len(self._known):  # most of those rows have left
            self._timers = [each for each in self._timers if self._is_known(each[3])]
            heapq.heapify(self._timers)
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
            self._come_back(row, now)

    def _come_back(self, row: Queued, now: float) -> None:
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

    def _ungroup(self, row: Queued) -> bool:
        """Whether it stood in a group, and now does not."""
        groups = self._parked[row.tenant] if self.is_parked(row) else self._groups.get(row.tenant, {})
        ready = groups.get(row.group)
        if not ready or row not in ready:
            return False
        ready.remove(row)
        if not ready:
            del groups[row.group]
        return True
