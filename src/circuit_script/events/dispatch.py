"""The dispatcher: leases lanes, reads the queue, closes batches, has them executed, settles what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from circuit_script.clock import now
from circuit_script.db.pool import Connection
from circuit_script.errors import DatabaseUnavailable
from circuit_script.events.backlog import Backlog, Pace, Queued
from circuit_script.events.commit import Again
from circuit_script.events.lanes import Lanes
from circuit_script.events.reader import QueueReader
from circuit_script.events.run import Runner
from circuit_script.events.taken import Taken
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.pool import Pool

log = structlog.get_logger()

READ_LIMIT = 1000
REFILLS = 20
AWAKE = 0.1
AHEAD = 16
AHEAD_ROWS = 64
AHEAD_TOOK = 0.1
TICK = 0.004
LOADED_TICK = 0.01
LOADED = 400  # events a second from which larger batches are worth a wait
QUICK_LINGER = 0.002
LONG_LINGER = 0.025
RETIRED = "the live release has no such handler"


class _Handlers(dict[int, HandlerSpec]):
    """Handlers by id; one that the live release lacks can be looked up too, so that its rows are buried."""

    def __missing__(self, _: int) -> HandlerSpec:
        return HandlerSpec(name="", routes=())


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """Times in seconds. ``poll`` is how often a sleeping dispatcher looks by itself."""

    lease: float = 10.0
    drain: float = 30.0
    poll: float = 1.0
    look_ahead: int = 2000


class Dispatcher:
    """One per worker. ``connect`` opens its own connection; ``retired`` names handlers no longer there."""

    def __init__(
        self,
        *,
        connect: Callable[[], contextlib.AbstractAsyncContextManager[Connection]],
        lanes: Lanes,
        pool: Pool,
        runner: Runner,
        handlers: Mapping[int, HandlerSpec],
        options: DispatchOptions,
    ) -> None:
        self._connect = connect
        self._lanes = lanes
        self._pool = pool
        self._runner = runner
        self._handlers = _Handlers(handlers)
        self._options = options
        self.backlog = Backlog(self._handlers, options.look_ahead)
        self._reader = QueueReader()
        self._apart: deque[list[Queued]] = deque()
        self._running: dict[asyncio.Task[None], list[Queued]] = {}
        self._taken = Taken()  # of this release's children
        self._isolating = 0
        self._rows_running = 0
        self._took: dict[str, float] = {}
        self._finished: set[tuple[int, int]] = set()
        self._unread: dict[int, int] = {}
        self._leaving: dict[int, int] = {}
        self._recovered_to = 0
        self._started = False
        self._wake = asyncio.Event()
        self._stopping = False
        self._beat_due = 0.0
        self._seen_work = 0.0
        self._asleep = False
        self._more = False
        self._rate = 0.0
        self._rate_at = time.monotonic()

    def wake(self) -> None:
        """Something may have changed: a notification, a free child."""
        self._wake.set()

    def switch(
        self, *, pool: Pool, runner: Runner, handlers: Mapping[int, HandlerSpec]
    ) -> frozenset[asyncio.Task[None]]:
        """Start every execution from now on with these; the executions that still run with those before, as tasks.

        Rows in memory whose handler is gone are retired when their turn comes.
        """
        self._pool, self._runner, self._handlers = pool, runner, _Handlers(handlers)
        self.backlog.handlers = self._handlers
        self._took.clear()  # the same name may be other code
        waiting, self._apart = self._apart, deque()
        self._set_apart(waiting)
        self._taken = Taken()
        self._wake.set()
        return frozenset(self._running)

    def stop(self) -> None:
        """Take nothing new; ``run`` returns when what runs has settled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until stopped; survives the loss of the database, also while what runs is finished."""
        while True:
            try:
                async with self._connect() as connection:
                    await self._serve(connection)
                return
            except (psycopg.Error, OSError, DatabaseUnavailable) as error:
                if self._stopping and not self._running:
                    return  # the lease ends by itself
                log.warning("dispatch.database", error=str(error), next="trying again")
                self._beat_due = 0.0
                await asyncio.sleep(0.2)

    async def _serve(self, connection: Connection) -> None:
        self._asleep = False
        while not self._stopping:
            self._wake.clear()
            await self._beat(connection)
            if self._leaving:
                await self._give(connection)
            if self._lanes.valid and self._started:
                await self._read(connection)
                self._start_executions()
            await self._rest(connection)
        await self._drain(connection)

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
            self._dissolve(change.lost)
        kept = {lane: low for lane, low in self._unread.items() if lane not in change.lost}
        self._unread = {**kept, **change.won}
        if self._unread:
            await self._adopt(connection)
        self._leaving = {lane: epoch for lane, epoch in self._leaving.items() if self._lanes.held.get(lane) == epoch}
        if change.owed > len(self._leaving):
            await self._let_go(connection, change.owed - len(self._leaving))
        await self._give(connection)
        await self._mark(connection)

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

    async def _let_go(self, connection: Connection, owed: int) -> None:
        """Start nothing new in lanes that a worker with fewer is to have; those where nothing runs come first."""
        busy = self._busy_lanes()
        ours = [lane for lane in self._lanes.held if lane not in self._leaving and lane not in self._unread]
        chosen = sorted(ours, key=lambda lane: (lane in busy, -lane))[:owed]
        await self._lanes.mark(connection, self.backlog.low_water(chosen, self._reader.cursor))
        self._leaving |= {lane: self._lanes.held[lane] for lane in chosen}
        self.backlog.drop(chosen, time.monotonic())

    def _dissolve(self, lanes: Collection[int]) -> None:
        """Parts apart whose tenant is parked, for hours maybe, keep no lane that goes: the rows of such lanes are
        forgotten here, the others of those parts wait with their tenant."""
        for rows in [part for part in self._apart if self.backlog.is_parked(part[0])]:
            if any(row.lane in lanes for row in rows):
                self._apart.remove(rows)
                for row in rows:
                    self.backlog.again(row, time.monotonic())

    async def _give(self, connection: Connection) -> None:
        """Hand over the lanes in which nothing runs any more."""
        self._dissolve(self._leaving)
        busy = self._busy_lanes()
        free = {lane: epoch for lane, epoch in self._leaving.items() if lane not in busy}
        if free:
            await self._lanes.release(connection, free)
            self._leaving = {lane: epoch for lane, epoch in self._leaving.items() if lane not in free}

    def _busy_lanes(self) -> set[int]:
        running = (row.lane for rows in self._running.values() for row in rows)
        return {*running, *(row.lane for rows in self._apart for row in rows)}

    async def _read(self, connection: Connection) -> None:
        self._finished.clear()
        self._more = False
        rows = await self._reader.forward(connection, READ_LIMIT)
        self._more = len(rows) >= READ_LIMIT - 200
        self._measure(len(rows))
        self._offer(rows)
        for tenant in self.backlog.hungry()[:REFILLS]:
            await self._refill(connection, tenant)

    async def _refill(self, connection: Connection, tenant: str) -> None:
        """Read a tenant that was skipped; it stays skipped while there is more than fits."""
        self._finished.clear()
        start = min(self.backlog.skipped[tenant].values())
        rows = await self._reader.of_tenant(connection, tenant, start, self._lanes.held, READ_LIMIT)
        skipped = self.backlog.skipped.pop(tenant)
        self._offer(rows, recovered=True)
        if len(rows) == READ_LIMIT:
            for lane, first in skipped.items():
                self.backlog.skip(tenant, lane, max(first, rows[-1].id))
            self._more = True

    def _offer(self, rows: Sequence[Queued], *, recovered: bool = False) -> None:
        moment, wall = time.monotonic(), now()
        for row in rows:
            if row.lane not in self._lanes.held or row.lane in self._leaving or (row.id, row.handler) in self._finished:
                continue
            row.recovered = recovered or row.id <= self._recovered_to
            self._seen_work = moment
            wait = (row.not_before - wall).total_seconds() if row.not_before else 0.0
            hold = (row.held_until - wall).total_seconds() if row.held_until else 0.0
            self.backlog.offer(row, moment, wait, hold)

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

    def _may_run(self, tenant: str, spec: HandlerSpec) -> bool:
        """A tenant holds at most all children but one while another waits. Small batches of quick handlers are
        started ahead of a free child, so that they share what they read and their commits."""
        quick = self._took.get(spec.name, AHEAD_TOOK) < AHEAD_TOOK
        here = self._taken.total
        if self._taken.has_seat(tenant, spec.name, spec.concurrency):
            return True
        ahead = quick and here < AHEAD and self._rows_running < AHEAD_ROWS
        if not ahead and here >= self._pool.size:
            return False
        mine = self._taken.of(tenant)
        return mine < max(1, self._pool.size - 1) or self.backlog.waiting_tenants() < 2

    def _start_executions(self) -> None:
        for rows in [part for part in self._apart if not self.backlog.is_parked(part[0])]:
            spec = self._handlers[rows[0].handler]
            full = self._isolating >= max(1, self._pool.size // 10)
            if full or not self._pool.idle(rows[0].tenant, spec.share_child):
                break
            self._apart.remove(rows)
            self._isolating += 1
            self._begin(rows, self._work(rows), isolated=True)
        while rows := self.backlog.next_batch(time.monotonic(), self._pace, self._may_run):
            self._begin(rows, self._work(rows))

    def _work(self, rows: list[Queued]) -> Awaitable[Again]:
        handler, epochs = rows[0].handler, self._epochs(rows)
        if handler in self._handlers:
            return self._runner.run(rows, self._handlers[handler], epochs)
        return self._runner.retire(rows, epochs, RETIRED)

    def _epochs(self, rows: Sequence[Queued]) -> dict[int, int]:
        return {row.lane: self._lanes.held[row.lane] for row in rows if row.lane in self._lanes.held}

    def _begin(self, rows: list[Queued], work: Awaitable[Again], *, isolated: bool = False) -> None:
        task = asyncio.create_task(self._follow(rows, work, isolated))
        self._running[task] = rows
        spec = self._handlers[rows[0].handler]
        size = 1 if any(row.alone for row in rows) else spec.concurrency
        task.add_done_callback(self._taken.enter(rows[0].tenant, spec.name, size))
        self._rows_running += len(rows)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatch.bug", exc_info=task.exception())

    async def _follow(self, rows: list[Queued], work: Awaitable[Again], isolated: bool) -> None:
        """Wait for one execution and put its rows where they now belong."""
        began = time.monotonic()
        try:
            again = await work
        except (psycopg.Error, OSError) as error:
            log.warning("dispatch.load", error=str(error), next="the batch runs again")
            again = Again(waits={(row.id, row.handler): (1.0, 300.0) for row in rows})
        except Exception:
            log.exception("dispatch.bug", rows=len(rows), next="the batch runs again in 5 s")
            again = Again(waits={(row.id, row.handler): (5.0, 300.0) for row in rows})
        finally:
            self._isolating -= isolated
            self._rows_running -= len(rows)
        moment = time.monotonic()
        if again.parked is not None:
            self.backlog.park(rows[0].tenant, moment, again.parked)
            if isolated:
                self._set_apart([rows])
                return
        elif (spec := self._handlers.get(rows[0].handler)) is not None:
            before = self._took.get(spec.name, moment - began)
            self._took[spec.name] = max(moment - began, before + (moment - began - before) * 0.1)
        parts = [[rows[place] for place in part] for part in again.parts]
        kept = {id(row) for part in parts for row in part}
        self._set_apart(part for part in parts if part)
        for row in rows:
            key = row.id, row.handler
            if id(row) in kept:
                continue
            if key in again.waits:
                wait, hold = again.waits[key]
                self.backlog.again(row, moment, wait, hold)
            else:
                self._finished.add(key)
                self.backlog.done(row, moment)
        if again.fenced:
            self._beat_due = 0.0

    def _set_apart(self, parts: Iterable[list[Queued]]) -> None:
        """Parts of a batch that run by themselves; a release that came meanwhile may want them smaller."""
        for rows in parts:
            for row in rows:
                row.alone = True
            size = self._handlers[rows[0].handler].batch_size
            self._apart.extend(rows[start : start + size] for start in range(0, len(rows), size))

    async def _rest(self, connection: Connection) -> None:
        """Wait for a reason to look again; say so to the gateways before a long sleep."""
        moment = time.monotonic()
        beat = max(0.0, self._beat_due - moment)
        due = self.backlog.next_due(moment, self._pace) if self._lanes.valid else None
        soon = due is not None and due < AWAKE
        if self._more:
            await self._pause(0)
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
        """Let what runs settle, keeping the lease, then give the lanes to others."""
        deadline = time.monotonic() + self._options.drain
        while self._running and time.monotonic() < deadline:
            await asyncio.wait(set(self._running), timeout=self._options.lease / 4)
            await self._lanes.renew(connection)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._mark(connection)
        await self._lanes.leave(connection)
