"""Measure all groups in turn, print the table, write results/road.json."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.road import events, footprint, governing, intake, latency, leads, peers, safety
from benchmarks.road.bench import Bench, bench

Group = Callable[[Bench], Awaitable[list[Figure]]]

GROUPS: dict[str, Group] = {
    "intake": intake.measure,
    "events": events.measure,
    "latency": latency.measure,
    "peers": peers.measure,
    "governing": governing.measure,
    "leads": leads.measure,
    "footprint": footprint.measure,
    "safety": safety.measure,
}


async def measure(quick: bool, only: list[str], console: Console) -> tuple[list[Figure], bool]:
    """The figures of the chosen groups, and whether every group could be measured."""
    found: list[Figure] = []
    whole = True
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as folder, Progress(*columns, console=console) as bar:
        Path(folder).chmod(0o755)  # PostgreSQL's own user must be able to walk through it
        async with bench(quick=quick, folder=Path(folder), console=console, progress=bar) as ready:
            bar.update(ready.task, total=len(only))
            for name in only:
                began = time.perf_counter()
                try:
                    found += await GROUPS[name](ready)
                except Exception:  # the other groups are still worth measuring
                    whole = False
                    console.print(f"[red]{name} could not be measured[/]")
                    console.print(traceback.format_exc(), markup=False)
                console.print(f"  {name}: {time.perf_counter() - began:.1f} s")
                bar.advance(ready.task)
    return found, whole


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.road", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 90 s in all, smaller samples")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="some groups only; writes no results")
    options = parser.parse_args()
    console = Console()
    found, whole = uvloop.run(measure(options.quick, options.only or list(GROUPS), console))
    console.print(figures.table("The road of an event", found))
    if whole and not options.only:
        console.print(f"written to {figures.write('road', found)}")
    missed = [figure.name for figure in found if figure.held is False]
    if missed:
        console.print(f"[red]missed:[/] {', '.join(missed)}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
