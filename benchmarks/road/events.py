"""How fast events go the whole road: beside the ceiling, with many tenants, and by size of batch."""

from __future__ import annotations

import random
from statistics import median

from benchmarks import app, contestants
from benchmarks.bench import SEED, Bench
from benchmarks.figures import Figure

OF_BARE = "the same scoring and one update per event on both sides"


async def measure(bench: Bench) -> list[Figure]:
    figures = await _beside_bare(bench)
    for tenants in (20, 1000):
        figures.append(await _with_tenants(bench, tenants))
    for batch in (1, 3, 200):
        figures.append(await _by_batch(bench, batch))
    return figures


async def _beside_bare(bench: Bench) -> list[Figure]:
    rounds, size = bench.size(5, 2), bench.size(10_000, 2000)
    key, triggers = bench.vendor.public_key, app.SCORING.format(batch=200)
    async with (
        contestants.bare(bench.place("bare"), await bench.database(), key) as bare,
        contestants.ours(bench.place("ours"), await bench.database(), key, triggers=triggers) as ours,
    ):
        for warmed in (bare, ours):
            await bench.road(warmed, bench.contacts(500))
        theirs, own = [], []
        for number in range(rounds):
            bench.says(f"whole road, round {number + 1} of {rounds}")
            theirs.append((await bench.road(bare, bench.contacts(size))).rate)
            own.append((await bench.road(ours, bench.contacts(size))).rate)
    ratio = median(mine / its for mine, its in zip(own, theirs, strict=True))
    note = f"bare: {median(theirs):,.0f}/s; median of {rounds} interleaved pairs of {size} events; {OF_BARE}"
    return [
        Figure("road_of_bare", round(ratio, 3), "ratio", ">= 0.8", note),
        Figure("road_rate", round(median(own)), "events/s", "", "one tenant, batches up to 200"),
    ]


async def _with_tenants(bench: Bench, tenants: int) -> Figure:
    """Tenants drawn by Zipf's law: the first has twice the second's events, three times the third's."""
    bench.says(f"whole road, {tenants} tenants")
    size = bench.size(10_000, 2000)
    names = {f"tenant_{number}": [f"location{number:012d}"] for number in range(tenants)}
    weights = [1 / (rank + 1) for rank in range(tenants)]
    draw = random.Random(SEED).choices
    locations = [ids[0] for ids in names.values()]
    rate = await _rate(bench, 200, size, names, draw(locations, weights, k=size + 500))
    return Figure(f"road_rate_{tenants}_tenants", round(rate), "events/s", "", f"Zipf, {size} events")


async def _by_batch(bench: Bench, batch: int) -> Figure:
    bench.says(f"whole road, batches of {batch}")
    size = bench.size(6000, 400) if batch < 200 else bench.size(10_000, 2000)
    rate = await _rate(bench, batch, size)
    return Figure(f"road_rate_batch_{batch}", round(rate), "events/s", "", f"{size} events, one tenant")


async def _rate(
    bench: Bench, batch: int, size: int, tenants: app.Tenants | None = None, locations: list[str] | None = None
) -> float:
    requests = bench.contacts(size + 500, locations or ())
    async with contestants.ours(
        bench.place("ours"),
        await bench.database(),
        bench.vendor.public_key,
        triggers=app.SCORING.format(batch=batch),
        tenants=tenants,
    ) as ours:
        await bench.road(ours, requests[:500])
        return (await bench.road(ours, requests[500:])).rate
