"""Processes that learn of the same new addresses at once ask for them once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from circuit_script.db.pool import open_connection
from tests.enrichment.sources import Sources

SCRIPT = Path(__file__).with_name("batch_process.py")
ROOT = Path(__file__).parents[2]


async def started(database: str, sources: Sources, folder: Path, count: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), database, sources.url, str(folder), str(count),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}, limit=2**24,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def heard(sources: Sources, rows: int) -> None:
    async with asyncio.timeout(30):
        while len(sources.rows) < rows:
            await asyncio.sleep(0.01)


async def test_two_processes_ask_for_the_same_new_addresses_once(
    database: str, sources: Sources, tmp_path: Path
) -> None:
    sources.gate.clear()
    processes = [await started(database, sources, tmp_path, count) for count in (60, 100)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        await process.stdin.drain()
    await heard(sources, 100)
    sources.gate.set()
    said = [json.loads((await process.communicate())[0]) for process in processes]

    assert len(sources.rows) == 100, "each address was asked for once"
    assert sorted({row[1] for row in sources.rows}) == sorted({f"{n} MAIN ST" for n in range(100)})
    assert sources.heard["acs"] == 1
    assert sources.heard["geocoder"] <= 2
    assert sum(each["callouts"] for each in said) == sources.calls
    assert [len(each["rows"]) for each in said] == [60, 100]
    assert said[0]["rows"] == said[1]["rows"][:60]
    assert all(row["reasons"] == {} for row in said[1]["rows"])


async def test_who_is_killed_while_it_asks_holds_up_nobody_for_longer_than_its_lease(
    database: str, sources: Sources, tmp_path: Path
) -> None:
    sources.gate.clear()
    first = await started(database, sources, tmp_path, 10)
    second = await started(database, sources, tmp_path, 10)
    assert first.stdin is not None
    first.stdin.write(b"go\n")
    await first.stdin.drain()
    await heard(sources, 10)
    first.send_signal(signal.SIGKILL)
    await first.communicate()
    sources.gate.set()
    connection = await open_connection(database)
    try:
        claimed = "SELECT count(*) FROM circuit.enrichments WHERE claimed_by IS NOT NULL"
        assert await (await connection.execute(claimed)).fetchone() == (10,)
        await connection.execute("UPDATE circuit.enrichments SET claimed_until = now()")  # its lease is over
    finally:
        await connection.close()
    said = json.loads((await second.communicate(b"go\n"))[0])
    assert all(row["reasons"] == {} for row in said["rows"])
    assert len(sources.rows) == 20
