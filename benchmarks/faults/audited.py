"""What all runs of the fault suite have found together (`make faults` adds to it)."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from tests.faults import totals


async def measure(bench: Bench) -> list[Figure]:
    bench.says("totals of the fault suite")
    found = totals.read()
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(found.faults.items()))
    note = f"{found.runs} runs, {found.deliveries} deliveries; faults: {faults}; stuck {found.stuck}"
    return [
        Figure("schedules", found.schedules, "schedules", ">= 1000", note),
        Figure("lost", found.lost, "deliveries", "= 0", "acknowledged, and an effect or outcome is missing"),
        Figure("doubled", found.doubled, "effects", "= 0", "one event and handler under two idempotency keys"),
        Figure("disordered", found.disordered, "effects", "= 0", "first came after a later one of its record"),
    ]
