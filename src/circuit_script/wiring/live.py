"""The release that a worker runs now, and how another takes its place while the worker runs.

Each release has a pool of children of its own. A reload imports the app's folder in a new one; when that succeeds the
release is made live and every part that starts executions is switched to it between two of its steps. What runs
already finishes where it began, and then that pool is stopped. Once something was deployed the folder counts no more:
releases are made ready beside the live one (`preparing`), take its place, and stay ready for the way back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog

from circuit_script.db.pool import Pool
from circuit_script.errors import AppError, CircuitError, DatabaseUnavailable
from circuit_script.execution.host.pool import Manifest
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.releases import Release, content_hash
from circuit_script.releases.archive import keep_source
from circuit_script.releases.moving import run_folder
from circuit_script.wiring.tenants import TenantsThere

log = structlog.get_logger()

RESTLESS = 3  # imports during which the files changed, before one is taken all the same
RETIRING = 3  # releases that may still finish something; of one more, what runs is cut short and runs again
DATABASE_PATIENCE = 30.0  # seconds that a reload waits for a database that is away
DATABASE_PAUSE = 0.5
LOOK = 0.5  # seconds between looks at what still runs


@dataclass(frozen=True, slots=True)
class Live:
    """A release, the children that run it, and what its app declared."""

    release: Release
    children: Children
    manifest: Manifest
    files: AsyncExitStack | None = None  # what is to be removed once its children have ended


@dataclass(frozen=True, slots=True)
class Switched:
    """Another release is live. ``seconds`` are those of the whole reload."""

    live: Live
    seconds: float


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The files are those of the release that runs."""

    live: Live


@dataclass(frozen=True, slots=True)
class Refused:
    """The folder cannot be run as it is now; the release before goes on."""

    error: CircuitError


Reloaded = Switched | Unchanged | Refused
Switch = Callable[[Live], Collection[asyncio.Task[Any]]]


@dataclass(frozen=True, slots=True)
class _Imported:
    digest: str
    children: Children
    manifest: Manifest


