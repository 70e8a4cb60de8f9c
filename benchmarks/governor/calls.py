"""What a request to the broker costs, and what it costs that a request of somebody's own library is counted."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.governor import requesting
from benchmarks.processes import ROOT, free_port, http_get, python, running
from circuit_script.config import load_settings
from circuit_script.db.migrate import migrate
from circuit_script.wiring.trial import Trial

ROUNDS = 5
TRIGGERS = """
import time

from circuit_script import CircuitDB, log, trigger

from app.requesting import ask

MANY = {{"dml_statements": 100_000, "dml_rows": 100_000, "callouts": 100_000}}


@trigger("Contact", ["afterInsert"], limits=MANY)
async def call_the_broker(context):
    took = []
    for _ in range({count}):
        began = time.perf_counter()
        await CircuitDB.insert("Note", {{"body": "Called."}})
        took.append((time.perf_counter() - began) * 1e6)
    log.info("took", us=sorted(took)[len(took) // 2])


@trigger("Contact", ["afterUpdate"], limits=MANY)
def ask_a_server(context):
    took = ask({port}, {count})
    log.info("took", us=sorted(took)[len(took) // 2])
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("what a call costs")
    port, count = free_port(), bench.size(2000, 400)
    folder = _scaffold(bench.place("calls"), port, count)
    governed, bare, calls = [], [], []

    async def ready() -> bool:
        return (await http_get(port, "/"))[0] == 200

    command = [python(), "-m", "benchmarks.governor.listening", str(port)]
    async with (
        running(command, log=folder / "listening.log", ready=ready),
        Trial(load_settings(folder), await _migrated(bench), keep_logs=False) as trial,
    ):
        for _ in range(ROUNDS):
            calls.append(await _took(trial, "call_the_broker"))
            governed.append(await _took(trial, "ask_a_server"))
            bare.append(await _bare(port, count))
    note = f"medians of {ROUNDS} times {count}: counted {median(governed):.0f} µs, bare {median(bare):.0f} µs"
    return [
        Figure("broker_call_us", round(median(calls)), "µs", "", f"a held write; {ROUNDS} times {count} in turn"),
        Figure("counted_callout_us", round(median(governed) - median(bare)), "µs", "", f"http.client; {note}"),
    ]


def _scaffold(folder: Path, port: int, count: int) -> Path:
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("")
    (folder / "app" / "requesting.py").write_text(inspect.getsource(requesting))
    (folder / "app" / "triggers.py").write_text(TRIGGERS.format(port=port, count=count))
    (folder / "circuit.toml").write_text('[callouts]\nprivate = ["127.0.0.1"]\n')
    return folder


async def _migrated(bench: Bench) -> str:
    database = await bench.database()
    await migrate(database)
    return database


async def _took(trial: Trial, handler: str) -> float:
    result = await trial.run(handler, {"id": "1"})
    for batch in result.batches:
        for line in batch.log:
            if line.message == "took":
                return float(line.fields["us"])
    raise RuntimeError(f"{handler} said nothing: {result}")


async def _bare(port: int, count: int) -> float:
    process = await asyncio.create_subprocess_exec(
        python(),
        "-m",
        "benchmarks.governor.requesting",
        str(port),
        str(count),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    said, _ = await process.communicate()
    return float(median(json.loads(said)))
