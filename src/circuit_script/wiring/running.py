"""A worker that is built, and what lives as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import structlog

from circuit_script.backup import Plan, keep_copies
from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.effects.courier import Courier
from circuit_script.endpoints.door import Door
from circuit_script.events.bell import CHANNEL
from circuit_script.events.dispatch import Dispatcher
from circuit_script.events.dropped import tell_dropped
from circuit_script.events.maintenance import maintain, prepare
from circuit_script.events.recorder import Recorder
from circuit_script.events.replay import replays
from circuit_script.events.replay.feeder import Feeder
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.jobs.ticker import Ticker
from circuit_script.llm import Models
from circuit_script.releases import moving
from circuit_script.tasks import end, keep
from circuit_script.telemetry import LogWriter
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.tenants import pauses
from circuit_script.tenants.quotas import TenantGovernor
from circuit_script.wiring.follow import Follower
from circuit_script.wiring.guardian import Guardian
from circuit_script.wiring.listening import listen
from circuit_script.wiring.live import Live, Releases, Reloaded
from circuit_script.wiring.mirror_watch import MirrorWatch
from circuit_script.wiring.mirroring import Mirroring
from circuit_script.wiring.monitor import make_monitor
from circuit_script.wiring.quotas import follow_tiers
from circuit_script.wiring.reconcile import Reconciler
from circuit_script.wiring.shadowing import Shadowing
from circuit_script.wiring.watching import ReleaseWatch

log = structlog.get_logger()

REPLAYS = 60.0  # seconds between looks for a replay, of which it is told at once
REPLAYS_THROUGH_POOLER = 5.0  # where nobody tells


@dataclass(frozen=True, slots=True)
class Worker:
    """A host's dispatcher and courier, and the releases that it runs."""

    dispatcher: Dispatcher
    courier: Courier
    releases: Releases
    door: Door
    quotas: TenantGovernor
    settings: Settings
    governor: CircuitGovernor
    models: Models
    follower: Follower
    traces: TraceWriter | None = None
    polls: Reconciler | None = None
    recorder: Recorder | None = None
    shadowing: Shadowing | None = None
    mirroring: Mirroring | None = None

    @property
    def live(self) -> Live:
        """What it runs now."""
        return self.releases.live

    async def reload(self) -> Reloaded:
        """Run the app as its files are now; when they cannot be run, what runs goes on. Tenants are those that
        circuit.toml says now, with their tiers."""
        follow_tiers(self.settings, self.quotas, self.governor, self.models)
        return await self.releases.reload()

    def stop(self) -> None:
        """Take nothing new; what runs is finished and settled."""
        self.courier.stop()
        self.dispatcher.stop()


async def run(
    worker: Worker,
    logs: LogWriter,
    settings: Settings,
    url: str,
    database: Pool,
    ready: Callable[[Worker], None],
) -> None:
    """Courier, writer, listener and maintenance live as long as the dispatcher. What only tells of the road begins
    again where it fails: the road goes on without it."""
    stopping = asyncio.Event()
    worker.follower.serve(worker.stop)

    def telling(name: str, part: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(keep(name, part, stopping), name=name)

    guardian = Guardian(settings, database, dropped=lambda: _dropped(worker, logs))
    monitor = make_monitor(settings, database, lambda: worker.live.release.handlers.values())
    feeder = Feeder(database, idle=REPLAYS_THROUGH_POOLER if settings.pooler else REPLAYS)
    wakes = {
        CHANNEL: worker.dispatcher.wake,
        pauses.CHANNEL: worker.dispatcher.look_again,
        replays.CHANNEL: feeder.wake,
        moving.CHANNEL: worker.follower.wake,
    }
    beside = [
        asyncio.create_task(
            maintain(
                database,
                settings.ledger.retention_days,
                settings.ledger.log_days,
                reply_days=settings.ledger.reply_days,
                log_keep={str(level): days for level, days in settings.log.keep.items()},
                recording_days=settings.shadow.keep_days,
            ),
            name="maintenance",
        ),
        *_copying(settings, url, database),
        telling("releases", worker.follower.run),
        telling("watch of releases", ReleaseWatch(database).run),
        telling("watch of mirrors", MirrorWatch(database).run),
        telling("guardian", guardian.run),
        telling("alerts", monitor.run),
        *([] if worker.polls is None else [telling("reconcile", worker.polls.run)]),
        *([] if worker.shadowing is None else [telling("shadow", worker.shadowing.run)]),
        *([] if worker.mirroring is None else [telling("mirror", worker.mirroring.run)]),
        telling("dropped", lambda: tell_dropped(database, lambda: _dropped(worker, logs))),
        asyncio.create_task(feeder.run(), name="replays"),
        asyncio.create_task(_ticking(database, worker), name="schedules"),
        *([] if settings.pooler else [asyncio.create_task(listen(url, wakes), name="listen")]),
    ]
    courier = asyncio.create_task(worker.courier.run(), name="courier")
    writer = telling("logs", logs.run)
    quotas = asyncio.create_task(worker.quotas.run(), name="quotas")
    traces = [] if worker.traces is None else [telling("traces", worker.traces.run)]
    traces += [] if worker.recorder is None else [telling("recordings", worker.recorder.run)]
    for task in (*beside, courier, writer, quotas, *traces):
        task.add_done_callback(lambda ended: _missed(ended, worker))
    try:
        await prepare(database)
        await worker.door.start()
        ready(worker)
        await worker.dispatcher.run()
    finally:
        await worker.door.stop(settings.worker.drain)
        worker.courier.stop()
        worker.quotas.stop()
        stopping.set()
        logs.stop()
        if worker.traces is not None:
            worker.traces.stop()
        if worker.recorder is not None:
            worker.recorder.stop()
        await end(beside)
        await asyncio.gather(courier, writer, quotas, *traces, return_exceptions=True)


def _dropped(worker: Worker, logs: LogWriter) -> dict[str, int]:
    """What this worker could not store, by kind."""
    return {"logs": logs.dropped, "traces": 0 if worker.traces is None else worker.traces.dropped}


def _copying(settings: Settings, url: str, database: Pool) -> list[asyncio.Task[None]]:
    """Copies by plan, where circuit.toml says so."""
    wanted = settings.backup
    if not wanted.to:
        return []
    settings.state.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        url=url,
        to=wanted.to,
        every=wanted.seconds,
        keep=wanted.keep,
        endpoint_url=wanted.endpoint_url,
        folder=str(settings.state),
    )
    return [asyncio.create_task(keep_copies(database, plan), name="copies")]


async def _ticking(database: Pool, worker: Worker) -> None:
    """Take in what schedules fire, those of a new release at once."""
    ticker = Ticker(database, worker.dispatcher.wake)

    def switch(_live: Live) -> Collection[asyncio.Task[None]]:
        ticker.wake()
        return ()

    worker.releases.on_switch(switch)
    await ticker.run()


def _missed(task: asyncio.Task[None], worker: Worker) -> None:
    """A part that ended by an error takes the worker along, which is then started again: without it, effects
    would stand still while all looks well."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("worker.part_ended", part=task.get_name(), exc_info=error, next="the worker stops")
        worker.stop()
