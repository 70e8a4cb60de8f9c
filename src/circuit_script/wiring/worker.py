"""Settings → worker: every part built by keyword, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial

import httpx
import structlog

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.parts import Secrets
from circuit_script.connectors.registry import declared, sends
from circuit_script.db.pool import Pool, open_pool
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.effects.rates import rates_of
from circuit_script.effects.settle import Settler
from circuit_script.endpoints.run import LogLine
from circuit_script.events.batch import Loader
from circuit_script.events.dispatch import Dispatcher, DispatchOptions
from circuit_script.events.finalizers import finalizers_of
from circuit_script.events.lanes import Lanes
from circuit_script.events.recorder import Recorder
from circuit_script.events.run import Runner, RunnerParts
from circuit_script.events.sources import open_sources
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.jobs.connector import JobsConnector
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.llm import Models
from circuit_script.secrets import open_secrets
from circuit_script.telemetry import LogWriter
from circuit_script.telemetry.printed import PrintedLines
from circuit_script.telemetry.redact import Redactor
from circuit_script.telemetry.sentry import telling
from circuit_script.tenants.quotas import TenantGovernor
from circuit_script.tenants.tiers import API_CALLS
from circuit_script.wiring.children import make_children, make_recorded_children
from circuit_script.wiring.deliveries import open_deliveries_client
from circuit_script.wiring.endpoints import make_door
from circuit_script.wiring.enrichment import make_enrichment
from circuit_script.wiring.follow import Follower
from circuit_script.wiring.homes import Housing, make_housing
from circuit_script.wiring.judgment import make_protocol, make_screen, warm
from circuit_script.wiring.listening import own_connection
from circuit_script.wiring.live import Live, Releases
from circuit_script.wiring.mirroring import Mirroring, MirrorParts
from circuit_script.wiring.models import make_models, open_providers_client
from circuit_script.wiring.outside import make_callouts
from circuit_script.wiring.quotas import make_quotas
from circuit_script.wiring.reconcile import Reconciler
from circuit_script.wiring.recorded import RecordedReleases
from circuit_script.wiring.reports import reported
from circuit_script.wiring.running import Worker, run
from circuit_script.wiring.shadow_run import ShadowParts
from circuit_script.wiring.shadowing import Shadowing
from circuit_script.wiring.tap import Tap, TappedSettler, tapped
from circuit_script.wiring.tenants import TenantsThere
from circuit_script.wiring.traces import make_traces

log = structlog.get_logger()

POLL = 1.0
POLL_THROUGH_POOLER = 0.1
SETTLING = 5.0  # seconds that a worker that stops has to settle what its model calls cost


@dataclass(frozen=True, slots=True, kw_only=True)
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
    follower: Follower
    recorded: RecordedReleases
    tap: Tap | None
    writers: Pool
    redactor: Redactor
    printed: PrintedLines | None
    secrets: Secrets
    verdicts: VerdictCounts
    names: dict[int, str] = field(default_factory=dict)


async def run_worker(
    settings: Settings,
    url: str,
    ready: Callable[[Worker], None],
    *,
    tap: Tap | None = None,
    dev: bool = False,
    folder_by: str = "",
) -> None:
    """Build a worker, call ``ready`` with it, and run it until it is stopped. ``tap`` hears what executions say.

    Once something was deployed it runs what is live in the database; for ``dev``, and when somebody (``folder_by``)
    asks for it, what its folder holds.

    Raises AppError when the app does not import, DatabaseUnavailable when the database cannot be used.
    """
    printed = PrintedLines() if settings.log.stdout and tap is None else None  # who taps them shows them, too
    async with contextlib.AsyncExitStack() as stack:
        tap = reported(await stack.enter_async_context(telling(settings, "worker")), tap)
        database = await open_pool(
            url, min_size=1, max_size=6, name="circuit worker", pooler=settings.pooler, indexes=True
        )
        stack.push_async_callback(database.close)
        # What is only told must not use up the connections of the road.
        writers = await open_pool(url, min_size=1, max_size=2, name="circuit telemetry", pooler=settings.pooler)
        stack.push_async_callback(writers.close)
        models = make_models(settings, database, await stack.enter_async_context(open_providers_client()))
        stack.push_async_callback(models.settling.close, SETTLING)  # once the last child has ended
        # Callouts of handlers must not use up the connections of the courier.
        quotas = make_quotas(settings, url, database)
        secrets = open_secrets(settings, database)
        stack.push_async_callback(secrets.aclose)
        rules = make_callouts(settings, lambda tenant: quotas.spend(tenant, API_CALLS), secrets)
        governor = CircuitGovernor.of_settings(settings)
        callouts = await stack.enter_async_context(open_client(rules.guard))
        deliveries = await stack.enter_async_context(open_deliveries_client())
        releases, follower, recorded = await _open_releases(stack, settings, database, dev=dev, folder_by=folder_by)
        means = _Means(
            settings=settings,
            url=url,
            database=database,
            callouts=callouts,
            rules=rules,
            models=models,
            deliveries=deliveries,
            governor=governor,
            quotas=quotas,
            releases=releases,
            follower=follower,
            recorded=recorded,
            tap=tap,
            writers=writers,
            redactor=Redactor.of_settings(settings.log),
            printed=printed,
            secrets=secrets,
            verdicts=VerdictCounts(),
        )
        await stack.enter_async_context(means.verdicts.told(writers))
        worker, logs = _assemble(means)
        warming = asyncio.create_task(asyncio.to_thread(warm, settings))
        stack.callback(warming.cancel)
        await run(worker, logs, settings, url, database, ready)


async def _open_releases(
    stack: contextlib.AsyncExitStack, settings: Settings, database: Pool, *, dev: bool, folder_by: str
) -> tuple[Releases, Follower, RecordedReleases]:
    """What runs, who follows what is live, and earlier releases that still run something."""
    tenants = TenantsThere(settings)
    releases = Releases(
        folder=settings.folder,
        make_children=partial(make_children, settings),
        database=database,
        drain=settings.worker.drain,
        tenants=tenants,
        by="dev" if dev else "",
    )
    stack.push_async_callback(releases.stop)
    follower = Follower(
        worker=uuid7(),
        database=database,
        releases=releases,
        make_children=lambda folder, python: make_children(settings, folder, python=python),
        tenants=tenants,
        pooler=settings.pooler,
        follow=not dev,
    )
    await follower.start(by=folder_by)
    recorded = RecordedReleases(
        database=database,
        make_children=lambda folder, python: make_recorded_children(settings, folder, python),
    )
    stack.push_async_callback(recorded.stop)
    await recorded.start()
    return releases, follower, recorded


def _assemble(means: _Means) -> tuple[Worker, LogWriter]:
    settings, database, releases, tap = means.settings, means.database, means.releases, means.tap
    live = releases.live
    lanes = Lanes(means.follower.worker, settings.worker.lease)
    logs = LogWriter(
        means.writers,
        live.release.id,
        redactor=means.redactor,
        printed=means.printed,
        unkept=settings.log.unkept,
    )
    jobs = JobsConnector(database)
    protocol = make_protocol(settings)
    housing = make_housing(settings, database, means.deliveries, means.secrets, jobs)
    connectors = housing.connectors
    traces = make_traces(settings, means.writers, means.redactor.text)
    courier = Courier(
        database=database,
        connectors=connectors,
        worker=lanes.worker,
        held=lambda: dispatcher.kept,
        options=CourierOptions(rates=rates_of(settings), traced=traces is not None and settings.traces.propagate),
        paused=lambda: dispatcher.pauses,
        traces=traces,
    )
    recorder = Recorder(means.writers, settings.shadow)
    parts = RunnerParts(
        database=database,
        children=live.children,
        loader=Loader(database, open_sources(settings.sources), home=housing.home, twins=housing.twins),
        settler=_settler(means, lanes, housing),
        broker=BrokerParts(
            crm=housing.crm,
            client=means.callouts,
            callouts=means.rules,
            repeats=means.governor.repeats,
            models=means.models,
            unique_jobs=jobs.holder,
            knows=partial(sends, settings),
            declared=partial(declared, connectors),
            home=housing.of,
            enrichment=make_enrichment(settings, database),
            judgment=protocol,
            verdicts=means.verdicts,
        ),
        log_line=logs.add,
        sent=courier.wake,
        governor=means.governor,
        quotas=means.quotas,
        traces=traces,
        screen=make_screen(protocol, settings),
        verdicts=means.verdicts,
        recordings=recorder,
    )

    def log_of(live: Live) -> LogLine:
        return tapped(logs.of_release(live.release.id), tap)

    dispatcher = _dispatcher(means, lanes, parts, log_of, courier)
    # A settler of its own, so that an answer waits for no batch's commit.
    door = make_door(settings, releases, replace(parts, settler=_settler(means, lanes, housing)), log_of)
    polls = Reconciler(settings, database, housing) if housing.home is not None else None
    worker = Worker(
        dispatcher,
        courier,
        releases,
        door,
        means.quotas,
        settings,
        means.governor,
        means.models,
        means.follower,
        traces,
        polls,
        recorder=recorder,
        shadowing=_shadowing(means, lanes, parts.broker, recorder),
        mirroring=_mirroring(means, lanes, parts, housing),
    )
    return worker, logs


def _mirroring(means: _Means, lanes: Lanes, parts: RunnerParts, housing: Housing) -> Mirroring | None:
    """Its part in comparing with old services, where there are any."""
    settings, database = means.settings, means.database
    if not settings.mirror:
        return None
    with_ = MirrorParts(
        settings=settings,
        database=means.writers,
        broker=parts.broker,
        loader=Loader(database, open_sources(settings.sources), queued=False, home=housing.home, twins=housing.twins),
        governor=means.governor,
        screen=parts.screen,
        live=lambda: means.releases.live.release.id,
        make_children=partial(make_recorded_children, settings),
    )
    return Mirroring(lanes.worker, with_)


def _shadowing(means: _Means, lanes: Lanes, broker: BrokerParts, recorder: Recorder) -> Shadowing:
    """Its part in comparing a candidate, on the connections of what is only told."""
    parts = ShadowParts(
        means.settings,
        means.writers,
        means.governor,
        means.rules,
        knows=broker.knows,
        declared=broker.declared,
        home=broker.home,
        judgment=broker.judgment,
    )
    return Shadowing(
        worker=lanes.worker,
        settings=means.settings,
        database=means.writers,
        recorder=recorder,
        parts=parts,
        check=TenantsThere(means.settings).check,
    )


def _settler(means: _Means, lanes: Lanes, housing: Housing) -> Settler:
    if means.tap is None:
        return Settler(means.database, lanes.worker, means.redactor.text, home=housing.home)
    names = means.names
    return TappedSettler(
        means.database,
        lanes.worker,
        means.tap,
        lambda handler: names.get(handler, "a handler that is gone"),
        means.redactor.text,
        home=housing.home,
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
        connect=lambda: own_connection(means.url, settings.pooler),
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
        recorded=means.recorded,
    )
    means.recorded.serve(runner_of, dispatcher.wake, dispatcher.hosted)

    def switch(live: Live) -> Collection[asyncio.Task[None]]:
        live.children.on_change = dispatcher.wake
        return dispatcher.switch(pool=live.children, runner=runner_of(live), handlers=live.release.handlers)

    live.children.on_change = dispatcher.wake
    means.releases.on_switch(switch)
    means.releases.on_hold(dispatcher.hold)
    return dispatcher
