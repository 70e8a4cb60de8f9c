"""``python -m benchmarks.door``: measure, print the table, write results/door.json."""

from __future__ import annotations

import sys

from benchmarks.door import endpoint, importing, quickstart, reload
from benchmarks.runner import Benchmark

BENCHMARK = Benchmark(
    "door",
    "The author's door",
    {
        "import": importing.measure,
        "reload": reload.measure,
        "endpoint": endpoint.measure,
        "quickstart": quickstart.measure,
    },
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
