"""Settings → worker: every part built by keyword, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
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
from circuit_script.errors import DatabaseUnavailable
from circuit_script.events.batch import Loader
from circuit_script.events.dispatch import Dispatcher, DispatchOptions
from circuit_script.events.lanes import Lanes
from circuit_script.events.maintenance import maintain, prepare
from circuit_script.events.run import Runner, RunnerParts
from circuit_script.events.sources import open_sources
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.pool import Pool as Children
from circuit_script.governor import limits_of
from circuit_script.releases import Release, content_hash, make_live
from circuit_script.telemetry import LogWriter

log = structlog.get_logger()

POLL = 1.0
POLL_THROUGH_POOLER = 0.1


@dataclass(frozen=True, slots=True)
class Worker:
    """A host's dispatcher, children and courier."""

    dispatcher: Dispatcher
    courier: Courier
    children: Children
    release: Release

    def stop(self) -> None:
        """Take nothing new; what runs is finished and settled."""
        self.courier.stop()
        self.dispatcher.stop()


async def run_worker(settings: Settings, url: str, ready: Callable[[Worker], None]) -> None:
    """Build a worker, call ``ready`` with it, and run it until it is stopped.

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
        children = Children(
            app_folder=settings.folder,
            app=settings.app,
            size=settings.worker.children,
            on_change=lambda: None,
            limits=limits_of(settings.limits),
        )
        manifest = await children.start()
        stack.push_async_callback(children.stop)
        for warning in manifest.warnings:
            log.warning("app.import", warning=warning)
        async with database.connection() as connection:
            release = await make_live(connection, content_hash(settings.folder), manifest.handlers)
        worker, logs = _assemble(settings, url, database, callouts, deliveries, children, release)
        await _run(worker, logs, settings, url, database, ready)


def _assemble(
    settings: Settings,
    url: str,
    database: Pool,
    callouts: httpx.AsyncClient,
    deliveries: httpx.AsyncClient,
    children: Children,
    release: Release,
) -> tuple[Worker, LogWriter]:
    connectors = make_registry(settings.addresses, deliveries)
    lanes = Lanes(uuid7(), settings.worker.lease)
    logs = LogWriter(database, release.id)
    courier = Courier(
        database=database,
        connectors=connectors,
        worker=lanes.worker,
        held=lambda: lanes.held if lanes.valid else {},
        options=CourierOptions(),
    )
    runner = Runner(
        RunnerParts(
            database=database,
            children=children,
            loader=Loader(database, open_sources(settings.sources)),
            settler=Settler(database, lanes.worker),
            crm=LocalCRM(database),
            client=callouts,
            knows=lambda connector, target: connector == WebhookConnector.name and target in settings.addresses,
            log_line=logs.add,
            sent=courier.wake,
        ),
        release.id,
        RetryPolicy(settings.worker.attempts, settings.worker.backoff, settings.worker.hold),
    )
    dispatcher = Dispatcher(
        connect=lambda: _connection(url, settings.pooler),
        lanes=lanes,
        pool=children,
        runner=runner,
        handlers=release.handlers,
        options=DispatchOptions(
            lease=settings.worker.lease,
            drain=settings.worker.drain,
            poll=POLL_THROUGH_POOLER if settings.pooler else POLL,
        ),
    )
    children.on_change = dispatcher.wake
    return Worker(dispatcher, courier, children, release), logs


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
    for task in (*beside, courier, writer):
        task.add_done_callback(lambda ended: _missed(ended, worker))
    ready(worker)
    try:
        await worker.dispatcher.run()
    finally:
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
