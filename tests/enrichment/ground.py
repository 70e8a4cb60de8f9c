"""An execution that enriches leads: the real broker, cache and database, and the sources on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import httpx

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.local import LocalCRM
from circuit_script.db.pool import Pool, open_pool
from circuit_script.effects.unit import UnitOfWork
from circuit_script.enrichment import Enrichment
from circuit_script.errors import SecretMissing
from circuit_script.execution.authoring.enriching import FIELDS, _lead
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import Work
from circuit_script.governor import Limits
from circuit_script.settings_enrichment import EnrichmentSettings
from circuit_script.telemetry.spans import Recorder
from circuit_script.wiring.enrichment import make_enrichment
from tests.enrichment.sources import KEY, TOKEN

WACO = (31.5493, -97.1467)
DALLAS = (32.7767, -96.7970)
MINE = {"*": (DALLAS, WACO)}


def lead(number: int, state: str = "TX", **more: Any) -> dict[str, Any]:
    """A contact as GoHighLevel tells it."""
    return {
        "id": f"c{number}",
        "address1": f"{number} Main St",
        "city": "Waco",
        "state": state,
        "postalCode": "76701",
        "email": f"lead{number}@example.com",
        **more,
    }


def settings_of(url: str, **changes: Any) -> EnrichmentSettings:
    """``changes`` by section: census={"states": 1}."""
    sections: dict[str, Any] = {
        "locations": MINE,
        "census": {"url": f"{url}/geocoder", "data_url": f"{url}/data", "timeout": 20},
        "maps": {"url": url},
        "linkedin": {},
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change} if isinstance(change, dict) and name != "locations" else change
    return EnrichmentSettings.model_validate(sections)


class Heard(Protocol):
    """Where the sources are."""

    url: str


class Names:
    """The secrets of a process."""

    def __init__(self, **values: str) -> None:
        self.values = {name.replace("_", "."): value for name, value in values.items()}

    async def get(self, tenant: str, name: str) -> str:
        if name not in self.values:
            raise SecretMissing(f"There is no {name}.")
        return self.values[name]

    async def hosts(self, tenant: str, name: str) -> tuple[str, ...]:
        return ()


class Journal:
    def __init__(self) -> None:
        self.replies: dict[tuple[int | None, bytes], bytes] = {}

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return self.replies.get((owner, key))

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self.replies[owner, key] = reply


class Ground:
    """One worker; another one is `again` with the same database."""

    def __init__(self, pool: Pool, client: httpx.AsyncClient, parts: CalloutParts, folder: Path) -> None:
        self.pool = pool
        self.client = client
        self.parts = parts
        self.folder = folder
        self.enrichment: Enrichment
        self.broker: ExecutionBroker
        self.recorder: Recorder
        self.remaining = 30.0

    def use(self, settings: EnrichmentSettings, *, shared: bool = True) -> None:
        """From now on; nothing is remembered in memory."""
        whole = Settings(folder=self.folder, enrichment=settings)
        self.enrichment = make_enrichment(whole, self.pool if shared else None)

    def execution(
        self,
        *,
        tenant: str = "acme",
        egress: tuple[str, ...] | None = None,
        journal: Journal | None = None,
        parts: CalloutParts | None = None,
        records: int = 1,
        **limits: Any,
    ) -> ExecutionBroker:
        given: Sequence[dict[str, Any]] = [{"id": f"c{number}"} for number in range(records)]
        work = Work(
            execution=uuid7(),
            handler="h",
            tenant=tenant,
            object="Contact",
            event="afterInsert",
            records=given,
            old=[None] * records,
            events=[{}] * records,
            limits=Limits(**limits),
            egress=egress,
        )
        self.recorder = Recorder(work.execution)
        self.broker = ExecutionBroker(
            work,
            BrokerParts(
                crm=LocalCRM(self.pool),
                client=self.client,
                knows=lambda *_: False,
                callouts=parts or self.parts,
                enrichment=self.enrichment,
            ),
            held=UnitOfWork("Contact", [str(each["id"]) for each in given]),
            journal=journal or Journal(),
            log=lambda line: None,
            remaining=lambda: self.remaining,
            recorder=self.recorder,
        )
        return self.broker

    async def enrich(self, records: Sequence[Any], *sources: str, **execution: Any) -> list[dict[str, Any]]:
        """As CircuitDB.batch_enrich asks, in an execution of its own."""
        broker = self.execution(**execution)
        return await ask(broker, records, *sources)

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.pool.connection() as connection:
            found = await (await connection.execute(query.encode(), values)).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]


async def ask(broker: ExecutionBroker, records: Sequence[Any], *sources: str) -> list[dict[str, Any]]:
    asked = {"leads": [_lead(each, FIELDS) for each in records], "sources": list(sources or ("census",))}
    answer = await broker.request("enrich", {**asked, "record": None})
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


@asynccontextmanager
async def standing(database: str, sources: Heard, folder: Path, **changes: Any) -> AsyncIterator[Ground]:
    pool = await open_pool(database, min_size=1, max_size=4, name="test", indexes=True)  # as a worker's
    guard = Guard(private=Private.of(["127.0.0.1"]))
    secrets = Names(maps_key=KEY, linkedin_token=TOKEN)
    parts = replace(CalloutParts(guard=guard, attempts=1, secrets=secrets), sleep=_no_wait)
    try:
        async with open_client(guard) as client:
            ground = Ground(pool, client, parts, folder)
            ground.use(settings_of(sources.url, **changes))
            yield ground
    finally:
        await pool.close()


async def _no_wait(seconds: float) -> None:
    """The backoff of a test."""
