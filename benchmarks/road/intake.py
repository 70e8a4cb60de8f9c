"""How fast deliveries are acknowledged, beside the ceiling: the same requests in turns, the median of the pairs."""

from __future__ import annotations

from statistics import median

from benchmarks import app, contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure


async def measure(bench: Bench) -> list[Figure]:
    rounds, size = bench.size(5, 2), bench.size(8000, 1800)
    key = bench.vendor.public_key
    async with (
        contestants.bare(bench.place("bare"), await bench.database(), key, intake_only=True) as bare,
        contestants.ours(bench.place("ours"), await bench.database(), key, triggers=app.INTAKE) as ours,
    ):
        for warmed in (bare, ours):
            await bench.intake(warmed, bench.contacts(500))
        theirs, own, p99 = [], [], []
        for number in range(rounds):
            bench.says(f"intake, round {number + 1} of {rounds}")
            theirs.append((await bench.intake(bare, bench.contacts(size))).rate)
            result = await bench.intake(ours, bench.contacts(size))
            own.append(result.rate)
            p99.append(result.percentile(0.99))
    ratio = median(mine / its for mine, its in zip(own, theirs, strict=True))
    note = f"bare: {median(theirs):,.0f}/s; median of {rounds} interleaved pairs of {size} deliveries"
    return [
        Figure("intake_of_bare", round(ratio, 3), "ratio", ">= 0.85", note),
        Figure("intake_rate_64", round(median(own)), "deliveries/s", "", "64 connections, closed loop"),
        Figure("intake_p99_ms_64", round(median(p99), 1), "ms", "< 30", "64 connections, closed loop"),
    ]
