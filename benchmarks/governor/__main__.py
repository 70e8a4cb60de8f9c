"""``python -m benchmarks.governor``: measure, print the table, write results/governor.json."""

from __future__ import annotations

import sys

from benchmarks.governor import calls, evasions, execution, money
from benchmarks.runner import Benchmark

BENCHMARK = Benchmark(
    "governor",
    "The governor",
    {
        "execution": execution.measure,
        "large": execution.measure_large,
        "calls": calls.measure,
        "evasions": evasions.measure,
        "money": money.measure,
    },
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
