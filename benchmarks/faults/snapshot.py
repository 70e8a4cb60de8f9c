"""How much slower the road is while somebody holds a snapshot open, as a backup does: no dead row can be cleared."""

from __future__ import annotations

from statistics import median

import psycopg

from benchmarks import app, contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure


async def measure(bench: Bench) -> list[Figure]:
    bench.says("an old snapshot")
    rounds, size, dead = bench.size(4, 2), bench.size(8000, 1500), bench.size(60_000, 6000)
    async with contestants.ours(
        bench.place("ours"), await bench.database(), bench.vendor.public_key, triggers=app.SCORING.format(batch=200)
    ) as ours:
        await bench.road(ours, bench.contacts(1000))
        without = [(await bench.road(ours, bench.contacts(size))).rate for _ in range(rounds)]
        async with await psycopg.AsyncConnection.connect(ours.database) as holder:
            await holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await holder.execute("SELECT count(*) FROM circuit.queue")
            await bench.road(ours, bench.contacts(dead), seconds=300)
            within = [(await bench.road(ours, bench.contacts(size))).rate for _ in range(rounds)]
            await holder.rollback()
    slower = (1 - median(within) / median(without)) * 100
    note = (
        f"{median(within):,.0f}/s after {dead} events under the snapshot, {median(without):,.0f}/s before; "
        f"medians of {rounds} rounds of {size} events"
    )
    return [Figure("snapshot_slowdown_pct", round(slower, 1), "%", "< 10", note)]
