"""How long ``circuit-script dev`` takes from the write of a file until the new code answers."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.processes import free_port, http_get, python, running, until
from circuit_script.cli import init

ENDPOINT = """
from circuit_script import endpoint


@endpoint("version", auth="none")
async def version() -> int:
    return {version}
"""
EVERY = 0.005  # seconds between looks


async def measure(bench: Bench) -> list[Figure]:
    bench.says("reload")
    folder, port = bench.place("reload"), free_port()
    init.scaffold(folder / "acme")
    app = folder / "acme"
    _write(app, 0)
    environment = {"DATABASE_URL": await bench.database(), "CIRCUIT_GATEWAY__PORT": str(port)}
    command = [python(), "-m", "circuit_script.cli", "dev"]

    async def answers(version: int) -> bool:
        status, body = await http_get(port, "/api/version")
        return status == 200 and json.loads(body) == version

    times = []
    async with running(command, log=folder / "dev.log", cwd=app, env=environment, ready=lambda: answers(0)):
        for version in range(1, bench.size(20, 9)):
            began = time.perf_counter()
            _write(app, version)
            await until(lambda wanted=version: answers(wanted), seconds=20, what="the reload", every=EVERY)
            times.append((time.perf_counter() - began) * 1000)
    note = f"median of {len(times)}, slowest {max(times):.0f}; seen by a caller that asks every {EVERY * 1000:.0f} ms"
    return [Figure("reload_ms", round(statistics.median(times)), "ms", "< 1000", note)]


def _write(app: Path, version: int) -> None:
    (app / "app" / "version.py").write_text(ENDPOINT.format(version=version))
