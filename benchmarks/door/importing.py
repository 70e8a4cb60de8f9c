"""How long ``import circuit_script`` takes, and what it must not pull in."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys

from benchmarks.bench import Bench
from benchmarks.figures import Figure

SERVER_PARTS = (
    "psycopg",
    "psycopg_pool",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httpx",
    "pydantic",
    "rich",
    "typer",
)
PROBE = """
import json, sys, time
began = time.perf_counter()
import circuit_script
took = time.perf_counter() - began
print(json.dumps([took * 1000, sorted({name.split(".")[0] for name in sys.modules})]))
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("import circuit_script")
    times: list[float] = []
    pulled: set[str] = set()
    for _ in range(bench.size(15, 7)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROBE, stdout=asyncio.subprocess.PIPE, cwd=bench.folder
        )
        out, _ = await process.communicate()
        took, modules = json.loads(out)
        times.append(took)
        pulled |= set(modules).intersection(SERVER_PARTS)
    note = f"median of {len(times)} fresh interpreters; slowest {max(times):.0f}"
    return [
        Figure("import_ms", round(statistics.median(times), 1), "ms", "< 150", note),
        Figure("import_server_parts", len(pulled), "modules", "= 0", ", ".join(sorted(pulled))),
    ]
