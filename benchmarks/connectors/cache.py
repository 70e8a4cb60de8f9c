"""What it costs to enrich a lead of which everything is known already: in this process's memory, and from the database.

python -m benchmarks.connectors.cache
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from circuit_script.enrichment import Call, Enrichment, Lead, Reply
from circuit_script.enrichment.cache import Cache, Loaded, kept
from circuit_script.enrichment.store import Shelf, Wanted
from circuit_script.settings_enrichment import EnrichmentSettings

LOOKS = 200_000
LEADS = 200
BATCHES = 200


async def cache_hit_us(looks: int = LOOKS) -> float:
    """Microseconds of one look into the memory of a process that finds what it looks for."""
    cache, shelf = Cache(None, 20_000), Shelf("bench")
    keys = [number.to_bytes(32, "big") for number in range(10_000)]
    wanted = dict.fromkeys(keys, Wanted())
    await cache.fetch(shelf, wanted, _load, left=_left, lease=60.0)
    began, done = time.perf_counter(), 0
    while done < looks:
        answers = await cache.fetch(shelf, wanted, _load, left=_left, lease=60.0)
        assert not answers.asked
        done += len(answers.kept)
    return (time.perf_counter() - began) / done * 1e6


async def enriched_lead_us(batches: int = BATCHES) -> float:
    """Microseconds of one lead of a full batch with census and maps, all of it known: keys, looks, distance, row."""
    settings = EnrichmentSettings(locations={"*": ((31.5, -97.1), (32.7, -96.8))})
    enrichment = Enrichment(settings, Cache(None, 20_000), Path())
    raw = [{"street": f"{n} Main St", "city": "Waco", "state": "TX", "postal_code": "76701"} for n in range(LEADS)]
    await enrichment.enrich("acme", [Lead.of(each) for each in raw], ("census", "maps"), _Sources())
    began = time.perf_counter()
    for _ in range(batches):
        done = await enrichment.enrich("acme", [Lead.of(each) for each in raw], ("census", "maps"), _Silent())
        assert done.whole
        assert not done.asked
    return (time.perf_counter() - began) / (batches * LEADS) * 1e6


class _Silent:
    """Nobody: what is asked is an error of the measurement."""

    async def __call__(self, call: Call) -> Reply:
        raise AssertionError(f"{call.shown} was asked")

    async def secret(self, name: str) -> str | None:
        return None

    def left(self) -> float:
        return 30.0


class _Sources(_Silent):
    async def __call__(self, call: Call) -> Reply:
        if call.method == "GET":
            return Reply(200, b'[["B19013_001E","state","county","tract"],["61234","48","309","000400"]]')
        where = '"Match","Exact","x","-97.14,31.54","1","L","48","309","000400","1"'
        return Reply(200, "".join(f'"{n}","x",{where}\n' for n in range(1, LEADS + 1)).encode())


async def _load(keys: Sequence[bytes]) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
    yield {key: kept({"latitude": 31.5, "longitude": -97.1}, 3600.0) for key in keys}


def _left() -> float:
    return 30.0


async def _main() -> None:
    print(json.dumps({"cache_hit_us": await cache_hit_us(), "enriched_lead_us": await enriched_lead_us()}))


if __name__ == "__main__":
    asyncio.run(_main())
