"""Settings → worker: every part built by keyword, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import psycopg
import structlog

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.registry import make_registry
from circuit_script.connectors.webhook import WebhookConnector
from circuit_script.db.pool import Connection, Pool, open_connection, open_pool, prefer_indexes
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.effects.settle import Settler
from circuit_script.endpoints.door import Door
from circuit_script.endpoints.run import LogLine
from circuit_script.errors import DatabaseUnavailable
from circuit_script.events.batch import Loader
from circuit_script.events.dispatch import Dispatcher, DispatchOptions
from circuit_script.events.lanes import Lanes
from circuit_script.events.maintenance import maintain, prepare
from circuit_script.events.run import Runner, RunnerParts
from circuit_script.events.sources import open_sources
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.broker import BrokerParts
from circuit_script.execution.nursery import WebApp
from circuit_script.execution.pool import Pool as Children
from circuit_script.governor import limits_of
from circuit_script.telemetry import LogWriter
from circuit_script.wiring.endpoints import make_door
from circuit_script.wiring.live import Live, Releases, Reloaded
from circuit_script.wiring.tap import Tap, TappedSettler, tapped

log = structlog.get_logger()

POLL = 1.0
POLL_THROUGH_POOLER = 0.1


@dataclass(frozen=True, slots=True)
class Worker:
    """A host's dispatcher and courier, and the releases that it runs."""

    dispatcher: Dispatcher
    courier: Courier
    releases: Releases
    door: Door

    @property
    def live(self) -> Live:
        """What it runs now."""
        return self.releases.live

    async def reload(self) -> Reloaded:
        """Run the app as its files are now; when they cannot be run, what runs goes on."""
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
    deliveries: httpx.AsyncClient
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
        # Callouts of handlers must not use up the connections of the courier.
        callouts, deliveries = [
            await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False, cookies=_no_cookies()))
            for _ in range(2)
        ]
        releases = Releases(
            folder=settings.folder,
            make_children=partial(make_children, settings),
            database=database,
            drain=settings.worker.drain,
        )
        stack.push_async_callback(releases.stop)
        await releases.start()
        worker, logs = _assemble(_Means(settings, url, database, callouts, deliveries, releases, tap))
        await _run(worker, logs, settings, url, database, ready)


def make_children(settings: Settings) -> Children:
    """The pool of children that the settings ask for, not started."""
    return Children(
        app_folder=settings.folder,
        app=settings.app,
        size=settings.worker.children,
        on_change=lambda: None,
        limits=limits_of(settings.limits),
        objects=settings.objects,
        express=settings.worker.endpoint_children,
        web=web_app(settings),
    )


def web_app(settings: Settings) -> WebApp | None:
    """The author's own WSGI or ASGI app, if there is one."""
    web = settings.web
    return WebApp(web.app, web.auth, web.deadline) if web.app else None


def _assemble(means: _Means) -> tuple[Worker, LogWriter]:
    settings, database, releases, tap = means.settings, means.database, means.releases, means.tap
    live = releases.live
    lanes = Lanes(uuid7(), settings.worker.lease)
    logs = LogWriter(database, live.release.id)
    courier = Courier(
        database=database,
        connectors=make_registry(settings.addresses, means.deliveries),
        worker=lanes.worker,
        held=lambda: lanes.held if lanes.valid else {},
        options=CourierOptions(),
    )
    parts = RunnerParts(
        database=database,
        children=live.children,
        loader=Loader(database, open_sources(settings.sources)),
        settler=_settler(means, lanes),
        broker=BrokerParts(
            crm=LocalCRM(database),
            client=means.callouts,
            knows=lambda connector, target: connector == WebhookConnector.name and target in settings.addresses,
        ),
        log_line=logs.add,
        sent=courier.wake,
    )

    def log_of(live: Live) -> LogLine:
        return tapped(logs.of_release(live.release.id), tap)

    dispatcher = _dispatcher(means, lanes, parts, log_of)
    # A settler of its own, so that an answer waits for no batch's commit.
    door = make_door(settings, releases, replace(parts, settler=_settler(means, lanes)), log_of)
    return Worker(dispatcher, courier, releases, door), logs


def _settler(means: _Means, lanes: Lanes) -> Settler:
    if means.tap is None:
        return Settler(means.database, lanes.worker)
    names = means.names
    return TappedSettler(
        means.database, lanes.worker, means.tap, lambda handler: names.get(handler, "a handler that is gone")
    )


def _dispatcher(means: _Means, lanes: Lanes, parts: RunnerParts, log_of: Callable[[Live], LogLine]) -> Dispatcher:
    """A dispatcher of what is live, which follows each reload."""
    settings, live = means.settings, means.releases.live
    retries = RetryPolicy(settings.worker.attempts, settings.worker.backoff, settings.worker.hold)

    def runner_of(live: Live) -> Runner:
        means.names.update((id_, spec.name) for id_, spec in live.release.handlers.items())
        return Runner(replace(parts, children=live.children, log_line=log_of(live)), live.release.id, retries)

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
    beside = [
        asyncio.create_task(maintain(database, settings.ledger.retention_days), name="maintenance"),
        *([] if settings.pooler else [asyncio.create_task(_listen(url, worker.dispatcher.wake), name="listen")]),
    ]
    courier = asyncio.create_task(worker.courier.run(), name="courier")
    writer = asyncio.create_task(logs.run(), name="logs")
    await prepare(database)
    await worker.door.start()
    for task in (*beside, courier, writer):
        task.add_done_callback(lambda ended: _missed(ended, worker))
    ready(worker)
    try:
        await worker.dispatcher.run()
    finally:
        await worker.door.stop(settings.worker.drain)
        worker.courier.stop()
        logs.stop()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, courier, writer, return_exceptions=True)


def _missed(task: asyncio.Task[None], worker: Worker) -> None:
    """A part that ended by an error takes the worker along, which is then started again: without it, effects or logs
    would stand still while all looks well."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("worker.part_ended", part=task.get_name(), exc_info=error, next="the worker stops")
        worker.stop()


def _no_cookies() -> CookieJar:
    """A jar that takes none: one tenant's session must not go out with another's callout."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


async def _listen(url: str, wake: Callable[[], None]) -> None:
    """Wake the dispatcher when a gateway says that something arrived; polling covers what is missed."""
    while True:
        try:
            async with _connection(url, False) as connection:
                await connection.execute("LISTEN circuit_queue")
                async for _ in connection.notifies():
                    wake()
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
