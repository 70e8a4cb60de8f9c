"""The governed processes of one worker: a zygote, its children, and who of them runs what."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuit_script.errors import AppError
from circuit_script.execution.host.births import Births, Unborn
from circuit_script.execution.host.child_link import PATIENCE, ChildLink, Key
from circuit_script.execution.host.crews import Nursing, Places, Sharing
from circuit_script.execution.host.fates import HOST_ENDED, MUTE, STOPPED
from circuit_script.execution.host.run import Broker, Execution, Unsendable, frame_of
from circuit_script.execution.host.shared_watch import LONGEST_TURN
from circuit_script.execution.host.zygote_link import IMPORT_PATIENCE, USUAL, Manifest, ZygoteLink
from circuit_script.execution.nursery import Hosting, WebApp
from circuit_script.execution.outcome import Failed, Outcome, Work
from circuit_script.governor import Limits
from circuit_script.tasks import end

__all__ = ["Broker", "ChildInfo", "Manifest", "Pool"]

PARKED = 16  # children that wait for more work of their tenant
FIRST_RESTART, LAST_RESTART = 0.05, 5.0  # seconds between attempts to restart a zygote
FORK_RETRY = 0.25
ABANDONED = 10  # children that may be gone before they begin, in a row, for one batch
PATROL = 1.0  # seconds between looks at children that have nothing to do
UNREST = "it went on after its execution"
GOODBYE = 0.5  # seconds that processes have to end by themselves when the worker stops
NOTHING_RUNS = (
    "nothing runs: the process that had imported the app ended, and %s "
    "Put the files back, or run what they are now: kill -HUP %d"
)
NEVER_BEGAN = "the processes that should have run it ended before they began"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A child, for those who look: ``busy`` until it waits for work; one that is being ended never does again.
    ``tenant`` is None while it has served nobody, or serves all."""

    pid: int
    busy: bool
    tenant: str | None


class _Stopping(Exception):
    """No child will come any more."""


