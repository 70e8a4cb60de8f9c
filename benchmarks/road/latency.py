"""How long one event takes at an ordinary load: from the moment it should leave the vendor to its outcome's commit."""

from __future__ import annotations

import msgspec

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.load import open_loop, percentile
from benchmarks.processes import until

PER_SECOND = 10_000 / 60

COMMITS = """
    SELECT d.vendor_id, extract(epoch FROM max(pg_xact_commit_timestamp(o.xmin)))
    FROM circuit.outcomes o JOIN circuit.deliveries d ON d.id = o.delivery GROUP BY 1
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("latency at 10,000 events a minute")
    requests = bench.contacts(round(PER_SECOND * bench.size(30, 5)))
    async with contestants.ours(
        bench.place("ours"),
        await bench.database(),
        bench.vendor.public_key,
        triggers=app.SCORING.format(batch=200),
    ) as ours:
        warm = bench.contacts(500)
        await bench.road(ours, warm)
        load = await open_loop(ours.port, requests, rate=PER_SECOND)

        async def settled() -> bool:
            return (await ours.finished())[0] >= len(requests) + len(warm)

        await until(settled, seconds=30, what="every outcome")
        committed = dict(await postgres.fetch(ours.database, COMMITS))
    latencies = [
        (float(committed[webhook_id(sent)]) - at) * 1000 for sent, at in zip(requests, load.sent_at, strict=True)
    ]
    note = (
        f"open loop, {len(requests)} events; p50 {percentile(latencies, 0.5):.0f} ms, "
        f"p99 {percentile(latencies, 0.99):.0f} ms; acknowledged p95 {load.percentile(0.95):.1f} ms"
    )
    return [Figure("road_p95_ms_at_10k_min", round(percentile(latencies, 0.95), 1), "ms", "< 50", note)]


def webhook_id(sent: bytes) -> str:
    """The vendor's id of a request."""
    identifier: str = msgspec.json.decode(sent.split(b"\r\n\r\n", 1)[1])["webhookId"]
    return identifier
