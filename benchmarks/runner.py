"""One benchmark: its groups measured in turn, a table of what they found, and results/<name>.json."""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import figures, postgres
from benchmarks.bench import Bench
from benchmarks.figures import Figure

Group = Callable[[Bench], Awaitable[list[Figure]]]
Apart = Callable[[bool], Coroutine[Any, Any, list[Figure]]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``name`` is that of its results; ``groups`` are measured in their order."""

    name: str
    title: str
    groups: Mapping[str, Group]

    def main(self) -> int:
        """The command; its exit code is 1 when a group could not be measured."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.title)
        parser.add_argument("--quick", action="store_true", help="smaller samples")
        parser.add_argument("--only", nargs="*", choices=list(self.groups), help="some groups only; writes no results")
        options = parser.parse_args()
        console = Console()
        found, whole = uvloop.run(self.measure(options.quick, options.only or list(self.groups), console))
        console.print(figures.table(self.title, found))
        if whole and not options.only:
            console.print(f"written to {figures.write(self.name, found)}")
        tell_missed(console, found)
        return 0 if whole else 1

    async def measure(self, quick: bool, only: Sequence[str], console: Console) -> tuple[list[Figure], bool]:
        """The figures of the chosen groups, and whether every group could be measured."""
        found: list[Figure] = []
        whole = True
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        with tempfile.TemporaryDirectory(prefix="circuit-bench-") as name, Progress(*columns, console=console) as bar:
            folder = Path(name)
            folder.chmod(0o755)  # PostgreSQL's own user must be able to walk through it
            task = bar.add_task("starting PostgreSQL", total=len(only))
            async with postgres.one_postgres(folder / "postgres") as server:
                places = folder / "places"
                places.mkdir()
                bench = Bench(quick, places, server, console, bar, task)
                for group in only:
                    began = time.perf_counter()
                    try:
                        found += await self.groups[group](bench)
                    except Exception:  # the other groups are still worth measuring
                        whole = False
                        console.print(f"[red]{group} could not be measured[/]")
                        console.print(traceback.format_exc(), markup=False)
                    console.print(f"  {group}: {time.perf_counter() - began:.1f} s")
                    bar.advance(task)
        return found, whole


def main_apart(name: str, title: str, groups: Mapping[str, Apart]) -> int:
    """The command of a benchmark whose groups have nothing in common: each brings what it needs, and is told whether
    to be quick. What is measured alone replaces its own figures; with ``--quick`` nothing is written."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=title)
    parser.add_argument("--quick", action="store_true", help="smaller samples; writes nothing")
    parser.add_argument("--only", nargs="*", choices=list(groups), help="some groups only")
    options = parser.parse_args()
    console, found, whole = Console(), list[Figure](), True
    for group in options.only or groups:
        began = time.perf_counter()
        console.print(f"measuring {group} …")
        try:
            found += uvloop.run(groups[group](options.quick))
        except Exception:  # the other groups are still worth measuring
            whole = False
            console.print(traceback.format_exc(), markup=False)
        console.print(f"  {group}: {time.perf_counter() - began:.1f} s")
    console.print(figures.table(title, found))
    if not options.quick and found:
        console.print(f"written to {figures.write(name, found, over=True)}")
    tell_missed(console, found)
    return 0 if whole else 1


def tell_missed(console: Console, found: Sequence[Figure]) -> None:
    """The figures whose targets do not hold."""
    missed = [figure.name for figure in found if figure.held is False]
    if missed:
        console.print(f"[red]missed:[/] {', '.join(missed)}")