class Releases:
    """Holds what is live, and what is ready beside it. ``drain`` seconds are what a release that was replaced has to
    finish."""

    def __init__(
        self,
        *,
        folder: Path,
        make_children: Callable[[], Children],
        database: Pool,
        drain: float,
        tenants: TenantsThere,
        by: str = "",
    ) -> None:
        self._folder = folder
        self._tenants = tenants
        self._by = by  # who runs the folder's files whatever was deployed: `dev`
        self._make_children = make_children
        self._database = database
        self._drain = drain
        self._live: Live | None = None
        self._warm: dict[int, Live] = {}
        self._finishing: dict[int, Collection[asyncio.Task[Any]]] = {}  # what may still run of those that are warm
        self._following = False
        self._switches: list[Switch] = []
        self._holds: list[Callable[[bool], None]] = []
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Reloaded] | None = None
        self._reloads: set[asyncio.Task[Reloaded]] = set()
        self._retiring: dict[asyncio.Task[None], asyncio.Event] = {}  # set: do not wait for what runs

    @property
    def live(self) -> Live:
        assert self._live is not None, "start() comes first"
        return self._live

    async def start(self, by: str = "") -> bool:
        """Import the app's folder and make it live; whether it is. Where something was deployed that is a move, and
        made only when somebody asks for it (``by``). Raises AppError when it does not import."""
        imported = await self._import(None)
        assert imported is not None
        try:
            self._live = await self._go_live(imported, by)
        except BaseException:
            await imported.children.stop()
            raise
        if self._live is None:
            await imported.children.stop()
        return self._live is not None

    def begin(self, live: Live) -> None:
        """Start with a release that is ready, as it is live."""
        self._live, self._following = live, True

    def follow(self) -> None:
        """From now on the folder's files do not count: something was deployed."""
        self._following = True

    def is_ready(self, release: int) -> bool:
        """Whether it could take the place of the live one at once, or is it."""
        live = self.live if self.live.release.id == release else self._warm.get(release)
        return live is not None and (live is self._live or live.children.zygote_pid != 0)

    def add(self, live: Live) -> None:
        """Keep a release ready. One that is live has come up again while it was prepared: it needs no other."""
        if self._live is not None and self._live.release.id == live.release.id:
            return self._retire(live, ())
        before = self._warm.pop(live.release.id, None)
        self._warm[live.release.id] = live
        if before is not None:
            self._retire(before, ())

    def take(self, release: int) -> None:
        """Start every execution from now on in this release, which is ready; the one before stays so."""
        before, live = self.live, self._warm.pop(release)
        self._live = live
        self._finishing.pop(release, None)
        self._warm[before.release.id] = before
        self._finishing[before.release.id] = [task for switch in self._switches for task in switch(live)]

    def keep(self, releases: Collection[int]) -> None:
        """Keep only these ready beside the live one; the others finish what runs, and end."""
        for release in [each for each in self._warm if each not in releases]:
            running = [task for task in self._finishing.pop(release, ()) if not task.done()]
            self._retire(self._warm.pop(release), running)

    def on_switch(self, switch: Switch) -> None:
        """Have ``switch`` called with each later release, in the moment from which on new executions are to be its.
        It returns the executions that still run in the release before."""
        self._switches.append(switch)

    def on_hold(self, hold: Callable[[bool], None]) -> None:
        """Have ``hold`` called with True when nothing new may start for a while, and with False when it may again."""
        self._holds.append(hold)

    def hold(self, holding: bool) -> None:
        """Start nothing new, or go on: another release is live, and not ready here."""
        for hold in self._holds:
            hold(holding)

    async def reload(self) -> Reloaded:
        """Run the app as its files are now. One reload at a time: those who ask during one share the next."""
        if self._next is None:
            self._next = asyncio.create_task(self._reload(), name="reload")
            self._reloads.add(self._next)
            self._next.add_done_callback(self._reloads.discard)
        return await asyncio.shield(self._next)

    async def stop(self) -> None:
        """End every child of every release. What still runs ends as lost, to be run again."""
        for reload in self._reloads:
            reload.cancel()
        for cut in self._retiring.values():
            cut.set()
        await asyncio.gather(*self._reloads, *self._retiring, return_exceptions=True)
        last = [*self._warm.values(), *([] if self._live is None else [self._live])]
        await asyncio.gather(*(_end(each) for each in last))

    async def _reload(self) -> Reloaded:
        async with self._turn:
            self._next = None  # who asks from now on may have seen files that this one does not see
            began = time.monotonic()
            before = self.live
            await self._tenants.look_again(self._database)
            if self._following:
                return Unchanged(before)
            try:
                imported = await self._import(before.release.content_hash)
            except AppError as error:
                return Refused(error)
            if imported is None:
                return Unchanged(before)
            try:
                live = await self._patiently(imported)
            except DatabaseUnavailable as error:
                await imported.children.stop()
                return Refused(error)
            except BaseException:
                await imported.children.stop()
                raise
            if live is None or self._following:  # what was deployed has taken its place
                await imported.children.stop()
                return Unchanged(self.live)
            self._live = live
            self._retire(before, [task for switch in self._switches for task in switch(live)])
            return Switched(live, time.monotonic() - began)

    async def _import(self, known: str | None) -> _Imported | None:
        """The folder in a pool of its own; None when it is ``known``. Files that change meanwhile are read again."""
        for again in range(RESTLESS, 0, -1):
            digest = await self._digest()
            if digest == known:
                return None
            children = self._make_children()
            try:
                manifest = await children.start()
                self._tenants.check(manifest.handlers)
                if again == 1 or await self._digest() == digest:
                    return _Imported(digest, children, manifest)
            except BaseException:
                await children.stop()
                raise
            await children.stop()
        return None

    async def _digest(self) -> str:
        try:
            return await asyncio.to_thread(content_hash, self._folder)
        except OSError as error:
            wrong = f"{error.filename}: {error.strerror}."
            raise AppError(wrong, cure="Let this user read the app's folder.", page="import-failed") from None

    async def _go_live(self, imported: _Imported, by: str = "") -> Live | None:
        """None where something was deployed, and nobody asks for the folder."""
        for warning in imported.manifest.warnings:
            log.warning("app.import", warning=warning)
        # Its files are there from the moment on in which others hear of it.
        async with self._database.connection() as connection, connection.transaction():
            handlers, tenants = imported.manifest.handlers, self._tenants.names
            release = await run_folder(connection, imported.digest, handlers, tenants, by=by or self._by)
            if release is None:
                return None
            await keep_source(connection, release, self._folder)
        return Live(release, imported.children, imported.manifest)

    async def _patiently(self, imported: _Imported) -> Live | None:
        """``_go_live``, as soon as the database lets us. A commit of which we do not hear is made again."""
        deadline = time.monotonic() + DATABASE_PATIENCE
        while True:
            try:
                return await self._go_live(imported)
            except (psycopg.Error, OSError, DatabaseUnavailable) as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(str(error), cure="Reload again when it is back.") from None
                log.warning("release.database", error=str(error), next="trying again")
            await asyncio.sleep(DATABASE_PAUSE)

    def _retire(self, before: Live, running: Collection[asyncio.Task[Any]]) -> None:
        cut = asyncio.Event()
        finishing = self._finish(before, running, cut)
        task = asyncio.create_task(finishing, name=f"retire release {before.release.id}")
        self._retiring[task] = cut
        task.add_done_callback(self._retiring.pop)
        for excess in list(self._retiring.values())[:-RETIRING]:
            excess.set()

    async def _finish(self, before: Live, running: Collection[asyncio.Task[Any]], cut: asyncio.Event) -> None:
        """Stop the children of an earlier release when nothing of it runs any more, or its time is up."""
        quiet = asyncio.create_task(_quiet(before.children, running))
        told = asyncio.create_task(cut.wait())
        await asyncio.wait({quiet, told}, timeout=self._drain, return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        told.cancel()
        await _end(before)


async def _end(live: Live) -> None:
    """Its children, which ``files`` would stop, too, and what it has unpacked."""
    await live.children.stop()
    if live.files is not None:
        await live.files.aclose()


async def _quiet(children: Children, running: Collection[asyncio.Task[Any]]) -> None:
    """Return when these have ended, and whatever else ran in the pool."""
    changed = asyncio.Event()
    children.on_change = changed.set
    if running:
        await asyncio.wait(running)
    while children.busy:
        changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), LOOK)  # not every end is told: some places are beside
