"""Starts executions of what waits, follows them, and puts their rows where they belong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace

import psycopg
import structlog

from circuit_script.events.backlog import Backlog, Pace, Queued
from circuit_script.events.commit import Again
from circuit_script.events.hosts import Host, Recorded
from circuit_script.events.lanes import Lanes
from circuit_script.events.queued import UNKNOWN, unknown_handler
from circuit_script.execution.outcome import HandlerSpec

log = structlog.get_logger()

AHEAD = 16
AHEAD_ROWS = 64
AHEAD_TOOK = 0.1
PREPARING = 16  # batches that wait for one release at a time; of the others none is in a task
RETIRED = "the live release has no such handler"
FORGOTTEN = "nothing is known any more of the replay that put it back, nor through which release it was to run"
NOT_RECORDED = "release %d, through which it is replayed, has no such handler"


class Executions:
    """What one dispatcher runs. ``wake`` is called when one has ended, ``fenced`` when one found that its lane is gone.

    ``finished`` are rows that have left the queue since it was last cleared.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        lanes: Lanes,
        live: Host,
        recorded: Recorded,
        wake: Callable[[], None],
        fenced: Callable[[], None],
    ) -> None:
        self._backlog = backlog
        self._lanes = lanes
        self._live = live
        self._recorded = recorded
        self._wake = wake
        self._fenced = fenced
        self.running: dict[asyncio.Task[None], list[Queued]] = {}
        self.preparing: set[asyncio.Task[None]] = set()  # of these, those that wait for their release
        self._awaited: Counter[int | None] = Counter()  # batches that wait for a release
        self.finished: set[tuple[int, int]] = set()
        self._apart: deque[list[Queued]] = deque()

    def switch(self, live: Host) -> frozenset[asyncio.Task[None]]:
        """Start every execution from now on there, but for those of recorded releases; the executions that still run
        where they ran before, as tasks."""
        self._live = live
        waiting, self._apart = self._apart, deque()
        self._set_apart(waiting)
        return frozenset(task for task, rows in self.running.items() if rows[0].release is None)

    def spec_of(self, handler: int, release: int | None) -> HandlerSpec:
        """The handler as its release has it. One without a name is unknown there, or as long as the release is."""
        host = self._host(release)
        if host is None:
            return unknown_handler(handler, release)
        spec = host.handlers[handler]
        return spec if spec.release == release else replace(spec, release=release)

    def _host(self, release: int | None) -> Host | None:
        return self._live if release is None else self._recorded.find(release)

    def busy_lanes(self) -> set[int]:
        """The lanes in which something runs, or is about to."""
        batches = (rows for task, rows in self.running.items() if task not in self.preparing)
        running = (row.lane for rows in batches for row in rows)
        return {*running, *(row.lane for rows in self._apart for row in rows)}

    def dissolve(self, lanes: Collection[int]) -> None:
        """Parts apart whose tenant is parked, for hours maybe, keep no lane that goes: the rows of such lanes are
        forgotten here, the others of those parts wait with their tenant."""
        for rows in [part for part in self._apart if self._backlog.is_parked(part[0])]:
            if any(row.lane in lanes for row in rows):
                self._apart.remove(rows)
                for row in rows:
                    self._backlog.again(row, time.monotonic())

    def dissolve_paused(self) -> None:
        """Parts apart of what is paused wait like the rest of it."""
        for rows in [part for part in self._apart if any(map(self._backlog.is_paused, part))]:
            self._apart.remove(rows)
            for row in rows:
                self._backlog.again(row, time.monotonic())

    def _may_run(self, tenant: str, spec: HandlerSpec) -> bool:
        """A tenant holds at most all children but one while another waits. Small batches of quick handlers are
        started ahead of a free child, so that they share what they read and their commits."""
        host = self._host(spec.release)
        if host is None:  # they wait for their release, and take no child
            return self._awaited[spec.release] < PREPARING
        quick = host.took.get(spec.name, AHEAD_TOOK) < AHEAD_TOOK
        here = host.taken.total
        if host.taken.has_seat(tenant, spec.name, spec.concurrency):
            return True
        ahead = quick and here < AHEAD and host.rows < AHEAD_ROWS
        if not ahead and here >= host.pool.size:
            return False
        mine = host.taken.of(tenant)
        return mine < max(1, host.pool.size - 1) or self._backlog.waiting_tenants(spec.release) < 2

    def start(self, pace: Callable[[HandlerSpec], Pace]) -> None:
        """Start what may run now."""
        self.dissolve_paused()  # what ran when it was paused may have come apart since
        full: set[int | None] = set()  # releases
        for rows in [part for part in self._apart if not self._backlog.is_parked(part[0])]:
            row = rows[0]
            host = self._host(row.release)
            if row.release in full or (host is not None and not self._has_room_apart(host, row)):
                full.add(row.release)
                continue
            self._apart.remove(rows)
            self._begin(rows, host, isolated=True)
        while rows := self._backlog.next_batch(time.monotonic(), pace, self._may_run):
            self._begin(rows, self._host(rows[0].release))

    @staticmethod
    def _has_room_apart(host: Host, row: Queued) -> bool:
        share = host.handlers[row.handler].share_child
        return host.isolating < max(1, host.pool.size // 10) and host.pool.idle(row.tenant, share)

    def _work(self, rows: list[Queued], host: Host | None) -> Awaitable[Again]:
        handler, release, epochs = rows[0].handler, rows[0].release, self._epochs(rows)
        if release == UNKNOWN:
            return self._live.runner.bury(rows, epochs, FORGOTTEN)
        if host is None:
            return self._prepared(rows, release or 0)
        if handler in host.handlers:
            return host.runner.run(rows, host.handlers[handler], epochs)
        if release is not None:
            return host.runner.bury(rows, epochs, NOT_RECORDED % release)
        return host.runner.retire(rows, epochs, RETIRED)

    async def _prepared(self, rows: list[Queued], release: int) -> Again:
        """Have the release of these made ready; meanwhile they hold their records' later events."""
        await self._recorded.prepare(release)
        if self._recorded.find(release) is None:
            return await self._live.runner.reread(rows)
        return Again(waits={(row.id, row.handler): (0.0, 0.0) for row in rows})

    def _epochs(self, rows: Sequence[Queued]) -> dict[int, int]:
        return {row.lane: self._lanes.held[row.lane] for row in rows if row.lane in self._lanes.held}

    def _begin(self, rows: list[Queued], host: Host | None, *, isolated: bool = False) -> None:
        task = asyncio.create_task(self._follow(rows, host, self._work(rows, host), isolated))
        self.running[task] = rows
        if host is None:
            self.preparing.add(task)
            self._awaited[rows[0].release] += 1
        else:
            spec = host.handlers[rows[0].handler]
            size = 1 if any(row.alone for row in rows) else spec.concurrency
            task.add_done_callback(host.taken.enter(rows[0].tenant, spec.name, size))
            host.isolating += isolated
            host.rows += len(rows)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        rows = self.running.pop(task)
        if task in self.preparing:
            self.preparing.remove(task)
            self._awaited -= Counter([rows[0].release])  # keeps none of which nothing waits
        self._wake()
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatch.bug", exc_info=task.exception())

    async def _follow(self, rows: list[Queued], host: Host | None, work: Awaitable[Again], isolated: bool) -> None:
        """Wait for one execution and put its rows where they now belong."""
        began, older = time.monotonic(), [(row, row.absorbed) for row in rows if row.absorbed]
        try:
            again = await work
        except (psycopg.Error, OSError) as error:
            log.warning("dispatch.load", error=str(error), next="the batch runs again")
            again = Again(waits={(row.id, row.handler): (1.0, 300.0) for row in rows})
        except Exception:
            log.exception("dispatch.bug", rows=len(rows), next="the batch runs again in 5 s")
            again = Again(waits={(row.id, row.handler): (5.0, 300.0) for row in rows})
        finally:
            if host is not None:
                host.isolating -= isolated
                host.rows -= len(rows)
        moment = time.monotonic()
        if again.parked is not None:
            self._backlog.park(rows[0].tenant, moment, again.parked)
            if isolated:
                self._set_apart([rows])
                return
        elif host is not None and (spec := host.handlers.get(rows[0].handler)) is not None:
            earlier = host.took.get(spec.name, moment - began)
            host.took[spec.name] = max(moment - began, earlier + (moment - began - earlier) * 0.1)
        parts = [[rows[place] for place in part] for part in again.parts]
        kept = {id(row) for part in parts for row in part}
        self._set_apart(part for part in parts if part)
        for row in rows:
            key = row.id, row.handler
            if id(row) in kept:
                continue
            if key in again.waits:
                wait, hold = again.waits[key]
                self._backlog.again(row, moment, wait, hold)
            else:
                self._done(row, moment)
        for row, before in older:
            stays = id(row) in kept or (row.id, row.handler) in again.waits
            self._conclude(row.absorbed, before, again, stays)
        if again.fenced:
            self._fenced()

    def _done(self, row: Queued, moment: float) -> None:
        self.finished.add((row.id, row.handler))
        self._backlog.done(row, moment)

    def _conclude(self, absorbed: list[Queued], before: list[Queued], again: Again, stays: bool) -> None:
        """Older updates have left with their newest, or still wait with it; or they run by themselves, as it has left
        without them."""
        moment = time.monotonic()
        for each in [*reversed(before)]:
            gone = again.fenced and (each.id, each.handler) not in again.waits
            if gone and each in absorbed:
                absorbed.remove(each)
            if each not in absorbed:
                self._done(each, moment)
            elif not stays:
                self._backlog.restore(each, moment)

    def _set_apart(self, parts: Iterable[list[Queued]]) -> None:
        """Parts of a batch that run by themselves; a release that came meanwhile may want them smaller."""
        for rows in parts:
            for row in rows:
                row.alone = True
            size = self.spec_of(rows[0].handler, rows[0].release).batch_size
            self._apart.extend(rows[start : start + size] for start in range(0, len(rows), size))
