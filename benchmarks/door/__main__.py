"""Measure all groups in turn, print the table, write results/door.json."""

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

from benchmarks import figures, postgres
from benchmarks.door import endpoint, importing, quickstart, reload
from benchmarks.door.bench import Bench
from benchmarks.figures import Figure

GROUPS: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {
    "import": importing.measure,
    "reload": reload.measure,
    "endpoint": endpoint.measure,
    "quickstart": quickstart.measure,
}


async def measure(quick: bool, only: list[str], console: Console) -> tuple[list[Figure], bool]:
    """The figures of the chosen groups, and whether every group could be measured."""
    found: list[Figure] = []
    whole = True
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with tempfile.TemporaryDirectory(prefix="circuit-door-") as name, Progress(*columns, console=console) as bar:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user must be able to walk through it
        task = bar.add_task("starting PostgreSQL", total=len(only))
        async with postgres.one_postgres(folder / "postgres") as server:
            for group in only:
                began = time.perf_counter()
                place = folder / group
                place.mkdir()
                try:
                    found += await GROUPS[group](Bench(quick, place, server, bar, task))
                except Exception:  # the other groups are still worth measuring
                    whole = False
                    console.print(f"[red]{group} could not be measured[/]")
                    console.print(traceback.format_exc(), markup=False)
                console.print(f"  {group}: {time.perf_counter() - began:.1f} s")
                bar.advance(task)
    return found, whole


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.door", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="some groups only; writes no results")
    options = parser.parse_args()
    console = Console()
    found, whole = uvloop.run(measure(options.quick, options.only or list(GROUPS), console))
    console.print(figures.table("The author's door", found))
    if whole and not options.only:
        console.print(f"written to {figures.write('door', found)}")
    missed = [figure.name for figure in found if figure.held is False]
    if missed:
        console.print(f"[red]missed:[/] {', '.join(missed)}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
