"""What a platform costs that has nothing to do, its part of PostgreSQL told beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.figures import Figure

SERVERS = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
REST = 3.0  # seconds after the load, in which what it has left is cleared away


async def measure(bench: Bench) -> list[Figure]:
    bench.says("an idle platform")
    seconds = bench.size(30, 20)
    async with contestants.ours(
        bench.place("ours"), await bench.database(), bench.vendor.public_key, triggers=app.SCORING.format(batch=200)
    ) as ours:
        await bench.road(ours, bench.contacts(300))
        await asyncio.sleep(REST)
        servers = [psutil.Process(pid) for (pid,) in await postgres.fetch(bench.server, SERVERS)]
        before, of_servers, began = _spent(_of(ours)), _each(servers), time.perf_counter()
        await asyncio.sleep(seconds)  # idleness is what is measured
        span = time.perf_counter() - began
        platform = _spent(_of(ours)) - before
        server = sum(spent - of_servers[pid] for pid, spent in _each(servers).items())
    note = f"all its processes over {seconds} s after a load; PostgreSQL beside it {server / span * 100:.2f} %"
    return [Figure("idle_core_pct", round(platform / span * 100, 2), "% of a core", "< 1", note)]


def _of(ours: contestants.Contestant) -> list[psutil.Process]:
    return [ours.process, *ours.process.children(recursive=True)]


def _spent(processes: list[psutil.Process]) -> float:
    """Seconds of a core that those that still live have used."""
    return sum(_each(processes).values())


def _each(processes: list[psutil.Process]) -> dict[int, float]:
    spent = {}
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            spent[each.pid] = times.user + times.system
    return spent
