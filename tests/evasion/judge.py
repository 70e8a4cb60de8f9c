"""Tries one trick beside well-behaved neighbours, and says what it has got away with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circuit_script.errors import IsolationUnavailable
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.isolation import landlock
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Succeeded
from circuit_script.execution.procfs import descendants_of
from circuit_script.governor import LimitExceeded
from tests.evasion.table import Mode, Trick
from tests.integration.execution.conftest import Bench, Recorder, alive

APP = Path(__file__).parent / "app"
THREE = [{"id": "1"}, {"id": "2"}, {"id": "3"}]
PATIENCE = 5.0  # seconds for what is left to be gone
QUERIES = 5  # of one execution
SECRET = "EVASION_SECRET"  # in the worker's environment


class Limited(Recorder):
    """A broker with a limit on queries."""

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        self.usage.db_queries += verb == "get"
        if self.usage.db_queries > QUERIES:
            raise LimitExceeded("db_queries", self.usage.db_queries, QUERIES)
        return await super().request(verb, arguments)


def lay_out(folder: Path) -> None:
    """An app with all the tricks, and with what they must not find."""
    folder.mkdir()
    _copy(APP, folder / "app")
    (folder / "circuit.toml").write_text('database_url = "postgresql://secret"\n')
    (folder / ".circuit").mkdir()
    for name in ("postgres.password", "serve.lock"):
        (folder / ".circuit" / name).write_text("secret")


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.glob("*.py"):
        (target / path.name).write_text(path.read_text("utf-8"), "utf-8")


async def open_bench(folder: Path, mode: Mode) -> Bench:
    """Raises IsolationUnavailable where this machine cannot do it."""
    hide_from_children()  # as every worker does
    os.environ[SECRET] = "of the worker"
    pool = Pool(app_folder=folder, app="app", size=2, on_change=lambda: None, hosting=Hosting(mode))
    try:
        manifest = await pool.start()
    except IsolationUnavailable:
        await pool.stop()
        raise
    finally:
        del os.environ[SECRET]
    bench = Bench(pool)
    bench.hides = manifest.hides
    known = {child.pid for child in pool.children}
    bench.of_the_zygote = {pid for pid in descendants_of(pool.zygote_pid, 2) if pid not in known}
    return bench


def lacking(bench: Bench, trick: Trick, mode: Mode) -> str:
    """What this machine lacks, so that the trick is known to work here; "" for nothing."""
    if mode == "standard" and trick.needs == "landlock" and landlock.abi() < landlock.OLDEST:
        return f"this kernel's Landlock has ABI {landlock.abi()}, which does not scope signals"
    if mode == "standard" and trick.needs == "hiding" and not bench.hides:
        return "neither root nor user namespaces: standard isolation cannot hide the settings"
    return ""


async def faults(bench: Bench, trick: Trick) -> Sequence[str]:
    """What is wrong: with its outcome, its effects, its neighbours, or with whoever runs next."""
    broker = Limited()
    # What stains its own tenant's child must not be found by the tricks that come next.
    tenant = trick.name if trick.stains else "acme"
    running = asyncio.create_task(bench.run(trick.name, tenant=tenant, records=THREE, broker=broker, **trick.limits))
    found = [f"a neighbour: {wrong}" for wrong in await _neighbours(bench, running)]
    if wrong := trick.wrong(await running):
        found.append(wrong)
    found += [text for line in broker.lines if (text := str(line.get("message"))).startswith("EVADED")]
    if broker.usage.db_queries > QUERIES + 1:
        found.append(f"the broker was asked {broker.usage.db_queries} times")
    for tenant, handler in (("acme", "looks_around"), ("other", "looks_at_globals")):
        if trick.stains and tenant == "acme":
            continue
        after = Recorder()
        outcome = await bench.run(handler, records=THREE, tenant=tenant, broker=after)
        if outcome != Succeeded(after.usage) or [verb for verb, _ in after.asked] != ["dml"] * 3:
            found.append(f"the next execution of {tenant}: {outcome} {after.asked}")
    return found + await _left(bench)


async def _neighbours(bench: Bench, running: asyncio.Task[Any]) -> list[str]:
    """Executions of another tenant, until it has ended."""
    found = []
    while not running.done():
        broker = Recorder()
        outcome = await bench.run("writes", tenant="neighbour", records=THREE, broker=broker)
        if outcome != Succeeded(broker.usage):
            found.append(str(outcome))
        await asyncio.sleep(0.01)
    return found


async def _left(bench: Bench) -> list[str]:
    """Processes that are not children of the pool."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        known = {child.pid for child in bench.pool.children} | bench.of_the_zygote
        left = [pid for pid in descendants_of(bench.pool.zygote_pid) if pid not in known and alive(pid)]
        if not left:
            return []
        if asyncio.get_running_loop().time() > deadline:
            return [f"process {pid} is left" for pid in left]
        await asyncio.sleep(0.01)
