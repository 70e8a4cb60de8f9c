"""The quickstart's commands as a developer types them, without the typing: from nothing to a scored lead."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.processes import free_port, http_get, python, running, until

CLI = (python(), "-m", "circuit_script.cli")


async def measure(bench: Bench) -> list[Figure]:
    bench.says("the quickstart")
    folder, port = bench.place("quickstart"), free_port()
    environment = {**os.environ, "CIRCUIT_GATEWAY__PORT": str(port)}
    environment.pop("DATABASE_URL", None)
    began = time.perf_counter()
    await _run(folder, environment, "init", "acme")
    app = folder / "acme"
    made = time.perf_counter()
    await _run(app, environment, "test")
    tested = time.perf_counter()

    async def ready() -> bool:
        return (await http_get(port, "/readyz"))[0] == 200

    async with running(
        [*CLI, "dev"], log=folder / "dev.log", cwd=app, env={"CIRCUIT_GATEWAY__PORT": str(port)}, ready=ready
    ):
        served = time.perf_counter()
        await _run(app, environment, "send", "gohighlevel")

        async def scored() -> bool:
            _, body = await http_get(port, "/api/status")
            return bool(json.loads(body)["executions"].get("succeeded"))

        await until(scored, seconds=30, what="the first scored lead")
        ended = time.perf_counter()
    note = (
        f"init {made - began:.1f}, test {tested - made:.1f}, dev with its own PostgreSQL {served - tested:.1f}, "
        f"send until scored {ended - served:.1f} s"
    )
    return [Figure("quickstart_s", round(ended - began, 1), "s", "", note)]


async def _run(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *CLI, *arguments, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(
            f"circuit-script {' '.join(arguments)} ended with {process.returncode}: {out.decode()[-2000:]}"
        )
