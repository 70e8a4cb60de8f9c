"""What an old service answers through our door, each delivery compared with what ours would have written.

Mixed leads with the Flask app of the example; the same with a mistake of one point planted in ours; then a steady load
on an old service that is fast, while workers are killed.

    python -m benchmarks.release --only mirror
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.release.ground import RATE, standing
from circuit_script.db.embedded import EmbeddedPostgres
from tests.acceptance.platform import answers, free_port
from tests.acceptance.test_cutover import PLANTED, is_planted, migrating
from tests.acceptance.vendor import Load
from tests.servers import Server, embedded, until

LEADS, SECONDS, KILLS = 1000, 120.0, 3
QUICK = 300, 10.0, 1
PATIENCE = 900.0
TRIGGERS = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=50)
async def score(context):
    await CircuitDB.update("Contact", [
        {"id": each["id"], "score": 10 * int(each.get("step") or 0) + len(each.get("email") or "") % 10}
        for each in context.new_records
    ])
"""
MIRROR = '[mirror.gohighlevel]\nurl = "http://127.0.0.1:{port}/score"\ncompare = {{ score = "Contact.score" }}\n'
STATES = "SELECT state, count(*) FROM circuit.mirrored GROUP BY state"
OPEN = "SELECT count(*) FROM circuit.mirrored WHERE state IN ('pending', 'taken')"
ACTED = "SELECT (SELECT count(*) FROM circuit.records) + (SELECT count(*) FROM circuit.executions)"


def measure(quick: bool) -> Mapping[str, Any]:
    """The share of leads that both scored alike, in percent, and how many planted differences were found; of the load
    what the old service heard, how long the door held its answers, and that ours acted on nothing."""
    leads, seconds, kills = QUICK if quick else (LEADS, SECONDS, KILLS)
    with _server() as server:
        with migrating(server, PLANTED) as migration:
            migration.send_all(range(leads))
            found = migration.compared(PATIENCE)["different"]
        with migrating(server) as migration:
            migration.send_all(range(leads))
            report = migration.compared(PATIENCE)
    return {
        "mirror_parity_pct": round(100 * report["parity"], 3),
        "leads": leads,
        "compared": report["compared"],
        "planted": sum(map(is_planted, range(leads))),
        "planted_found": found,
        "under_load": _under_load(seconds, kills),
    }


def _under_load(seconds: float, kills: int) -> Mapping[str, Any]:
    with _old() as port, standing(TRIGGERS, more=MIRROR.format(port=port)) as ground:
        door, began = ground.door, time.monotonic()
        with Load(door.port, ground.streams(seconds), rate=RATE) as load:
            for turn in range(kills):
                wanted = (turn + 1) / (kills + 1)
                load.wait_for(wanted, 600)
                ground.kill_a_worker().wait_ready()
            load.wait_for(1.0, 600)
        took = time.monotonic() - began
        until(lambda: door.value(OPEN) == 0, "everything is compared", PATIENCE)
        caught_up = time.monotonic() - began
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            heard = json.load(answer)
        states = dict(door.rows(STATES))
        return {
            "deliveries": len(load.acknowledged),
            "per_second": round(len(load.acknowledged) / took),
            "workers_killed": kills,
            "parity_pct": round(100 * states.get("same", 0) / len(load.acknowledged), 3),
            "states": states,
            "heard_by_old": heard["deliveries"],
            "heard_twice": heard["twice"],
            "acted_on_by_ours": door.value(ACTED),
            "compared_after_s": round(caught_up),
        }


@contextlib.contextmanager
def _old() -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.release.old:app", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning", "--no-access-log"])
    try:
        until(lambda: answers(port, "/") == 200, "the old service answers")
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as place:
        Path(place).chmod(0o755)
        try:
            yield embedded(Path(place))
        finally:
            asyncio.run(EmbeddedPostgres(Path(place)).stop())
