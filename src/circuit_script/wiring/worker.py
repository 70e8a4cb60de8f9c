"""Settings → worker: every part built by keyword, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx
import psycopg
import structlog

from circuit_script.backup import Plan, keep_copies
from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.connector import Rate
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.registry import declared, make_registry
from circuit_script.connectors.webhook import WebhookConnector
from circuit_script.db.listen import notifications
from circuit_script.db.pool import Connection, Pool, open_connection, open_pool, prefer_indexes
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.effects.settle import Settler
from circuit_script.endpoints.door import Door
from circuit_script.endpoints.run import LogLine
from circuit_script.errors import DatabaseUnavailable
from circuit_script.events.batch import Loader
from circuit_script.events.bell import CHANNEL
from circuit_script.events.dispatch import Dispatcher, DispatchOptions
from circuit_script.events.finalizers import finalizers_of
from circuit_script.events.lanes import Lanes
from circuit_script.events.maintenance import maintain, prepare
from circuit_script.events.replay import replays
from circuit_script.events.replay.feeder import Feeder
from circuit_script.events.run import Runner, RunnerParts
from circuit_script.events.sources import open_sources
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.broker import BrokerParts
from circuit_script.execution.callouts.fetch import CalloutParts
from circuit_script.execution.callouts.transport import no_cookies, open_client
from circuit_script.execution.nursery import Hosting, WebApp
from circuit_script.execution.pool import Pool as Children
from circuit_script.governor import limits_of
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.jobs.connector import JobsConnector
from circuit_script.jobs.ticker import Ticker
from circuit_script.llm import Models
from circuit_script.tasks import end
from circuit_script.telemetry import LogWriter
from circuit_script.tenants import pauses
from circuit_script.tenants.quotas import TenantGovernor
from circuit_script.tenants.tiers import API_CALLS
from circuit_script.wiring.endpoints import make_door
from circuit_script.wiring.live import Live, Releases, Reloaded
from circuit_script.wiring.models import make_models, open_providers_client
from circuit_script.wiring.outside import make_callouts
from circuit_script.wiring.quotas import follow_tiers, make_quotas
from circuit_script.wiring.tap import Tap, TappedSettler, tapped

log = structlog.get_logger()

POLL = 1.0
KEPT = 100  # connections to vendors that are kept for the next delivery
POLL_THROUGH_POOLER = 0.1
REPLAYS = 60.0  # seconds between looks for a replay, of which it is told at once
REPLAYS_THROUGH_POOLER = 5.0  # where nobody tells
SETTLING = 5.0  # seconds that a worker that stops has to settle what its model calls cost


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

    @property
    def live(self) -> Live:
        """What it runs now."""
        return self.releases.live

    async def reload(self) -> Reloaded:
        """Run the app as its files are now; when they cannot be run, what runs goes on. Tenants get the tiers that
        circuit.toml says now."""
        follow_tiers(self.settings, self.quotas, self.governor, self.models)
        return await self.releases.reload()

    def stop(self) -> None:
        """Take nothing new; what runs is finished and settled."""
        self.courier.stop()
        self.dispatcher.stop()


@dataclass(frozen=True, slots=True)
class _Means:
    """What a worker's parts are made of. ``names`` are its handlers', also of releases that still run something."""

    settings: Settings
    url: str
    database: Pool
    callouts: httpx.AsyncClient
    rules: CalloutParts
    models: Models
    deliveries: httpx.AsyncClient
    governor: CircuitGovernor
    quotas: TenantGovernor
    releases: Releases
    tap: Tap | None
    names: dict[int, str] = field(default_factory=dict)


async def run_worker(settings: Settings, url: str, ready: Callable[[Worker], None], *, tap: Tap | None = None) -> None:
    """Build a worker, call ``ready`` with it, and run it until it is stopped. ``tap`` hears what executions say.

    Raises AppError when the app does not import, DatabaseUnavailable when the database cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        database = await open_pool(
            url, min_size=1, max_size=6, name="circuit worker", pooler=settings.pooler, indexes=True
        )
        stack.push_async_callback(database.close)
        models = make_models(settings, database, await stack.enter_async_context(open_providers_client()))
        stack.push_async_callback(models.settling.close, SETTLING)  # once the last child has ended
        # Callouts of handlers must not use up the connections of the courier.
        quotas = make_quotas(settings, url, database)
        rules = make_callouts(settings, lambda tenant: quotas.spend(tenant, API_CALLS))
        governor = CircuitGovernor.of_settings(settings)
        callouts = await stack.enter_async_context(open_client(rules.guard))
        deliveries = await stack.enter_async_context(open_deliveries_client())
        releases = Releases(
            folder=settings.folder,
            make_children=partial(make_children, settings),
            database=database,
            drain=settings.worker.drain,
        )
        stack.push_async_callback(releases.stop)
        await releases.start()
        means = _Means(settings, url, database, callouts, rules, models, deliveries, governor, quotas, releases, tap)
        worker, logs = _assemble(means)
        await _run(worker, logs, settings, url, database, ready)