class Pool:
    """Runs executions in at most ``size`` children at once; ``on_change`` is called when a place becomes free.

    ``express`` further places are for those that cannot wait behind the others: requests to endpoints. Executions that
    share a child take one place together; ``longest_turn`` is how long one of them may keep the others waiting, in
    seconds.
    """

    def __init__(
        self,
        *,
        app_folder: Path,
        app: str,
        size: int,
        on_change: Callable[[], None],
        limits: Limits | None = None,
        express: int = 8,
        web: WebApp | None = None,
        objects: tuple[str, ...] = (),
        hosting: Hosting = USUAL,
        longest_turn: float = LONGEST_TURN,
    ) -> None:
        self._folder = app_folder
        self._hosting = hosting
        self._app = app
        self.size = size
        self.on_change = on_change
        self._limits = limits or Limits()
        self._web = web
        self._objects = objects
        self._spares = max(1, size // 2)
        self._manifest: Manifest | None = None
        self._zygote: ZygoteLink | None = None
        self._places = Places(size, lambda: self.on_change())
        self._express = Places(express)
        self._sharing = Sharing(
            Nursing(app_folder, self._child_for, self._take_back, longest_turn, strict=hosting.isolation == "strict")
        )
        self._births = Births(self._top_up, self._give_up)
        self._children: dict[int, ChildLink] = {}
        self._fresh: deque[ChildLink] = deque()
        self._parked: deque[ChildLink] = deque()  # the longest unused first
        self._waiting: deque[asyncio.Future[ChildLink]] = deque()
        self._number = 0
        self._stopping = False
        self._restart: asyncio.Task[None] | None = None
        self._patrol: asyncio.TimerHandle | None = None
        self._childless = asyncio.Event()  # while stopping: no child is left
        self._empty = asyncio.Event()  # and no zygote

    async def start(self) -> Manifest:
        """Import the app and fork the first children. Raises AppError with file and line when the app is wrong."""
        self._zygote = self._new_zygote()
        self._manifest = await self._zygote.start()
        self._spares += any(spec.endpoint is not None for spec in self._manifest.handlers)  # one for the express line
        self._top_up()
        self._patrol = asyncio.get_running_loop().call_later(PATROL, self._end_the_restless)
        return self._manifest

    def _new_zygote(self) -> ZygoteLink:
        return ZygoteLink(self._folder, self._app, self._limits, self, self._web, self._objects, self._hosting)

    async def stop(self) -> None:
        """End every process. What still runs ends as Failed."""
        self._stopping = True
        self._births.stop()
        if self._patrol is not None:
            self._patrol.cancel()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_Stopping())
        for child in list(self._children.values()):
            if child.listener is None:
                child.hang_up()
            else:
                child.kill(STOPPED)
        if self._restart is not None:  # it may have begun another zygote, which ends first
            await end([self._restart])
        if self._zygote is None:
            return
        if self._children:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._childless.wait(), GOODBYE)
        if self._zygote is not None:  # it may have ended meanwhile: some platforms signal every process
            self._zygote.hang_up(GOODBYE)
        await self._empty.wait()

    async def prove(self) -> None:
        """Return when a child has greeted. Raises AppError when none does."""
        try:
            if not self._fresh:
                self._on_ready(await self._next_fresh())
        except (Unborn, _Stopping) as error:
            raise AppError(f"no child begins: {error}.", page="import-failed") from None

    def renew(self) -> None:
        """End the children that wait for more work: what their globals hold goes with them."""
        for child in list(self._parked):
            child.kill()

    def idle(self, tenant: str, share: bool) -> bool:
        """Whether a batch of this tenant could begin now, or as soon as a child is forked."""
        return self._places.taken < self.size and self._zygote is not None and not self._stopping

    @property
    def children(self) -> Sequence[ChildInfo]:
        """Every child that has greeted."""
        return [
            ChildInfo(child.pid, child.listener is not None or child.doomed, child.tenant)
            for child in self._children.values()
            if child.ready
        ]

    @property
    def busy(self) -> int:
        """How many executions run."""
        return self._places.taken + self._express.taken + self._sharing.more

    @property
    def zygote_pid(self) -> int:
        """0 while there is none."""
        return self._zygote.pid if self._zygote is not None else 0

    async def run(self, work: Work, broker: Broker, *, express: bool = False) -> Outcome:
        """Run one batch or request in a child and give the verdict. Never raises for anything that a handler does.

        An ``express`` one takes one of the places beside, so that it waits for no batch. If cancelled, its child dies,
        unless others are in it.
        """
        places = self._express if express else self._places
        if work.concurrency > 1:
            return await self._attempts(broker, partial(self._sharing.run, work, broker, places))
        try:
            frame = frame_of(work)
        except Unsendable as unsendable:
            return Failed(unsendable.reason, broker.usage, suspect=unsendable.suspect)
        async with places:
            return await self._attempts(broker, partial(self._attempt, work, broker, frame))

    async def _attempts(self, broker: Broker, attempt: Callable[[], Awaitable[Outcome | None]]) -> Outcome:
        try:
            for _ in range(ABANDONED):
                outcome = await attempt()
                if outcome is not None:
                    return outcome
            return Failed(NEVER_BEGAN, broker.usage, blameless=True)
        except _Stopping:
            return Failed(STOPPED, broker.usage, blameless=True)
        except Unborn as unborn:
            return Failed(str(unborn), broker.usage)

    async def _attempt(self, work: Work, broker: Broker, frame: bytearray) -> Outcome | None:
        child = await self._child_for((None if work.share_child else work.tenant, work.limits.memory, ""))
        child.tenant = None if work.share_child else work.tenant
        try:
            return await Execution(child, work, broker, self._folder).outcome(frame)
        finally:
            self._take_back(child)

    async def _child_for(self, key: Key) -> ChildLink:
        """One that has served this tenant with this ceiling of memory, or a fresh one."""
        for child in [each for each in reversed(self._parked) if each.key == key and not each.doomed]:
            self._parked.remove(child)
            if not child.restless:
                return child
            child.kill(UNREST)
        child = next((child for child in self._fresh if not child.doomed), None) or await self._next_fresh()
        with suppress(ValueError):
            self._fresh.remove(child)
        child.key = key
        self._top_up()
        return child

    async def _next_fresh(self) -> ChildLink:
        if self._stopping:
            raise _Stopping
        waiting: asyncio.Future[ChildLink] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._top_up()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._on_ready(waiting.result())  # it came in the same moment: somebody else may have it
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)

    def _take_back(self, child: ChildLink) -> None:
        if child.doomed:
            return self._top_up()
        child.rest()
        self._parked.append(child)
        if len(self._parked) > PARKED:
            self._parked.popleft().kill()
        return None

    def _end_the_restless(self) -> None:
        """Who has told its end and works on all the same is under no limit: it is ended here."""
        for child in [child for child in (*self._parked, *self._fresh) if child.restless]:
            child.kill(UNREST)
        self._patrol = asyncio.get_running_loop().call_later(PATROL, self._end_the_restless)

    def _top_up(self) -> None:
        """Order children: enough that a change of tenant finds one ready."""
        zygote = self._zygote
        if zygote is None or self._stopping or self._births.paused:
            return None
        live = [child for child in self._children.values() if not child.doomed]
        fresh = sum(child.key is None for child in live)
        wanted = max(self._spares + len(self._waiting), self.size - (len(live) - fresh))
        for _ in range(wanted - fresh):
            self._number += 1
            child = ChildLink(self._number, self._on_ready, self._on_late, self._on_gone)
            if self._manifest is not None and self._manifest.slow:
                child.wait_for(IMPORT_PATIENCE)
            self._children[child.number] = child
            try:
                zygote.fork(child.number, child.theirs, child.memory.descriptor)
            except OSError:
                child.discard("its zygote is gone")
                return zygote.kill()

    def _on_late(self, child: ChildLink) -> None:
        """It has not appeared in time: either nobody forked it, or it does not greet."""
        if child.pid:
            _logger.error("a new child said nothing for %g s: it is replaced", PATIENCE)
            child.kill(MUTE)
        elif self._zygote is not None:
            _logger.error("the process that hosts the handlers forked nothing for %g s: it is replaced", PATIENCE)
            self._zygote.kill()

    def _give_up(self, unborn: Unborn) -> None:
        """None appears: who waits for one has waited long enough."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(unborn)

    def _on_ready(self, child: ChildLink) -> None:
        self._births.on_ready()
        child.rest()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting.set_result(child)
        self._fresh.append(child)

    def _on_gone(self, child: ChildLink) -> None:
        self._children.pop(child.number, None)
        for waiting in (self._fresh, self._parked):
            with suppress(ValueError):
                waiting.remove(child)
        self._when_empty()
        if not self._stopping:
            self._births.on_gone(child)
        if child.pid:
            self._top_up()

    def on_forked(self, number: int, pid: int, pidfd: int) -> None:
        """A child exists."""
        child = self._children.get(number)
        if child is None:
            os.close(pidfd)  # given up meanwhile: its socket is closed, so it ends by itself
        else:
            child.adopt(pid, pidfd)

    def on_not_forked(self, number: int, reason: str) -> None:
        """The system has no room: try again soon."""
        _logger.error("no new child: %s", reason)
        if (child := self._children.get(number)) is not None:
            child.discard(reason)
        asyncio.get_running_loop().call_later(FORK_RETRY, self._top_up)

    def on_ended(self, pid: int, code: int) -> None:
        """A child was reaped."""
        for child in list(self._children.values()):
            if child.pid == pid:
                child.ended(code)

    def on_zygote_death(self, zygote: ZygoteLink) -> None:
        """Its children died with it."""
        if zygote is not self._zygote:
            return
        self._zygote = None
        for child in list(self._children.values()):
            child.kill(HOST_ENDED)
            if not child.pid:
                child.discard(HOST_ENDED)
        self._when_empty()
        if not self._stopping and self._manifest is not None:
            self._restart = asyncio.get_running_loop().create_task(self._raise_again(self._manifest))

    async def _raise_again(self, before: Manifest) -> None:
        """Start another zygote, until one has the same app."""
        pause, said = FIRST_RESTART, ""
        while True:
            zygote = self._new_zygote()
            try:
                after = await zygote.start()
                if (after.handlers, after.fingerprint) == (before.handlers, before.fingerprint):
                    break
                await zygote.end()
                wrong = "its files have changed on disk: they are no longer those of the release that ran."
            except (AppError, OSError) as error:  # no descriptor is left, either
                wrong = str(error)
            except Exception as error:  # a bug of ours: without another attempt nothing would run here ever again
                wrong = f"{type(error).__name__}: {error}"
            if wrong != said:
                said = wrong
                _logger.error(NOTHING_RUNS, wrong, os.getpid())
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_RESTART)
        self._zygote = zygote
        self._top_up()
        self.on_change()

    def _when_empty(self) -> None:
        if self._stopping and not self._children:
            self._childless.set()
            if self._zygote is None:
                self._empty.set()
