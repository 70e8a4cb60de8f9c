"""``python -m benchmarks.soak --minutes 10``: load, samples, results/soak.json and results/soak.svg."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks import contestants, figures, postgres
from benchmarks.bench import SEED
from benchmarks.figures import Figure
from benchmarks.load import Result, open_loop, percentile
from benchmarks.processes import free_port, http_get, python, running
from benchmarks.soak import plot
from benchmarks.soak.app import LOCATION, TRIGGERS, requests, scaffold
from benchmarks.soak.samples import Sample, growth_per_hour, take
from circuit_script.cli.demo.vendor import Vendor

RATE = 60.0  # deliveries per second
EVERY = 5.0  # seconds between two samples
WARM = 0.15  # of all samples, from the beginning, that the fit leaves out: pools and caches fill first


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    console = Console()
    samples = uvloop.run(soak(options.minutes * 60, console))
    found = measured(samples, options.minutes)
    console.print(figures.table("Soak", found))
    console.print(f"written to {figures.write('soak', found)} and {plot.write(samples)}")
    return 0


async def soak(seconds: float, console: Console) -> list[Sample]:
    """The samples of a run of so many seconds."""
    vendor = Vendor(seed=SEED, location=LOCATION, now=datetime.now(UTC))
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="circuit-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user must be able to walk through it
        loop = asyncio.get_running_loop()
        hooks = free_port()
        receiver = running(
            [python(), "-m", "benchmarks.governor.listening", str(hooks)],
            log=folder / "receiver.log",
            ready=lambda: listens(hooks),
        )
        async with receiver, postgres.one_postgres(folder / "postgres") as url:
            port = scaffold(folder / "app", vendor.public_key, hooks)
            async with contestants.ours(folder / "app", url, vendor.public_key, triggers=TRIGGERS, port=port) as ours:
                with Progress(console=console, transient=True) as bar:
                    task = bar.add_task("soak", total=seconds)
                    began = loop.time()
                    while (passed := loop.time() - began) < seconds:
                        bar.update(task, completed=passed)
                        load: Result = await open_loop(ours.port, requests(vendor, int(RATE * EVERY)), rate=RATE)
                        samples.append(await take(ours, loop.time() - began, load))
    return samples


async def listens(port: int) -> bool:
    return (await http_get(port, "/"))[0] == 200


def measured(samples: list[Sample], minutes: float) -> list[Figure]:
    """Growth per hour of what should stay flat, by a linear fit."""
    steady = samples[int(len(samples) * WARM) :]
    note = f"linear fit over {len(steady)} samples of {minutes:g} minutes at {RATE:g} events/s"

    def growth(name: str, title: str, unit: str) -> Figure:
        first, last = getattr(steady[0], name), getattr(steady[-1], name)
        said = f"{note}; from {first:,.1f} to {last:,.1f}"
        return Figure(title, round(growth_per_hour(steady, name), 2), f"{unit}/h", "", said)

    return [
        growth("pss", "memory_pss_growth_mb_per_hour", "MB"),
        growth("rss", "memory_rss_growth_mb_per_hour", "MB"),
        growth("descriptors", "descriptors_growth_per_hour", "files"),
        growth("queue", "queue_growth_mb_per_hour", "MB"),
        growth("p95", "road_p95_growth_ms_per_hour", "ms"),
        Figure("road_p50_ms", round(percentile([each.p50 for each in steady], 0.5), 1), "ms", "", "median of samples"),
        Figure("road_p95_ms", round(percentile([each.p95 for each in steady], 0.5), 1), "ms", "", "median of samples"),
        Figure("ack_p95_ms", round(percentile([each.ack for each in steady], 0.5), 1), "ms", "", "median of samples"),
        Figure(
            "ledger_bytes_per_event",
            round((steady[-1].ledger - steady[0].ledger) * 1e6 / max(1, steady[-1].events - steady[0].events)),
            "bytes",
            "",
            "deliveries, events, outcomes, executions, effects and records, indexes included",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