def open_deliveries_client() -> httpx.AsyncClient:
    """The courier bounds what is on its way to each target. A bound for all of them together would be used up by those
    that hang, and who is well would count as down."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=KEPT)
    return httpx.AsyncClient(follow_redirects=False, cookies=no_cookies(), limits=limits)


def make_children(settings: Settings, folder: Path | None = None) -> Children:
    """The pool of children that the settings ask for, not started; of the app in ``folder``, if it is another."""
    return Children(
        app_folder=folder or settings.folder,
        app=settings.app,
        size=settings.worker.children,
        on_change=lambda: None,
        limits=limits_of(settings.limits),
        objects=settings.objects,
        express=settings.worker.endpoint_children,
        web=web_app(settings),
        hosting=hosting(settings),
    )


def rates_of(settings: Settings) -> dict[tuple[str, str], Rate]:
    """The rates that circuit.toml says, by connector and operation."""
    return {
        (connector, operation): Rate(rate.calls, rate.seconds, rate.burst, rate.of)
        for connector, each in settings.connectors.items()
        for operation, rate in each.rates.items()
    }


def hosting(settings: Settings) -> Hosting:
    """How far children are fenced in, and how they come to be."""
    return Hosting(settings.worker.isolation, settings.worker.start)


def web_app(settings: Settings) -> WebApp | None:
    """The author's own WSGI or ASGI app, if there is one."""
    web = settings.web
    return WebApp(web.app, web.auth, web.deadline) if web.app else None


def _assemble(means: _Means) -> tuple[Worker, LogWriter]:
    settings, database, releases, tap = means.settings, means.database, means.releases, means.tap
    live = releases.live
    lanes = Lanes(uuid7(), settings.worker.lease)
    logs = LogWriter(database, live.release.id)
    jobs = JobsConnector(database)
    connectors = make_registry(settings.addresses, means.deliveries, jobs)
    courier = Courier(
        database=database,
        connectors=connectors,
        worker=lanes.worker,
        held=lambda: dispatcher.kept,
        options=CourierOptions(rates=rates_of(settings)),
        paused=lambda: dispatcher.pauses,
    )
    parts = RunnerParts(
        database=database,
        children=live.children,
        loader=Loader(database, open_sources(settings.sources)),
        settler=_settler(means, lanes),
        broker=BrokerParts(
            crm=LocalCRM(database),
            client=means.callouts,
            callouts=means.rules,
            repeats=means.governor.repeats,
            models=means.models,
            unique_jobs=jobs.holder,
            knows=lambda connector, target: connector == WebhookConnector.name and target in settings.addresses,
            declared=partial(declared, connectors),
        ),
        log_line=logs.add,
        sent=courier.wake,
        governor=means.governor,
        quotas=means.quotas,
    )

    def log_of(live: Live) -> LogLine:
        return tapped(logs.of_release(live.release.id), tap)

    dispatcher = _dispatcher(means, lanes, parts, log_of, courier)
    # A settler of its own, so that an answer waits for no batch's commit.
    door = make_door(settings, releases, replace(parts, settler=_settler(means, lanes)), log_of)
    worker = Worker(dispatcher, courier, releases, door, means.quotas, settings, means.governor, means.models)
    return worker, logs


def _settler(means: _Means, lanes: Lanes) -> Settler:
    if means.tap is None:
        return Settler(means.database, lanes.worker)
    names = means.names
    return TappedSettler(
        means.database, lanes.worker, means.tap, lambda handler: names.get(handler, "a handler that is gone")
    )


