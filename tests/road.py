"""A road for integration tests: events taken in, and workers whose children are ordinary functions."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import httpx
import psycopg

from circuit_script.clock import uuid7
from circuit_script.config import Address, SourceSettings
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.registry import make_registry
from circuit_script.db.pool import Connection, Pool, open_connection, open_pool
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.effects.settle import Settler
from circuit_script.events.batch import Loader
from circuit_script.events.dispatch import Dispatcher, DispatchOptions
from circuit_script.events.finalizers import finalizers_of
from circuit_script.events.intake import order_hash
from circuit_script.events.lanes import Lanes
from circuit_script.events.ledger import Ledger, LedgerRow
from circuit_script.events.run import Runner, RunnerParts
from circuit_script.events.sources import EventDraft, open_sources
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from circuit_script.jobs.connector import JobsConnector
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.releases import Release, make_live
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.tenants.entitlement import UNLIMITED, Quotas
from tests.loopback import NOBODY

LOOPBACK = CalloutParts(guard=Guard(private=Private.of(["127.0.0.1"])), attempts=1)  # where the tests' receivers are
Handler = Callable[[Work, ExecutionBroker], Awaitable[Outcome | None]]
PATIENCE = 45.0  # seconds: what is waited for comes in one, where nothing else runs


@dataclass(frozen=True)
class Incoming:
    """One event as the vendor tells it."""

    record: str
    event: str = "afterInsert"
    object: str = "Contact"
    tenant: str = "acme"
    key: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> LedgerRow:
        data = {"id": self.record, **self.fields}
        body = json.dumps({"type": f"{self.object}.{self.event}", "data": data}).encode()
        key = self.key or self.record
        draft = EventDraft(self.object, self.event, self.record, key)
        hashes, sent = (order_hash(self.tenant, key),), json.dumps(dict(self.headers)).encode()
        return LedgerRow(uuid7(), "standard", "shop", self.tenant, str(uuid7()), None, sent, body, (draft,), hashes)


def contact(record: str, event: str = "afterInsert", **fields: Any) -> Incoming:
    return Incoming(record, event, fields=fields)


class FakeChildren:
    """What the dispatcher needs of a pool, with a function of the test in the place of a process."""

    def __init__(self, handler: Handler, size: int = 2) -> None:
        self.handler = handler
        self.size = size
        self.works: list[Work] = []
        self.running = 0
        self._places = asyncio.Semaphore(size)

    def idle(self, tenant: str, share: bool) -> bool:
        return self.running < self.size

    async def run(self, work: Work, broker: ExecutionBroker, *, express: bool = False) -> Outcome:
        async with self._places:
            self.works.append(work)
            self.running += 1
            try:
                return await self.handler(work, broker) or Succeeded(broker.usage)
            except Exception as error:
                return Failed(str(error), broker.usage)
            finally:
                self.running -= 1

    @property
    def batches(self) -> list[list[str]]:
        """Ids of the records of each execution, in order."""
        return [[str(record["id"]) for record in work.records] for work in self.works]

    @property
    def handled(self) -> list[str]:
        return [each for batch in self.batches for each in batch]


async def succeed(work: Work, broker: ExecutionBroker) -> Outcome:
    return Succeeded(Usage())


async def score(work: Work, broker: ExecutionBroker) -> Outcome:
    """Write a score to each contact."""
    rows = [{"id": record["id"], "score": 1} for record in work.records]
    await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
    return Succeeded(broker.usage)


@dataclass
class Worker:
    """A dispatcher with its courier, running."""

    dispatcher: Dispatcher
    lanes: Lanes
    courier: Courier
    children: FakeChildren
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.dispatcher.stop()
        await asyncio.wait_for(self.task, PATIENCE)


class Road:
    """One database with a live release, and what tests do with it."""

    def __init__(self, url: str, pool: Pool, pooler: bool) -> None:
        self.url = url
        self.pool = pool
        self.pooler = pooler
        self.release: Release = Release(0, "", {})
        self.client = httpx.AsyncClient(verify=NOBODY)
        self.workers: list[Worker] = []
        self.lines: list[dict[str, Any]] = []

    async def live(self, *handlers: HandlerSpec) -> Release:
        async with self.pool.connection() as connection:
            self.release = await make_live(connection, f"digest of {[each.name for each in handlers]}", handlers)
        return self.release

    def handler(self, name: str) -> int:
        return next(id_ for id_, each in self.release.handlers.items() if each.name == name)

    async def take_in(self, *incoming: Incoming) -> list[UUID]:
        """Commit these in one group; their delivery ids."""
        ledger = Ledger(self.connect, pooler=self.pooler)
        rows = [each.row() for each in incoming]
        try:
            await ledger.take_in(rows)
        finally:
            await ledger.close()
        return [row.id for row in rows]

    async def connect(self) -> Connection:
        return await open_connection(self.url, pooler=self.pooler)

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows; of single columns, the values."""
        async with self.pool.connection() as connection:
            found = await (await connection.execute(query.encode(), values)).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    async def run(self, query: str, *values: Any) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(query.encode(), values)

    async def until(self, query: str, expected: Any, *values: Any) -> None:
        """Poll until the query's rows are as expected."""

        async def holds() -> bool:
            try:
                self.seen = await self.rows(query, *values)
            except psycopg.OperationalError as error:  # it restarts
                self.seen = [error]
            return bool(self.seen == expected)

        await eventually(holds, lambda: f"{query}: {self.seen!r} is not {expected!r}")

    async def done(self) -> None:
        """Until the queue is empty."""
        await self.until("SELECT count(*) FROM circuit.queue", [0])

    async def record(self, id_: str, object_: str = "Contact", tenant: str = "acme") -> dict[str, Any] | None:
        (found,) = await LocalCRM(self.pool).get(tenant, object_, [id_])
        return found

    async def start(self, handler: Handler = succeed, *, size: int = 2, **changes: Any) -> Worker:
        """A worker whose children run ``handler``, or are the ``children`` that are given. ``changes``: crm, attempts,
        backoff, hold, lease, drain, look_ahead, quotas, models, recorded, recordings, traces, screen, verdicts."""
        children: FakeChildren = changes.get("children") or FakeChildren(handler, size)
        lease = changes.get("lease", 10.0)
        lanes = Lanes(uuid7(), lease)
        addresses: Mapping[str, Address] = changes.get("addresses", {})
        courier = self.courier(lanes, addresses, lambda: dispatcher.kept, changes.get("traces"))
        quotas: Quotas = changes.get("quotas", UNLIMITED)
        parts = RunnerParts(
            database=self.pool,
            children=children,  # type: ignore[arg-type]  # a fake of the same shape
            loader=Loader(self.pool, open_sources(SourceSettings())),
            settler=Settler(self.pool, lanes.worker),
            broker=BrokerParts(
                crm=changes.get("crm") or LocalCRM(self.pool),
                client=self.client,
                knows=lambda connector, target: target in addresses,
                callouts=replace(LOOPBACK, spend=lambda tenant: quotas.spend(tenant, "api_calls")),
                models=changes.get("models"),
                unique_jobs=JobsConnector(self.pool).holder,
            ),
            log_line=lambda execution, name, tenant, line: self.lines.append(line),
            sent=courier.wake,
            quotas=quotas,
            finalizers=finalizers_of(self.release.handlers),
            traces=changes.get("traces"),
            screen=changes.get("screen"),
            verdicts=changes.get("verdicts") or VerdictCounts(),
            recordings=changes.get("recordings"),
        )
        policy = RetryPolicy(changes.get("attempts", 3), changes.get("backoff", 0.05), changes.get("hold", 60.0))
        dispatcher = Dispatcher(
            connect=self._connection,
            lanes=lanes,
            pool=children,  # type: ignore[arg-type]  # a fake of the same shape
            runner=Runner(parts, self.release.id, policy),
            handlers=self.release.handlers,
            options=DispatchOptions(
                lease=lease,
                drain=changes.get("drain", 5.0),
                poll=0.05,
                look_ahead=changes.get("look_ahead", 2000),
            ),
            delivering=courier.busy_lanes,
            recorded=changes.get("recorded"),
        )
        worker = Worker(dispatcher, lanes, courier, children, asyncio.create_task(dispatcher.run()))
        self.workers.append(worker)
        return worker

    def courier(
        self,
        lanes: Lanes,
        addresses: Mapping[str, Address],
        held: Callable[[], Mapping[int, int]],
        traces: TraceWriter | None = None,
    ) -> Courier:
        return Courier(
            database=self.pool,
            connectors=make_registry(addresses, self.client, JobsConnector(self.pool)),
            worker=lanes.worker,
            held=held,
            options=CourierOptions(attempts=3, backoff=0.02, poll=0.02),
            traces=traces,
        )

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self.connect()
        try:
            yield connection
        finally:
            await connection.close()

    async def close_workers(self) -> None:
        for worker in self.workers:
            worker.dispatcher.stop()
        tasks = [worker.task for worker in self.workers]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self.workers.clear()

    async def close(self) -> None:
        await self.close_workers()
        await self.client.aclose()
        await self.pool.close()


@contextlib.asynccontextmanager
async def open_road(url: str, pooler: bool = False) -> AsyncIterator[Road]:
    pool = await open_pool(url, min_size=1, max_size=8, name="test", pooler=pooler)
    road = Road(url, pool, pooler)
    try:
        yield road
    finally:
        await road.close()


async def eventually(holds: Callable[[], Awaitable[bool]], what: Callable[[], str] | str) -> None:
    """Poll until ``holds()``; fail with ``what`` when it never does."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what if isinstance(what, str) else what()) from None


async def happens(holds: Callable[[], bool], what: str) -> None:
    """Poll until ``holds()``, of what needs no waiting to look at."""

    async def look() -> bool:
        return holds()

    await eventually(look, what)


def places(work: Work, ids: Iterable[str]) -> Sequence[int]:
    """Where records with these ids stand in the batch."""
    wanted = set(ids)
    return [place for place, record in enumerate(work.records) if record["id"] in wanted]


SCORE = HandlerSpec("score", (("Contact", "afterInsert"), ("Contact", "afterUpdate"), ("Contact", "afterDelete")))
