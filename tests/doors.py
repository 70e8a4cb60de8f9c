"""A worker's door whose children are ordinary functions, and the gateway in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from circuit_script.clock import uuid7
from circuit_script.connectors.local import LocalCRM
from circuit_script.db.pool import Connection, Pool, open_connection, open_pool
from circuit_script.effects.settle import Settler
from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.answerer import Answerer, AnswererParts
from circuit_script.endpoints.attempt import EndpointBroker
from circuit_script.endpoints.door import Door
from circuit_script.endpoints.protocol import Offer
from circuit_script.events.recorder import Recorder
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.outcome import EndpointSpec, Failed, HandlerSpec, Outcome, Succeeded, Way, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor import Limits
from circuit_script.releases import make_live
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.tenants.entitlement import UNLIMITED, Quotas
from circuit_script.tenants.keys import create_key
from tests.loopback import NOBODY

Handler = Callable[[Work, EndpointBroker], Awaitable[Outcome | None]]
PATIENCE = 15.0


def endpoint(
    name: str, *methods: str, path: str | None = None, limits: Limits | None = None, **spec: Any
) -> HandlerSpec:
    """``@endpoint(name)`` as the app's manifest has it."""
    way = Way(methods or ("POST",), path or f"/api/{name}")
    return HandlerSpec(name, (), limits=limits or Limits(), endpoint=EndpointSpec((way,), **spec))


def answer(broker: EndpointBroker, status: int = 200, body: Any = None, *headers: tuple[str, str]) -> None:
    """A plain JSON answer, as a child gives it."""
    broker.on_head(Head(status, [("content-type", "application/json"), *headers]))
    broker.on_chunk(json.dumps(body).encode())


def begin_events(broker: EndpointBroker) -> None:
    broker.on_head(Head(200, [("content-type", "text/event-stream")], True))


async def insert(broker: EndpointBroker, **row: Any) -> None:
    await broker.request("dml", {"op": "insert", "object": "Said", "rows": [row], "record": None})


class FakeChildren:
    """A pool of children, with a function of the test in the place of a process."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.works: list[Work] = []
        self.cancelled = 0

    async def run(self, work: Work, broker: Any, *, express: bool) -> Outcome:
        assert express
        self.works.append(work)
        try:
            return await self.handler(work, broker) or Succeeded(broker.usage)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except Exception as error:
            return Failed(str(error), broker.usage)


@dataclass
class Post:
    """A door with its answerer and database."""

    url: str
    pool: Pool
    folder: Path
    children: FakeChildren
    door: Door
    answerer: Answerer
    traces: TraceWriter
    pooler: bool = False
    lines: list[Any] = field(default_factory=list)
    openapi: bytes = b""

    async def live(self, *handlers: HandlerSpec) -> None:
        """Make these the live release."""
        async with self.pool.connection() as connection:
            release = await make_live(connection, str(uuid7()), handlers)
        self.answerer.switch(release.id, release.handlers, self.children, lambda *line: self.lines.append(line))
        offers = [Offer(each.name, each.endpoint) for each in handlers if each.endpoint is not None]
        self.door.announce(str(release.id), offers, self.openapi)

    async def key(self, tenant: str = "acme") -> dict[str, str]:
        """Headers with a new key."""
        async with self.pool.connection() as connection:
            key, _ = await create_key(connection, tenant, str(uuid7()))
        return {"authorization": f"Bearer {key}"}

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows; of single columns, the values."""
        async with self.pool.connection() as connection:
            found = await (await connection.execute(query.encode(), values)).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    async def until(self, query: str, expected: Sequence[Any], *values: Any) -> None:
        """Poll until the query's rows are as expected."""
        async with asyncio.timeout(PATIENCE):
            while (seen := await self.rows(query, *values)) != list(expected):
                await asyncio.sleep(0.01)
        assert seen == list(expected)


@contextlib.asynccontextmanager
async def open_post(
    url: str,
    folder: Path,
    handler: Handler,
    *,
    places: int = 4,
    pooler: bool = False,
    quotas: Quotas = UNLIMITED,
    recordings: Recorder | None = None,
) -> AsyncIterator[Post]:
    """A worker's door in ``folder``, whose children run ``handler``."""
    pool = await open_pool(url, min_size=1, max_size=6, name="test", pooler=pooler)
    client = httpx.AsyncClient(verify=NOBODY)
    children, traces = FakeChildren(handler), TraceWriter(pool)
    answerer = Answerer(
        AnswererParts(
            database=pool,
            settler=Settler(pool, uuid7()),
            broker=BrokerParts(crm=LocalCRM(pool), client=client, knows=lambda connector, target: target == "hooks"),
            sent=lambda: None,
            places=places,
            quotas=quotas,
            traces=traces,
            recordings=recordings,
        )
    )
    # The test's own process is the worker here, so its gateways would be taken for its children.
    door = Door(socket_path(folder), answerer, refuse=lambda pid: False)
    await door.start()
    try:
        yield Post(url, pool, folder, children, door, answerer, traces, pooler)
    finally:
        await door.stop(1.0)
        await client.aclose()
        await pool.close()


async def connect(url: str) -> Connection:
    return await open_connection(url)
