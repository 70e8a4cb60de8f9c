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
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.releases import known_as, requirements_of
from circuit_script.releases.archive import remove_abandoned, unpacked
from circuit_script.tasks import end
from circuit_script.wiring.environments import interpreter_in_use
from circuit_script.wiring.live import Live

log = structlog.get_logger()

KEEP = 10.0  # seconds after the last event that a release is kept ready
PAUSE = 1.0  # seconds after which who got no place asks again
ATTEMPTS = 2  # imports before a release counts as one that cannot be run: somebody may have ended the first


@dataclass(slots=True, eq=False)
class _Hosted:
    host: Host
    stack: contextlib.AsyncExitStack  # its processes and files
    asked: float = field(default_factory=time.monotonic)
    dead: int = 0  # looks in a row that found nobody who could start anything

    def is_idle(self, seconds: float = 0.0) -> bool:
        return not self.host.rows and time.monotonic() - self.asked >= seconds

    def is_dead(self) -> bool:
        """Whether its zygote has ended and none takes its place, as its files do not import any more."""
        self.dead = 0 if self.host.pool.zygote_pid else self.dead + 1
        return self.dead > 1


class RecordedReleases:
    """At most ``most`` at a time, each kept ready ``keep`` seconds longer than it is used."""

    def __init__(
        self,
        *,
        database: Pool,
        make_children: Callable[[Path, str], Children],
        most: int = RELEASES,
        keep: float = KEEP,
    ) -> None:
        self._database = database
        self._make_children = make_children
        self._most = most
        self._keep = keep
        self._hosted: dict[int, _Hosted] = {}
        self._coming: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # of who opens and closes
        self._sweeping: asyncio.Task[None] | None = None
        self._runner_of: Callable[[Live], Runner] | None = None
        self._wake: Callable[[], None] = lambda: None
        self._ready: Callable[[int], None] = lambda release: None

    def serve(
        self, runner_of: Callable[[Live], Runner], wake: Callable[[], None], ready: Callable[[int], None]
    ) -> None:
        """Run them so; ``wake`` is called when a child of one becomes free, ``ready`` when one can be run."""
        self._runner_of, self._wake, self._ready = runner_of, wake, ready

    async def start(self) -> None:
        """Remove what workers that were killed have left."""
        await asyncio.to_thread(remove_abandoned)

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
        await asyncio.gather(*self._closing)

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
        for attempt in range(1, ATTEMPTS + 1):
            try:
                hosted = await self._open(release)
            except (AppError, ReplayRefused) as error:
                if attempt == ATTEMPTS or isinstance(error, ReplayRefused):
                    return await self._give_up(release, error)
                log.warning("release.unhosted", release=release, error=str(error), next="trying again")
            else:
                break
        self._hosted[release] = hosted
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep(), name="recorded releases")
        why = "events are replayed through it"
        log.info("release.hosted", release=release, handlers=len(hosted.host.handlers), why=why)
        return self._ready(release)

    async def _open(self, release: int) -> _Hosted:
        assert self._runner_of is not None, "serve() comes first"
        async with contextlib.AsyncExitStack() as stack:
            async with self._database.connection() as connection:
                folder = await stack.enter_async_context(unpacked(connection, release))
                needs = await requirements_of(connection, release)
            children = self._make_children(folder, await stack.enter_async_context(interpreter_in_use(needs)))
            stack.push_async_callback(children.stop)
            manifest = await children.start()
            async with self._database.connection() as connection:
                live = Live(await known_as(connection, release, manifest.handlers), children, manifest)
            own = {id_: replace(spec, release=release) for id_, spec in live.release.handlers.items()}
            host = Host(children, self._runner_of(live), Handlers(own))
            children.on_change = self._wake
            return _Hosted(host, stack.pop_all())

    async def _give_up(self, release: int, error: AppError | ReplayRefused) -> None:
        log.error("release.unhosted", release=release, error=str(error), next="the replays through it end as failed")
        async with self._database.connection() as connection:
            await replays.fail(connection, release, f"release {release} cannot be run: {error}")

    async def _sweep(self) -> None:
        """Close what is not used any more, or cannot be; over when none is left."""
        while self._hosted:
            await asyncio.sleep(max(self._keep / 2, 0.01))
            async with self._turn:
                for release in list(self._hosted):
                    hosted = self._hosted[release]  # is looked at after another has taken its time to end
                    if hosted.is_dead() or hosted.is_idle(self._keep):
                        await self._close(release)

    async def _close(self, release: int) -> None:
        """From now on nothing starts in it. It is closed also when who waits for that is cancelled."""
        closing = asyncio.create_task(self._end(release, self._hosted.pop(release)), name=f"close release {release}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def _end(self, release: int, hosted: _Hosted) -> None:
        try:
            await hosted.stack.aclose()
        except Exception:
            log.exception("release.bug", release=release, next="the others go on")
        else:
            why = "its process is gone" if hosted.dead else "nothing is replayed through it any more"
            log.info("release.closed", release=release, why=why)
