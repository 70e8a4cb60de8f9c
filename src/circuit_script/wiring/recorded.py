"""Recorded releases that a worker hosts beside the live one, while replays ask for them.

The first event that is replayed through one has its files unpacked and imported by a zygote of its own; when nothing
of it has come for a while its processes end and its files go. One that cannot be run ends the replays through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from circuit_script.db.pool import Pool
from circuit_script.errors import AppError, ReplayRefused
from circuit_script.events.hosts import Handlers, Host
from circuit_script.events.replay import replays
from circuit_script.events.replay.feeder import RELEASES
from circuit_script.events.run import Runner
from circuit_script.execution.pool import Pool as Children
from circuit_script.release_archive import unpacked
from circuit_script.releases import known_as
from circuit_script.tasks import end
from circuit_script.wiring.live import Live

log = structlog.get_logger()

KEEP = 10.0  # seconds after the last event that a release is kept ready
PAUSE = 1.0  # seconds after which who got no place asks again


@dataclass(slots=True, eq=False)
class _Hosted:
    host: Host
    stack: contextlib.AsyncExitStack  # its processes and files
    asked: float = field(default_factory=time.monotonic)

    def is_idle(self, seconds: float = 0.0) -> bool:
        return not self.host.rows and time.monotonic() - self.asked >= seconds


class RecordedReleases:
    """At most ``most`` at a time, each kept ready ``keep`` seconds longer than it is used."""

    def __init__(
        self, *, database: Pool, make_children: Callable[[Path], Children], most: int = RELEASES, keep: float = KEEP
    ) -> None:
        self._database = database
        self._make_children = make_children
        self._most = most
        self._keep = keep
        self._hosted: dict[int, _Hosted] = {}
        self._coming: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()  # of who opens and closes
        self._sweeping: asyncio.Task[None] | None = None
        self._runner_of: Callable[[Live], Runner] | None = None
        self._wake: Callable[[], None] = lambda: None

    def serve(self, runner_of: Callable[[Live], Runner], wake: Callable[[], None]) -> None:
        """Run them so; ``wake`` is called when a child of one becomes free."""
        self._runner_of, self._wake = runner_of, wake

    def find(self, release: int) -> Host | None:
        """Its host, where it is ready; asking keeps it."""
        found = self._hosted.get(release)
        if found is None:
            return None
        found.asked = time.monotonic()
        return found.host

    async def prepare(self, release: int) -> None:
        """Return when it is ready, or cannot run and its rows are off the queue, or a second has passed in which it got
        no place. Raises psycopg.Error, OSError."""
        coming = self._coming.get(release)
        if coming is None:
            coming = self._coming[release] = asyncio.create_task(self._come(release), name=f"release {release}")
            coming.add_done_callback(lambda _: self._coming.pop(release, None))
        await asyncio.shield(coming)

    async def stop(self) -> None:
        """End them all. What still runs ends as lost, to be run again."""
        await end([*self._coming.values(), *([self._sweeping] if self._sweeping is not None else [])])
        async with self._turn:
            for release in list(self._hosted):
                await self._close(release)

    async def _come(self, release: int) -> None:
        async with self._turn:
            placed = release in self._hosted or await self._make_room()
            if placed and release not in self._hosted:
                await self._host(release)
        if not placed:
            await asyncio.sleep(PAUSE)

    async def _make_room(self) -> bool:
        """Whether there is room for one more; the one that is longest unused makes way."""
        if len(self._hosted) < self._most:
            return True
        idle = [release for release, each in self._hosted.items() if each.is_idle()]
        if idle:
            await self._close(min(idle, key=lambda release: self._hosted[release].asked))
        return bool(idle)

    async def _host(self, release: int) -> None:
        stack = contextlib.AsyncExitStack()
        try:
            live = await self._open(stack, release)
        except (AppError, ReplayRefused) as error:
            await stack.aclose()
            await self._give_up(release, error)
            return
        except BaseException:
            await stack.aclose()
            raise
        assert self._runner_of is not None, "serve() comes first"
        own = {id_: replace(spec, release=release) for id_, spec in live.release.handlers.items()}
        live.children.on_change = self._wake
        self._hosted[release] = _Hosted(Host(live.children, self._runner_of(live), Handlers(own)), stack)
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep(), name="recorded releases")
        log.info("release.hosted", release=release, handlers=len(own), why="events are replayed through it")

    async def _open(self, stack: contextlib.AsyncExitStack, release: int) -> Live:
        async with self._database.connection() as connection:
            folder = await stack.enter_async_context(unpacked(connection, release))
        children = self._make_children(folder)
        stack.push_async_callback(children.stop)
        manifest = await children.start()
        async with self._database.connection() as connection:
            return Live(await known_as(connection, release, manifest.handlers), children, manifest)

    async def _give_up(self, release: int, error: AppError | ReplayRefused) -> None:
        log.error("release.unhosted", release=release, error=str(error), next="the replays through it end as failed")
        async with self._database.connection() as connection:
            await replays.fail(connection, release, f"release {release} cannot be run: {error}")

    async def _sweep(self) -> None:
        """Close what is not used any more; over when none is left."""
        while self._hosted:
            await asyncio.sleep(max(self._keep / 2, 0.01))
            async with self._turn:
                for release in [each for each, hosted in self._hosted.items() if hosted.is_idle(self._keep)]:
                    await self._close(release)

    async def _close(self, release: int) -> None:
        """From now on nothing starts in it."""
        hosted = self._hosted.pop(release)
        await hosted.stack.aclose()
        log.info("release.closed", release=release, why="nothing is replayed through it any more")
