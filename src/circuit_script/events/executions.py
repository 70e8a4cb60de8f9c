"""Starts executions of what waits, follows them, and puts their rows where they belong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

import psycopg
import structlog

from circuit_script.events.backlog import Backlog, Pace, Queued
from circuit_script.events.commit import Again
from circuit_script.events.lanes import Lanes
from circuit_script.events.run import Runner
from circuit_script.events.taken import Taken
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.pool import Pool

log = structlog.get_logger()

AHEAD = 16
AHEAD_ROWS = 64
AHEAD_TOOK = 0.1
RETIRED = "the live release has no such handler"


class Handlers(dict[int, HandlerSpec]):
    """Handlers by id; one that the live release lacks can be looked up too, so that its rows are buried."""

    def __missing__(self, _: int) -> HandlerSpec:
        return HandlerSpec(name="", routes=())


class Executions:
    """What one dispatcher runs. ``wake`` is called when one has ended, ``fenced`` when one found that its lane is gone.

    ``finished`` are rows that have left the queue since it was last cleared.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        lanes: Lanes,
        pool: Pool,
        runner: Runner,
        handlers: Handlers,
        wake: Callable[[], None],
        fenced: Callable[[], None],
    ) -> None:
        self._backlog = backlog
        self._lanes = lanes
        self._pool = pool
        self._runner = runner
        self._handlers = handlers
        self._wake = wake
        self._fenced = fenced
        self.running: dict[asyncio.Task[None], list[Queued]] = {}
        self.finished: set[tuple[int, int]] = set()
        self._apart: deque[list[Queued]] = deque()
        self._taken = Taken()  # of this release's children
        self._isolating = 0
        self._rows_running = 0
        self._took: dict[str, float] = {}

    def switch(self, *, pool: Pool, runner: Runner, handlers: Handlers) -> frozenset[asyncio.Task[None]]:
        """Start every execution from now on with these; the executions that still run with those before, as tasks."""
        self._pool, self._runner, self._handlers = pool, runner, handlers
        self._took.clear()  # the same name may be other code
        waiting, self._apart = self._apart, deque()
        self._set_apart(waiting)
        self._taken = Taken()
        return frozenset(self.running)

    def busy_lanes(self) -> set[int]:
        """The lanes in which something runs, or is about to."""
        running = (row.lane for rows in self.running.values() for row in rows)
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
        quick = self._took.get(spec.name, AHEAD_TOOK) < AHEAD_TOOK
        here = self._taken.total
        if self._taken.has_seat(tenant, spec.name, spec.concurrency):
            return True
        ahead = quick and here < AHEAD and self._rows_running < AHEAD_ROWS
        if not ahead and here >= self._pool.size:
            return False
        mine = self._taken.of(tenant)
        return mine < max(1, self._pool.size - 1) or self._backlog.waiting_tenants() < 2

    def start(self, pace: Callable[[HandlerSpec], Pace]) -> None:
        """Start what may run now."""
        self.dissolve_paused()  # what ran when it was paused may have come apart since
        for rows in [part for part in self._apart if not self._backlog.is_parked(part[0])]:
            spec = self._handlers[rows[0].handler]
            full = self._isolating >= max(1, self._pool.size // 10)
            if full or not self._pool.idle(rows[0].tenant, spec.share_child):
                break
            self._apart.remove(rows)
            self._isolating += 1
            self._begin(rows, self._work(rows), isolated=True)
        while rows := self._backlog.next_batch(time.monotonic(), pace, self._may_run):
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
        self.running[task] = rows
        spec = self._handlers[rows[0].handler]
        size = 1 if any(row.alone for row in rows) else spec.concurrency
        task.add_done_callback(self._taken.enter(rows[0].tenant, spec.name, size))
        self._rows_running += len(rows)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.pop(task, None)
        self._wake()
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatch.bug", exc_info=task.exception())

    async def _follow(self, rows: list[Queued], work: Awaitable[Again], isolated: bool) -> None:
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
            self._isolating -= isolated
            self._rows_running -= len(rows)
        moment = time.monotonic()
        if again.parked is not None:
            self._backlog.park(rows[0].tenant, moment, again.parked)
            if isolated:
                self._set_apart([rows])
                return
        elif (spec := self._handlers.get(rows[0].handler)) is not None:
            earlier = self._took.get(spec.name, moment - began)
            self._took[spec.name] = max(moment - began, earlier + (moment - began - earlier) * 0.1)
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
            size = self._handlers[rows[0].handler].batch_size
            self._apart.extend(rows[start : start + size] for start in range(0, len(rows), size))
