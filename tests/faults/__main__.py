"""``python -m tests.faults``: run schedules of accidents, print what was wrong, add to the totals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults import totals
from tests.faults.database import started
from tests.faults.run import Result, run_all
from tests.faults.schedule import WEIGHTS, Schedule, draw


def main() -> int:
    """The command; its exit code is 1 when anything was lost, doubled, disordered, strange or stuck."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed if not given")
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule, to repeat one of a run")
    parser.add_argument("--only", nargs="*", default=[], choices=list(WEIGHTS), help="some kinds of faults only")
    parser.add_argument("--beside", type=int, default=2, help="how many platforms run side by side")
    parser.add_argument("--verbose", action="store_true", help="print what happens in each")
    parser.add_argument("--no-totals", action="store_true", help="do not add to the totals")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    schedules = [draw(seed, options.first + place, options.only) for place in range(options.schedules)]
    console = Console()
    console.print(f"seed {seed}: {len(schedules)} schedules, {sum(each.size for each in schedules)} deliveries")
    began = time.monotonic()
    results = run(schedules, seed, console, beside=options.beside, verbose=options.verbose)
    bad = [each for each in results if not each.good]
    spent = time.monotonic() - began
    console.print(_sum(results, spent))
    if not options.no_totals:
        console.print(totals.add(seed, results, spent))
    return 1 if bad or len(results) < len(schedules) else 0


def run(schedules: list[Schedule], seed: int, console: Console, *, beside: int, verbose: bool) -> list[Result]:
    """Run them on ``beside`` platforms; what is wrong is printed when it is found."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task("schedules", total=len(schedules))

        def tell(result: Result) -> None:
            results.append(result)
            bar.advance(task)
            if verbose or not result.good:
                faults = "; ".join(map(str, result.schedule.faults))
                console.print(f"{result.schedule.number} {result.seconds:.1f} s {faults}", soft_wrap=True)
            if not result.good:
                report(result, seed, console)

        stands = [
            run_all(stack.enter_context(started()), stack.enter_context(place(seed, number)), each, seed, tell)
            for number, each in enumerate(_shares(schedules, beside))
        ]
        try:
            asyncio.run(_together(stands))
        except KeyboardInterrupt:
            console.print("stopped")
    return results


async def _together(stands: list[Coroutine[Any, Any, list[Result]]]) -> None:
    await asyncio.gather(*stands)


def _shares(schedules: list[Schedule], beside: int) -> list[list[Schedule]]:
    size = -(-len(schedules) // max(1, beside))
    return [schedules[start : start + size] for start in range(0, len(schedules), size)]


@contextlib.contextmanager
def place(seed: int, number: int) -> Iterator[Path]:
    """A folder for one platform. What it said is kept until the next run with this seed."""
    with tempfile.TemporaryDirectory(prefix="cs-fleet-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        try:
            yield Path(name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(Path(name) / "log", Path(tempfile.gettempdir()) / f"faults-{seed}-{number}.log")


def report(result: Result, seed: int, console: Console) -> None:
    """All that is known of one that went wrong, and how to repeat it."""
    number = result.schedule.number
    console.print(f"[red]schedule {number} of seed {seed}[/] ({result.schedule.stage}): {result.stuck}")
    console.print(f"  again: python -m tests.faults --seed {seed} --first {number} --schedules 1")
    for line in (*map(str, result.schedule.faults), *result.findings.lines(), *result.timeline):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _sum(results: list[Result], spent: float) -> str:
    slow = max((each.seconds for each in results), default=0.0)
    wrong = {
        kind: sum(len(getattr(each.findings, kind)) for each in results)
        for kind in ("lost", "doubled", "disordered", "strange")
    } | {"stuck": sum(bool(each.stuck) for each in results)}
    deliveries = sum(each.schedule.size for each in results)
    return (
        f"{len(results)} schedules in {spent:.0f} s ({spent / max(1, len(results)):.1f} s each, the longest {slow:.1f} "
        f"s), {deliveries} deliveries, faults {dict(totals.happened(results))}; "
        + ", ".join(f"{kind} {count}" for kind, count in wrong.items())
    )


if __name__ == "__main__":
    sys.exit(main())
