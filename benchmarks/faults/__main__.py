"""``python -m benchmarks.faults``: measure, print the table, write results/faults.json."""

from __future__ import annotations

import sys

from benchmarks.faults import audited, bad_record, idle, large_ledger, quiet_tenant, snapshot
from benchmarks.runner import Benchmark

BENCHMARK = Benchmark(
    "faults",
    "Faults",
    {
        "audited": audited.measure,
        "bad record": bad_record.measure,
        "quiet tenant": quiet_tenant.measure,
        "idle": idle.measure,
        "snapshot": snapshot.measure,
        "large ledger": large_ledger.measure,
    },
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
