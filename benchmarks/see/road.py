"""What telemetry costs the road: a stored log line of each event, traces, JSON on standard output and Prometheus,
beside the same app with all of that switched off; in interleaved rounds on one server.

    python -m benchmarks.see.road --quick
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
import psycopg
import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.contestants import Contestant
from benchmarks.processes import cpu_of, free_port, http_get, until

WARM = 500
SCRAPED = 15.0  # seconds of load between two looks of Prometheus, as deploy/monitoring has it
SETTLED = 30.0  # seconds in which the last lines and traces are written

LOGGING = """
from circuit_script import CircuitDB, log, trigger

from app.scoring import score


@trigger("Contact", ["afterInsert"], batch_size=200, share_child=True)
async def score_contacts(context):
    scores = []
    for contact in context.new_records:
        scores.append(score(contact))
        log.info("scored", lead=contact["id"], score=scores[-1]["score"], band=scores[-1]["band"])
    await CircuitDB.update("Contact", scores)
"""
SILENT = """
[log]
stdout = false
keep = { debug = 0, info = 0, warning = 0, error = 0, critical = 0 }
[traces]
enabled = false
"""
STORED = "SELECT count(*) FROM circuit.circuit_logs WHERE execution >= circuit.uuid_floor(%s)"
COUNTS = "SELECT (SELECT count(*) FROM circuit.circuit_logs), (SELECT count(*) FROM circuit.traces)"


@dataclass(slots=True)
class _Side:
    """One of the two platforms. ``cpu`` is in seconds of all its processes and of PostgreSQL, by round."""

    contestant: Contestant
    seen: bool
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    unseen: float = SCRAPED / 2  # seconds of load until the next look


async def measure(quick: bool, kept: Path) -> dict[str, float]:
    """The cost in percent of events a second, and of CPU time. Nothing of it is worth keeping in ``kept``."""
    rounds, size = (2, 1500) if quick else (9, 10_000)
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user must be able to walk through it
        async with postgres.one_postgres(folder / "postgres") as server, AsyncExitStack() as stack:
            (folder / "places").mkdir()
            progress = Progress(console=Console(quiet=True))
            bench = Bench(quick, folder / "places", server, progress.console, progress, progress.add_task(""))
            on = await stack.enter_async_context(_side(bench, seen=True))
            off = await stack.enter_async_context(_side(bench, seen=False))
            postmaster = await _postmaster(server)
            for side in (on, off):
                await bench.road(side.contestant, bench.contacts(WARM))
            for number in range(rounds):
                for side in (on, off) if number % 2 else (off, on):
                    await _round(bench, side, size, postmaster)
            lines, traces = (await postgres.fetch(on.contestant.database, COUNTS))[0]
    return _figures(on, off, size, lines / (rounds * size + WARM), traces)


def _figures(on: _Side, off: _Side, size: int, stored: float, traces: int) -> dict[str, float]:
    rate = median(mine / its for mine, its in zip(on.rates, off.rates, strict=True))
    cpu = median(mine / its for mine, its in zip(on.cpu, off.cpu, strict=True))
    return {
        "road_cost_of_telemetry_pct": round((1 - rate) * 100, 1),
        "road_cpu_of_telemetry_pct": round((cpu - 1) * 100, 1),
        "road_rate_with_telemetry": round(median(on.rates)),
        "road_rate_without_telemetry": round(median(off.rates)),
        "cpu_us_per_event_with_telemetry": round(median(on.cpu) / size * 1e6),
        "cpu_us_per_event_without_telemetry": round(median(off.cpu) / size * 1e6),
        "log_lines_stored_of_written": round(stored, 4),
        "traces_stored": traces,
    }


@asynccontextmanager
async def _side(bench: Bench, *, seen: bool) -> AsyncIterator[_Side]:
    place, port = bench.place("on" if seen else "off"), free_port()
    key = bench.vendor.public_key
    app.scaffold(place, triggers=LOGGING, port=port, public_key=key)
    with (place / "circuit.toml").open("a") as settings:
        settings.write("[dashboard]\nenabled = false\n" + ("" if seen else SILENT))
    async with contestants.ours(place, await bench.database(), key, triggers=LOGGING, port=port) as ours:
        yield _Side(ours, seen)


async def _round(bench: Bench, side: _Side, size: int, postmaster: psutil.Process) -> None:
    requests = bench.contacts(size)
    began = datetime.now(UTC)
    before = cpu_of(side.contestant.process) + cpu_of(postmaster)
    scraping = asyncio.create_task(_scrape(side)) if side.seen else None
    side.rates.append((await bench.road(side.contestant, requests)).rate)
    if scraping is not None:
        side.unseen -= size / side.rates[-1]
        scraping.cancel()
        with contextlib.suppress(TimeoutError):  # what was dropped never comes, and is told
            await _written(side.contestant.database, began, size)
    side.cpu.append(cpu_of(side.contestant.process) + cpu_of(postmaster) - before)


async def _written(database: str, began: datetime, lines: int) -> None:
    async def there() -> bool:
        return bool(await postgres.one(database, STORED, (began,)) >= lines)

    await until(there, seconds=SETTLED, what="every line is stored", every=0.2)


async def _scrape(side: _Side) -> None:
    while True:
        await asyncio.sleep(max(0.0, side.unseen))
        side.unseen += SCRAPED
        await http_get(side.contestant.port, "/metrics")


async def _postmaster(server: str) -> psutil.Process:
    """The server's first process. A connection's own is its child."""
    async with await psycopg.AsyncConnection.connect(server) as connection:
        found = psutil.Process(connection.info.backend_pid).parent()
    assert found is not None
    return found


if __name__ == "__main__":
    print(uvloop.run(measure("--quick" in sys.argv, Path(".bench"))))
