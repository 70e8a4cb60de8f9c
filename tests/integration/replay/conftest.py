"""A road with a feeder beside it, and what tests of replays say to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import Choice, Chosen, Counted, Filter, live_routes
from circuit_script.events.replay.feeder import Feeder
from circuit_script.events.replay.replays import Replay
from circuit_script.tenants.accounts import TenantMap
from tests.road import SCORE, Road, open_road

OPEN = TenantMap({})


@dataclass
class Replays:
    """Replays of one road; ``tenants`` is the map of accounts as circuit.toml has it by now."""

    road: Road
    tenants: TenantMap = field(default_factory=lambda: OPEN)
    feeders: list[asyncio.Task[None]] = field(default_factory=list)

    def feed(self, **options: Any) -> Feeder:
        feeder = Feeder(self.road.pool, **{"pause": 0.02, "idle": 0.02, **options})
        self.feeders.append(asyncio.create_task(feeder.run()))
        return feeder

    async def end(self) -> None:
        """End every feeder, wherever it stands."""
        for task in self.feeders:
            task.cancel()
        await asyncio.gather(*self.feeders, return_exceptions=True)
        self.feeders.clear()

    async def choice(self, **wanted: Any) -> Choice:
        async with self.road.pool.connection() as connection:
            return Choice(Filter(**wanted), await live_routes(connection), self.tenants)

    async def begin(self, *, rate: int = 100_000, **wanted: Any) -> Replay:
        choice = await self.choice(**wanted)
        async with self.road.pool.connection() as reading, self.road.pool.connection() as writing:
            return await replays.begin(reading, writing, choice, by="ann", rate=rate)

    async def chosen(self, **wanted: Any) -> list[Chosen]:
        choice = await self.choice(**wanted)
        async with self.road.pool.connection() as reading:
            return [item async for chunk in choice.chunks(reading, 3) for item in chunk]

    async def records(self, **wanted: Any) -> list[str]:
        """The ids of the records of what is chosen, in the order of their names."""
        return sorted(item.record for item in await self.chosen(**wanted))

    async def counted(self, **wanted: Any) -> list[Counted]:
        choice = await self.choice(**wanted)
        async with self.road.pool.connection() as reading:
            return await choice.count(reading)

    async def look(self, replay: Replay) -> Replay:
        async with self.road.pool.connection() as connection:
            return await replays.look(connection, replay.id)

    async def became(self, replay: Replay) -> dict[str, int]:
        async with self.road.pool.connection() as connection:
            return await replays.became(connection, replay.id)

    async def over(self, replay: Replay) -> Replay:
        """Until it is over; as it stands then."""

        async def is_over() -> bool:
            return (await self.look(replay)).is_over

        async with asyncio.timeout(120):
            while not await is_over():
                await asyncio.sleep(0.02)
        return await self.look(replay)


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


@pytest.fixture
async def past(road: Road) -> AsyncIterator[Replays]:
    made = Replays(road)
    with contextlib.suppress(asyncio.CancelledError):
        yield made
    await made.end()
