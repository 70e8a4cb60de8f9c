"""The ground that a trial stands on: database, CRM and limits as on the road, and callouts that reach nobody."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

import httpx

from circuit_script.config import Settings
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.registry import declared, sends
from circuit_script.db.pool import Pool, open_pool
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.llm import Models
from circuit_script.secrets import open_secrets
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.enrichment import make_enrichment
from circuit_script.wiring.homes import Housing
from circuit_script.wiring.models import make_closed_models
from circuit_script.wiring.outside import make_callouts

SETTLING = 5.0  # seconds that model calls have to be settled at the end


@dataclass(frozen=True, slots=True)
class Ground:
    """What trials of one app share. ``closed`` answers in the place of the network; ``rules`` are those of callouts
    that reach it."""

    settings: Settings
    database: Pool
    crm: LocalCRM
    governor: CircuitGovernor
    rules: CalloutParts
    closed: Callouts
    closed_client: httpx.AsyncClient
    closed_models: Mapping[bool, Models]  # whether they write down what was spent

    def parts(self, client: httpx.AsyncClient, models: Models, housing: Housing) -> BrokerParts:
        """A broker's parts for callouts that leave by this client, and records that are read where they live."""
        parts = self._parts(client, self.rules, models)
        return replace(parts, crm=housing.crm, home=housing.of, declared=partial(declared, housing.connectors))

    def closed_parts(self, *, commit: bool) -> BrokerParts:
        """A broker's parts for callouts that reach nobody; without ``commit`` nothing is written down of them."""
        # What was said beforehand is the last word: to ask again would only ask oneself.
        rules = replace(self.rules, attempts=1, breakers=Breakers(), reaches=False)
        return self._parts(self.closed_client, rules, self.closed_models[commit])

    def _parts(self, client: httpx.AsyncClient, callouts: CalloutParts, models: Models) -> BrokerParts:
        return BrokerParts(
            crm=self.crm,
            client=client,
            callouts=callouts,
            models=models,
            repeats=self.governor.repeats,
            enrichment=make_enrichment(self.settings, None),
            knows=partial(sends, self.settings),
        )


@contextlib.asynccontextmanager
async def open_ground(settings: Settings, url: str, closed: Callouts, *, name: str) -> AsyncIterator[Ground]:
    """On a migrated database, to which it is known as ``name``. Raises DatabaseUnavailable, ConfigError."""
    async with contextlib.AsyncExitStack() as stack:
        database = await open_pool(url, min_size=1, max_size=4, name=name, pooler=settings.pooler)
        stack.push_async_callback(database.close)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=closed))
        models = {commit: make_closed_models(settings, database, client, commit=commit) for commit in (True, False)}
        for each in models.values():
            stack.push_async_callback(each.settling.close, SETTLING)
        secrets = open_secrets(settings, database)
        stack.push_async_callback(secrets.aclose)
        yield Ground(
            settings=settings,
            database=database,
            crm=LocalCRM(database),
            governor=CircuitGovernor.of_settings(settings),
            rules=make_callouts(settings, secrets=secrets),
            closed=closed,
            closed_client=client,
            closed_models=models,
        )


class Opened(ABC):
    """What is used as ``async with`` and closes all that it has opened, also where it could not open everything."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def _open(self) -> None:
        """Open what it needs, on ``_stack``."""
