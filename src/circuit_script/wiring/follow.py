"""A worker follows what the database says is live, and has ready what is to be.

It hears of a change by a notification, and looks by itself, too. Preparing takes seconds and never stands in the way of
a move: each release is prepared by a task of its own, and the switch to one that is ready takes milliseconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.db.pool import Pool
from circuit_script.errors import CircuitError, DatabaseUnavailable
from circuit_script.failpoints import areach
from circuit_script.releases import moving
from circuit_script.releases.moving import FAILED, PREPARING, READY, Wanted
from circuit_script.tasks import end
from circuit_script.wiring.environments import remove_unused
from circuit_script.wiring.live import Releases
from circuit_script.wiring.preparing import MakeChildren, prepare
from circuit_script.wiring.tenants import TenantsThere

log = structlog.get_logger()

POLL, POLL_THROUGH_POOLER = 0.5, 0.25  # seconds between looks: where it is told, and where nobody tells
LOOK = 5.0  # seconds that one look may take
AGAIN = 5.0  # seconds after which what is live is prepared again where that has failed
TELL_AGAIN = 10.0  # seconds after which what was told is told again: others may have taken this worker for gone
SWEEP = 3600.0  # seconds between looks for environments that nobody uses
OF_DEV = "`dev` runs the files of its folder: stop it, and start `circuit-script serve`"
AWAY = (psycopg.Error, PoolTimeout, OSError, DatabaseUnavailable, TimeoutError)


class Follower:
    """Has a worker's `Releases` follow the database. One that does not ``follow`` runs its folder, and
    says so to whoever deploys."""

    def __init__(
        self,
        *,
        worker: UUID,
        database: Pool,
        releases: Releases,
        make_children: MakeChildren,
        tenants: TenantsThere,
        pooler: bool = False,
        follow: bool = True,
    ) -> None:
        self.worker = worker
        self._database = database
        self._releases = releases
        self._make_children = make_children
        self._tenants = tenants
        self._poll = POLL_THROUGH_POOLER if pooler else POLL
        self._follow = follow
        self._leave: Callable[[], None] = lambda: None
        self._woken = asyncio.Event()
        self._coming: dict[int, asyncio.Task[None]] = {}
        self._states: dict[int, tuple[str, str]] = {}
        self._told: dict[int, tuple[str, str]] | None = None
        self._told_at = -math.inf
        self._failed: dict[int, tuple[datetime | None, float]] = {}  # when it was asked for, and when it failed
        self._beside: set[asyncio.Task[object]] = set()
        self._away = False
        self._held = False
        self._sweep_at = time.monotonic() + SWEEP

    def wake(self) -> None:
        """Something may have been deployed, or taken back."""
        self._woken.set()

    def serve(self, leave: Callable[[], None]) -> None:
        """``leave`` stops the worker, once what runs has finished: others can run what is live, and this one cannot."""
        self._leave = leave

    async def start(self, by: str = "") -> None:
        """Begin with what is live in the database, or, while nothing was ever deployed, with the app's folder; with the
        folder also when somebody (``by``) asks for it. Raises AppError, ReleaseRefused, psycopg.Error."""
        while True:
            async with self._database.connection() as connection:
                wanted = await moving.wanted(connection)
            if by or not self._follow or not wanted.deployed or wanted.live is None:
                if await self._releases.start(by):
                    return
                continue  # somebody has deployed in this moment
            live = await prepare(wanted.live, self._database, self._make_children, self._tenants.check)
            self._releases.begin(live)
            await self._tenants.tell(self._database)
            log.info(
                "release.followed",
                release=wanted.live,
                why="something was deployed to this database: what the folder holds is not run",
                next="`circuit-script serve --folder-release` makes the folder's app live",
            )
            return

    async def run(self) -> None:
        """Until it is cancelled. A look that fails is tried again: what runs goes on."""
        try:
            while True:
                self._woken.clear()
                try:
                    async with asyncio.timeout(LOOK):
                        await self._look()
                    self._away = False
                    self._sweep()
                except AWAY as error:
                    self._told = None
                    if not self._away:
                        log.warning("release.database", error=str(error) or "no answer", next="trying again")
                    self._away = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._woken.wait()
        finally:
            await end([*self._coming.values(), *self._beside])

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            wanted = await moving.wanted(connection)
        if not self._follow:
            return await self._tell_all(dict.fromkeys(wanted.warm, (FAILED, OF_DEV)))
        if wanted.deployed and wanted.live is not None:
            self._releases.follow()
            self._go_to(wanted.live)
        own = self._releases.live.release.id
        needed = [each for each in (wanted.live if wanted.deployed else own, *wanted.warm) if each is not None]
        for release in needed:
            self._have_ready(release, wanted)
        for release in [each for each in self._coming if each not in needed]:
            self._coming[release].cancel()
        self._releases.keep([*needed, own])
        self._failed = {release: said for release, said in self._failed.items() if release in needed}
        await self._tell_all({release: said for release, said in self._states.items() if release in needed})
        await self._tenants.catch_up(self._database)
        if self._held and wanted.live in self._failed:
            await self._leave_to_others(wanted.live)

    async def _leave_to_others(self, release: int) -> None:
        """A worker that cannot run what is live holds lanes in which nothing starts. Where another can, it ends."""
        async with self._database.connection() as connection:
            hosts = await moving.hosts_of(connection, release)
        if any(each.state == READY for each in hosts if each.worker != self.worker):
            log.error("release.left", release=release, why="it cannot run here, and does elsewhere", next="it stops")
            self._leave()

    def _go_to(self, release: int) -> None:
        """Run it from now on; where it is not ready, nothing new starts until it is."""
        before = self._releases.live.release.id
        ready = self._releases.is_ready(release)
        if before != release and ready:
            began = time.monotonic()
            self._releases.take(release)
            took = round((time.monotonic() - began) * 1000, 1)
            log.info("release.live", release=release, before=before, handlers=self._handlers, milliseconds=took)
            self._do_beside(self._tenants.tell(self._database), "tenants of schedules")
        if ready == self._held:
            self._held = not ready
            self._releases.hold(self._held)
            if self._held:
                why = "it is live, and not ready here"
                log.warning("release.held", release=release, why=why, next="nothing new starts until it is")

    def _sweep(self) -> None:
        """Now and then, environments of releases that nobody has ready any more are removed."""
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP
            self._do_beside(asyncio.to_thread(remove_unused), "environments that nobody uses")

    def _do_beside(self, what: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.create_task(what, name=name)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    @property
    def _handlers(self) -> int:
        return len(self._releases.live.release.handlers)

    def _have_ready(self, release: int, wanted: Wanted) -> None:
        if self._releases.is_ready(release):
            self._states[release] = (READY, "")
            return
        if release in self._coming:
            return
        asked = wanted.warm.get(release)
        failed = self._failed.get(release)
        if failed is not None:
            again = release == wanted.live and time.monotonic() - failed[1] > AGAIN
            if not again and failed[0] == asked:
                return
        self._states[release] = (PREPARING, "")
        task = self._coming[release] = asyncio.create_task(self._come(release, asked), name=f"prepare {release}")
        task.add_done_callback(lambda _: self._arrived(release))

    def _arrived(self, release: int) -> None:
        self._coming.pop(release, None)
        self._woken.set()

    async def _come(self, release: int, asked: datetime | None) -> None:
        began = time.monotonic()
        try:
            await areach("release.prepare")
            live = await prepare(release, self._database, self._make_children, self._tenants.check)
        except AWAY as error:
            log.warning("release.unprepared", release=release, error=str(error), next="trying again")
            await asyncio.sleep(self._poll)
        except CircuitError as error:
            self._fail(release, asked, f"{error.detail} {error.cure}".strip())
        except Exception as error:
            log.exception("release.bug", release=release)
            self._fail(release, asked, f"{type(error).__name__}: {error}")
        else:
            self._releases.add(live)
            self._failed.pop(release, None)
            self._states[release] = (READY, "")
            log.info("release.ready", release=release, seconds=round(time.monotonic() - began, 2))

    def _fail(self, release: int, asked: datetime | None, why: str) -> None:
        if self._states.get(release) != (FAILED, why):
            log.error("release.unprepared", release=release, error=why, next="what runs goes on")
        self._failed[release] = (asked, time.monotonic())
        self._states[release] = (FAILED, why)

    async def _tell_all(self, states: Mapping[int, tuple[str, str]]) -> None:
        """Note what is new of them, and forget what is not among them."""
        told = self._told if time.monotonic() - self._told_at < TELL_AGAIN else None
        if told == states:
            return
        async with self._database.connection() as connection:
            if told is None or told.keys() - states.keys():
                await moving.keep_states(connection, self.worker, list(states))
            for release, (state, detail) in states.items():
                if told is None or told.get(release) != (state, detail):
                    await moving.tell_state(connection, release, self.worker, state, detail)
        self._told, self._told_at = dict(states), time.monotonic()
