"""What an idle installation weighs."""

from __future__ import annotations

import asyncio
import time

from benchmarks import app, contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure


async def measure(bench: Bench) -> list[Figure]:
    bench.says("memory and processor time at idle")
    async with contestants.ours(
        bench.place("ours"),
        await bench.database(),
        bench.vendor.public_key,
        triggers=app.SCORING.format(batch=200),
    ) as ours:
        await bench.road(ours, bench.contacts(300))
        before, began = _processor_seconds(ours), time.perf_counter()
        await asyncio.sleep(bench.size(10, 3))  # idleness is what is measured
        share = (_processor_seconds(ours) - before) / (time.perf_counter() - began)
        weight = ours.pss_mb()
    return [
        Figure("idle_pss_mb", round(weight), "MB", "< 350", "gateway, worker, zygote and two children"),
        Figure("idle_cpu_pct", round(share * 100, 2), "% of a core", "< 1", "the same processes"),
    ]


def _processor_seconds(ours: contestants.Contestant) -> float:
    times = [each.cpu_times() for each in [ours.process, *ours.process.children(recursive=True)]]
    return sum(each.user + each.system for each in times)
