"""One look at everything that should stay flat, and the line through many of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks import postgres
from benchmarks.contestants import Contestant
from benchmarks.load import Result

SIZES = """
SELECT coalesce(sum(size) FILTER (WHERE relname IN ('queue', 'lanes', 'workers')), 0)::float8, sum(size)::float8
FROM (SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class
      WHERE relnamespace = 'circuit'::regnamespace AND relkind = 'r') AS tables
"""
ROAD = """
SELECT count(*), coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), 0),
       coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY ms), 0)
FROM (SELECT extract(epoch FROM o.at - d.received_at) * 1000 AS ms
      FROM circuit.deliveries d JOIN circuit.outcomes o ON o.delivery = d.id AND o.status = 'succeeded'
      WHERE d.id > circuit.uuid_floor(now() - interval '6 seconds')) AS lately
"""
EVENTS = "SELECT last_value FROM circuit.event_ids"


@dataclass(frozen=True, slots=True)
class Sample:
    """``at`` in seconds; memory and sizes in MB, of all processes but PostgreSQL's; latencies in ms. ``p50`` and
    ``p95`` are from arrival to outcome, of what succeeded lately; ``ack`` is the p95 of the answers."""

    at: float
    rss: float
    pss: float
    descriptors: int
    queue: float
    ledger: float
    events: int
    p50: float
    p95: float
    ack: float


async def take(ours: Contestant, at: float, load: Result) -> Sample:
    """Look at the platform and its database now."""
    rss = descriptors = 0
    for each in [ours.process, *ours.process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            rss += each.memory_info().rss
            descriptors += each.num_fds()
    ((queue, whole),) = await postgres.fetch(ours.database, SIZES)
    ((_, p50, p95),) = await postgres.fetch(ours.database, ROAD)
    return Sample(
        at=at,
        rss=rss / 1e6,
        pss=ours.pss_mb(),
        descriptors=descriptors,
        queue=queue / 1e6,
        ledger=(whole - queue) / 1e6,
        events=int(await postgres.one(ours.database, EVENTS)),
        p50=float(p50),
        p95=float(p95),
        ack=load.percentile(0.95),
    )


def growth_per_hour(samples: Sequence[Sample], name: str) -> float:
    """The slope of the least squares' line, times an hour; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    times = [each.at for each in samples]
    values = [float(getattr(each, name)) for each in samples]
    middle, level = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    rise = sum((at - middle) * (value - level) for at, value in zip(times, values, strict=True))
    return rise / spread * 3600 if spread else 0.0
