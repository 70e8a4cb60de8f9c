"""What all runs together have seen: a line for each in benchmarks/results/fault_runs.jsonl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.run import Result

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "fault_runs.jsonl"


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over every run."""

    runs: int
    schedules: int
    deliveries: int
    faults: dict[str, int]
    lost: int
    doubled: int
    disordered: int
    strange: int
    stuck: int


def happened(results: Sequence[Result]) -> Counter[str]:
    """The faults by kind, without failpoints that nobody came by."""
    kinds = Counter(fault.kind for each in results for fault in each.schedule.faults)
    kinds["failpoint"] -= sum(each.unreached for each in results)
    return +kinds


def add(seed: int, results: Sequence[Result], seconds: float, file: Path = FILE) -> str:
    """Add a run; the sums in words."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds, 1),
        "schedules": len(results),
        "deliveries": sum(each.schedule.size for each in results),
        "faults": happened(results),
        **{
            kind: sum(len(getattr(each.findings, kind)) for each in results)
            for kind in ("lost", "doubled", "disordered", "strange")
        },
        "stuck": sum(bool(each.stuck) for each in results),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")
    return f"all runs: {asdict(read(file))}"


def read(file: Path = FILE) -> Totals:
    """The sums; nothing without a file."""
    lines = [json.loads(each) for each in file.read_text("utf-8").splitlines()] if file.exists() else []
    faults: Counter[str] = Counter()
    for each in lines:
        faults.update(each["faults"])
    sums = {
        name: sum(each[name] for each in lines)
        for name in ("schedules", "deliveries", "lost", "doubled", "disordered", "strange", "stuck")
    }
    return Totals(runs=len(lines), faults=dict(faults), **sums)