def _dispatcher(
    means: _Means, lanes: Lanes, parts: RunnerParts, log_of: Callable[[Live], LogLine], courier: Courier
) -> Dispatcher:
    """A dispatcher of what is live, which follows each reload."""
    settings, live = means.settings, means.releases.live
    retries = RetryPolicy(settings.worker.attempts, settings.worker.backoff, settings.worker.hold)

    def runner_of(live: Live) -> Runner:
        declared = [(spec.name, spec.limits) for spec in live.release.handlers.values()]
        for cut in means.governor.cuts(declared):
            if cut.tier is None:  # a tier's tenants are meant to have less
                log.warning("limits.cut", handler=cut.handler, said=str(cut), next="the ceiling counts")
        means.names.update((id_, spec.name) for id_, spec in live.release.handlers.items())
        finalizers = finalizers_of(live.release.handlers)
        own = replace(parts, children=live.children, log_line=log_of(live), finalizers=finalizers)
        return Runner(own, live.release.id, retries)

    dispatcher = Dispatcher(
        connect=lambda: _connection(means.url, settings.pooler),
        lanes=lanes,
        pool=live.children,
        runner=runner_of(live),
        handlers=live.release.handlers,
        options=DispatchOptions(
            lease=settings.worker.lease,
            drain=settings.worker.drain,
            poll=POLL_THROUGH_POOLER if settings.pooler else POLL,
        ),
        delivering=courier.busy_lanes,
    )

    def switch(live: Live) -> Collection[asyncio.Task[None]]:
        live.children.on_change = dispatcher.wake
        return dispatcher.switch(pool=live.children, runner=runner_of(live), handlers=live.release.handlers)

    live.children.on_change = dispatcher.wake
    means.releases.on_switch(switch)
    return dispatcher


async def _run(
    worker: Worker,
    logs: LogWriter,
    settings: Settings,
    url: str,
    database: Pool,
    ready: Callable[[Worker], None],
) -> None:
    """Courier, writer, listener and maintenance live as long as the dispatcher."""
    feeder = Feeder(database, idle=REPLAYS_THROUGH_POOLER if settings.pooler else REPLAYS)
    wakes = {
        CHANNEL: worker.dispatcher.wake,
        pauses.CHANNEL: worker.dispatcher.look_again,
        replays.CHANNEL: feeder.wake,
    }
    beside = [
        asyncio.create_task(
            maintain(
                database,
                settings.ledger.retention_days,
                settings.ledger.log_days,
                reply_days=settings.ledger.reply_days,
            ),
            name="maintenance",
        ),
        *_copying(settings, url, database),
        asyncio.create_task(feeder.run(), name="replays"),
        asyncio.create_task(_ticking(database, worker), name="schedules"),
        *([] if settings.pooler else [asyncio.create_task(_listen(url, wakes), name="listen")]),
    ]
    courier = asyncio.create_task(worker.courier.run(), name="courier")
    writer = asyncio.create_task(logs.run(), name="logs")
    quotas = asyncio.create_task(worker.quotas.run(), name="quotas")
    await prepare(database)
    await worker.door.start()
    for task in (*beside, courier, writer, quotas):
        task.add_done_callback(lambda ended: _missed(ended, worker))
    ready(worker)
    try:
        await worker.dispatcher.run()
    finally:
        await worker.door.stop(settings.worker.drain)
        worker.courier.stop()
        worker.quotas.stop()
        logs.stop()
        await end(beside)
        await asyncio.gather(courier, writer, quotas, return_exceptions=True)


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
    """A part that ended by an error takes the worker along, which is then started again: without it, effects or logs
    would stand still while all looks well."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("worker.part_ended", part=task.get_name(), exc_info=error, next="the worker stops")
        worker.stop()


async def _listen(url: str, wakes: Mapping[str, Callable[[], None]]) -> None:
    """Wake who waits for what is said on a channel: a gateway says that something arrived, a verb that there is a
    replay. Polling covers what is missed."""
    while True:
        try:
            async with _connection(url, False) as connection:
                for channel in wakes:
                    await connection.execute(f"LISTEN {channel}".encode())
                async for notice in notifications(connection):
                    wakes[notice.channel]()
        except (psycopg.Error, OSError, DatabaseUnavailable) as error:
            log.warning("listen", error=str(error), next="polling until it is back")
        await asyncio.sleep(1.0)


@contextlib.asynccontextmanager
async def _connection(url: str, pooler: bool) -> AsyncIterator[Connection]:
    connection = await open_connection(url, pooler=pooler, name="circuit dispatcher")
    try:
        if not pooler:
            await prefer_indexes(connection)
        yield connection
    finally:
        await connection.close()
