"""``python -m benchmarks.road``: measure, print the table, write results/road.json."""

from __future__ import annotations

import sys

from benchmarks.governor import execution
from benchmarks.road import events, footprint, intake, latency, leads, peers, safety
from benchmarks.runner import Benchmark

BENCHMARK = Benchmark(
    "road",
    "The road of an event",
    {
        "intake": intake.measure,
        "events": events.measure,
        "latency": latency.measure,
        "peers": peers.measure,
        "governing": execution.measure,
        "leads": leads.measure,
        "footprint": footprint.measure,
        "safety": safety.measure,
    },
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
