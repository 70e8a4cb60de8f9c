"""The dispatcher: leases lanes, reads the queue, closes batches, has them executed, settles what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from circuit_script.clock import now
from circuit_script.db.pool import Connection
from circuit_script.errors import DatabaseUnavailable
from circuit_script.events.aside import AsideKey
from circuit_script.events.backlog import Backlog, Pace, Queued
from circuit_script.events.executions import Executions
from circuit_script.events.hosts import Handlers, Host, NothingRecorded, Recorded
from circuit_script.events.lanes import Lanes
from circuit_script.events.reader import QueueReader
from circuit_script.events.run import Runner
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.failpoints import areach
from circuit_script.tasks import end
from circuit_script.tenants.pauses import Pauses

log = structlog.get_logger()

READ_LIMIT = 1000
REFILLS = 20
AWAKE = 0.1
RESCUE = 600.0  # seconds between two looks for rows that were forgotten
TICK = 0.004
LOADED_TICK = 0.01
LOADED = 400  # events a second from which larger batches are worth a wait
QUICK_LINGER = 0.002
LONG_LINGER = 0.025


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """Times in seconds. ``poll`` is how often a sleeping dispatcher looks by itself."""

    lease: float = 10.0
    drain: float = 30.0
    poll: float = 1.0
    look_ahead: int = 2000


def nothing_leaves() -> Collection[int]:
    return ()


class Dispatcher:
    """One per worker. ``connect`` opens its own connection; ``delivering`` are the lanes of which requests are on their
    way to vendors: whoever gives them away before the answers are told lets another send the same again."""

    def __init__(
        self,
        *,
        connect: Callable[[], contextlib.AbstractAsyncContextManager[Connection]],
        lanes: Lanes,
        pool: Pool,
        runner: Runner,
        handlers: Mapping[int, HandlerSpec],
        options: DispatchOptions,
        pauses: Pauses | None = None,
        delivering: Callable[[], Collection[int]] = nothing_leaves,
        recorded: Recorded | None = None,
    ) -> None:
        self._connect = connect
        self._delivering = delivering
        self._lanes = lanes
        self._options = options
        self.pauses = Pauses() if pauses is None else pauses
        known = Handlers(handlers)
        self.backlog = Backlog(known, options.look_ahead, self.pauses, lambda *of: self._executions.spec_of(*of))
        self._executions = Executions(
            backlog=self.backlog,
            lanes=lanes,
            live=Host(pool, runner, known),
            recorded=recorded or NothingRecorded(),
            wake=self.wake,
            fenced=self._hurry,
        )
        self._reader = QueueReader()
        self._unread: dict[int, int] = {}
        self._leaving: dict[int, int] = {}
        self._recovered_to = 0
        self._started = False
        self._wake = asyncio.Event()
        self._stopping = False
        self._holding = False
        self._gives_up = math.inf  # when what still runs is left to others
        self._beat_due = 0.0
        self._rescue_due = 0.0
        self._seen_work = 0.0
        self._asleep = False
        self._more = False
        self._rate = 0.0
        self._rate_at = time.monotonic()

    def wake(self) -> None:
        """Something may have changed: a notification, a free child."""
        self._wake.set()

    @property
    def kept(self) -> Mapping[int, int]:
        """The lanes (with their epochs) of which something may start: those that are valid and not to be given away."""
        if not self._lanes.valid:
            return {}
        if not self._leaving:
            return self._lanes.held
        return {lane: epoch for lane, epoch in self._lanes.held.items() if lane not in self._leaving}

    def look_again(self) -> None:
        """Somebody paused something, or let it go on."""
        self.pauses.expire()
        self._wake.set()

    def switch(
        self, *, pool: Pool, runner: Runner, handlers: Mapping[int, HandlerSpec]
    ) -> frozenset[asyncio.Task[None]]:
        """Start every execution from now on with these; the executions that still run with those before, as tasks.

        Rows in memory whose handler is gone are retired when their turn comes.
        """
        known = Handlers(handlers)
        self.backlog.handlers = known
        running = self._executions.switch(Host(pool, runner, known))
        self._wake.set()
        return running

    def hold(self, holding: bool) -> None:
        """Start nothing new, or go on: another release is live, and this worker has yet to prepare it."""
        if holding != self._holding:
            self._holding = holding
            self._wake.set()

    def hosted(self, release: int) -> None:
        """What is replayed through this recorded release can be run from now on."""
        self.backlog.meet(release, time.monotonic())
        self._wake.set()

    def _hurry(self) -> None:
        """Look at the lanes before anything else."""
        self._beat_due = 0.0

    def stop(self) -> None:
        """Take nothing new; ``run`` returns when what runs has settled, or after the time that it may take to drain."""
        self._stopping = True
        self._gives_up = min(self._gives_up, time.monotonic() + self._options.drain)
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until stopped; survives the loss of the database, also while what runs is finished."""
        while True:
            try:
                async with self._connect() as connection:
                    await self._serve(connection)
                return
            except (psycopg.Error, OSError, DatabaseUnavailable) as error:
                if self._stopping and (not self._executions.running or time.monotonic() >= self._gives_up):
                    await end(list(self._executions.running))
                    return  # the lease ends by itself
                log.warning("dispatch.database", error=str(error), next="trying again")
                self._beat_due = 0.0
                await asyncio.sleep(0.2)

    async def _serve(self, connection: Connection) -> None:
        self._asleep = False
        while not self._stopping:
            self._wake.clear()
            await self._look_at_pauses(connection)
            await self._beat(connection)
            if self._leaving:
                await self._give(connection)
            if self._lanes.valid and self._started:
                await self._read(connection)
                if not self._holding:
                    self._executions.start(self._pace)
            await self._rest(connection)
        await self._drain(connection)

    async def _look_at_pauses(self, connection: Connection) -> None:
        if await self.pauses.refresh(connection):
            self.backlog.pauses_changed(time.monotonic())
            self._executions.dissolve_paused()

    async def _beat(self, connection: Connection) -> None:
        """Every quarter of the lease: renew it, mark low water, take and give lanes."""
        moment = time.monotonic()
        if moment < self._beat_due:
            return
        self._beat_due = moment + self._options.lease / 4
        change = await self._lanes.beat(connection)
        if change.lost:
            log.warning("dispatch.lanes_lost", lanes=len(change.lost))
            self.backlog.drop(change.lost, time.monotonic())
            self._executions.dissolve(change.lost)
        kept = {lane: low for lane, low in self._unread.items() if lane not in change.lost}
        self._unread = {**kept, **change.won}
        if self._unread:
            await self._adopt(connection)
        self._leaving = {lane: epoch for lane, epoch in self._leaving.items() if self._lanes.held.get(lane) == epoch}
        if change.owed > len(self._leaving):
            await self._let_go(connection, change.owed - len(self._leaving))
        await self._give(connection)
        await self._mark(connection)
        if moment >= self._rescue_due:
            self._rescue_due = moment + RESCUE
            await self._rescue(connection)

    async def _rescue(self, connection: Connection) -> None:
        """Take up rows below low water, of which nobody knows: a server that lost its latest commits gave out their ids
        again, or a worker has forgotten them."""
        self._executions.finished.clear()
        rows = await self._reader.behind(connection, self._lanes.held, READ_LIMIT)
        if found := self._offer(rows, recovered=True):
            log.warning("dispatch.rescued", events=found, next="they run now")

    async def _mark(self, connection: Connection) -> None:
        """Mark low water, but of no lane that is still unread, or whose rows this worker has let go."""
        known = set(self._lanes.held) - set(self._unread) - set(self._leaving)
        await self._lanes.mark(connection, self.backlog.low_water(known, self._reader.cursor))

    async def _adopt(self, connection: Connection) -> None:
        """Read what lanes just won have waiting. Lanes stay unread, and unmarked, until that has succeeded."""
        self._recovered_to = await self._reader.newest(connection)
        if not self._started:
            self._reader.start_at(self._unread)
            self._started = True
        async for rows in self._reader.of_lanes(connection, self._unread):
            self._offer(rows, recovered=True)
            await self._lanes.renew(connection)
        self._unread = {}
        self._rescue_due = 0.0

    async def _let_go(self, connection: Connection, owed: int) -> None:
        """Start nothing new in lanes that a worker with fewer is to have; those where nothing runs come first."""
        busy = self._executions.busy_lanes()
        ours = [lane for lane in self._lanes.held if lane not in self._leaving and lane not in self._unread]
        chosen = sorted(ours, key=lambda lane: (lane in busy, -lane))[:owed]
        await self._lanes.mark(connection, self.backlog.low_water(chosen, self._reader.cursor))
        self._leaving |= {lane: self._lanes.held[lane] for lane in chosen}
        self.backlog.drop(chosen, time.monotonic())

    async def _give(self, connection: Connection) -> None:
        """Hand over the lanes in which nothing runs any more, and of which nothing is on its way to a vendor."""
        self._executions.dissolve(self._leaving)
        busy = self._executions.busy_lanes() | set(self._delivering())
        free = {lane: epoch for lane, epoch in self._leaving.items() if lane not in busy}
        if free:
            await self._lanes.release(connection, free)
            self._leaving = {lane: epoch for lane, epoch in self._leaving.items() if lane not in free}

    async def _read(self, connection: Connection) -> None:
        self._executions.finished.clear()
        self._more = False
        rows = await self._reader.forward(connection, READ_LIMIT)
        await areach("dispatch.read")
        self._more = len(rows) >= READ_LIMIT - 200
        self._measure(len(rows))
        self._offer(rows)
        for tenant in self.backlog.hungry()[:REFILLS]:
            await self._refill(connection, tenant)
        for key in self.backlog.aside.returning(REFILLS):
            await self._bring_back(connection, key)

    async def _refill(self, connection: Connection, tenant: str) -> None:
        """Read a tenant that was skipped; it stays skipped while there is more than fits."""
        self._executions.finished.clear()
        start = min(self.backlog.skipped[tenant].values())
        rows = await self._reader.of_tenant(connection, tenant, start, self._lanes.held, READ_LIMIT)
        skipped = self.backlog.skipped.pop(tenant)
        self._offer(rows, recovered=True)
        if len(rows) == READ_LIMIT:
            for lane, first in skipped.items():
                self.backlog.skip(tenant, lane, max(first, rows[-1].id))
            self._more = True

    async def _bring_back(self, connection: Connection, key: AsideKey) -> None:
        """Read what was put aside and is not paused any more; the rest of it stays aside while there is more."""
        self._executions.finished.clear()
        aside = self.backlog.aside
        rows = await self._reader.of_aside(connection, key, aside.first(key), self._lanes.held, READ_LIMIT)
        firsts = aside.take(key)
        self._offer(rows, recovered=True)
        if len(rows) == READ_LIMIT:
            aside.leave(key, firsts, rows[-1].id)
            self._more = True

    def _offer(self, rows: Sequence[Queued], *, recovered: bool = False) -> int:
        """Hand them to the backlog; how many it took."""
        moment, wall, taken = time.monotonic(), now(), 0
        for row in rows:
            if (
                row.lane not in self._lanes.held
                or row.lane in self._leaving
                or (row.id, row.handler) in self._executions.finished
            ):
                continue
            row.recovered = recovered or row.id <= self._recovered_to
            self._seen_work = moment
            wait = (row.not_before - wall).total_seconds() if row.not_before else 0.0
            hold = (row.held_until - wall).total_seconds() if row.held_until else 0.0
            taken += self.backlog.offer(row, moment, wait, hold)
        return taken

    def _measure(self, count: int) -> None:
        moment = time.monotonic()
        span = max(1e-4, moment - self._rate_at)
        self._rate_at = moment
        weight = min(1.0, span / 0.2)
        self._rate += (count / span - self._rate) * weight

    def _pace(self, spec: HandlerSpec) -> Pace:
        """Milliseconds when idle, longer under load: larger batches cost less per event."""
        linger = QUICK_LINGER if self._rate < LOADED else LONG_LINGER
        return Pace(spec.batch_size, linger)

    async def _rest(self, connection: Connection) -> None:
        """Wait for a reason to look again; say so to the gateways before a long sleep."""
        moment = time.monotonic()
        beat = max(0.0, self._beat_due - moment)
        due = self.backlog.next_due(moment, self._pace) if self._lanes.valid else None
        soon = due is not None and due < AWAKE
        if self._more:
            await self._pause(0)
        elif self._holding:  # what is due must not start: `hold` wakes us when it may
            await self._stay_awake(connection)
            await self._pause(min(beat, self._options.poll))
        elif soon or moment - self._seen_work < AWAKE:
            await self._stay_awake(connection)
            tick = TICK if self._rate < LOADED else LOADED_TICK
            await self._pause(min(beat, max(due, 0.001) if due else tick, tick))
        elif not self._asleep:
            self._asleep = True
            await self._lanes.sleep(connection, True)
        else:
            await self._pause(min(beat, self._options.poll, self._options.poll if due is None else due))

    async def _stay_awake(self, connection: Connection) -> None:
        if self._asleep:
            self._asleep = False
            await self._lanes.sleep(connection, False)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(seconds, 0.0005))

    async def _drain(self, connection: Connection) -> None:
        """Let what runs settle and what vendors answer be told, keeping the lease, then give the lanes to others. The
        time for that counts from the stop, however often the connection is lost meanwhile."""
        await end(list(self._executions.preparing))  # nothing of these runs
        renewal = 0.0
        while (self._executions.running or self._delivering()) and time.monotonic() < self._gives_up:
            if self._executions.running:
                left = max(0.0, self._gives_up - time.monotonic())
                await asyncio.wait(set(self._executions.running), timeout=min(left, self._options.lease / 4))
            else:
                await asyncio.sleep(LOADED_TICK)
            if time.monotonic() >= renewal:
                await self._lanes.renew(connection)
                renewal = time.monotonic() + self._options.lease / 4
        await end(list(self._executions.running))
        await self._mark(connection)
        await self._lanes.leave(connection)
