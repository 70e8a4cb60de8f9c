"""Nothing lost, doubled or overtaken: the whole platform is killed in the middle of a load and started again.

Every contact gets ten numbered updates; the handler inserts one row for each. What was acknowledged must be there
once, and a contact's steps in their order.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import app, contestants, postgres
from benchmarks.bench import PATH, Bench
from benchmarks.figures import Figure
from benchmarks.load import request
from benchmarks.processes import free_port, until

STEPS = 10
SETTLED = "SELECT NOT EXISTS (SELECT 1 FROM circuit.queue)"
TALLIED = """
    SELECT data ->> 'contact', (data ->> 'step')::int FROM circuit.records
    WHERE object = 'Tally' ORDER BY created_at, id
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("kill -9 of everything under load")
    contacts = bench.size(500, 80)
    streams = [_steps(bench, contact) for contact in range(contacts)]
    folder, database, port = bench.place("ours"), await bench.database(), free_port()
    acknowledged: list[tuple[str, int]] = []
    async with _serving(bench, folder, database, port) as ours:
        sending = asyncio.create_task(_send(port, streams, acknowledged))
        half = contacts * STEPS // 2
        await until(lambda: len(acknowledged) >= half, seconds=60, what="half of the load", every=0.005)
        _kill_all(ours.process)
    async with _serving(bench, folder, database, port) as ours:
        await sending

        async def settled() -> bool:
            return bool(await postgres.one(database, SETTLED))

        await until(settled, seconds=60, what="an empty queue", every=0.1)
    return _figures(acknowledged, await postgres.fetch(database, TALLIED))


def _serving(bench: Bench, folder: Path, database: str, port: int) -> Any:
    key = bench.vendor.public_key
    return contestants.ours(folder, database, key, triggers=app.TALLY, port=port)


def _steps(bench: Bench, number: int) -> list[tuple[str, int, bytes]]:
    contact = bench.vendor.contact()
    made = []
    for step in range(STEPS):
        kind = "ContactUpdate" if step else "ContactCreate"
        custom = [{"id": "step", "value": step}]
        signed = bench.vendor.webhook({"type": kind, **contact, "customFields": custom})
        made.append((contact["id"], step, request(PATH, signed.headers, signed.body)))
    return made


async def _send(
    port: int, streams: Sequence[list[tuple[str, int, bytes]]], acknowledged: list[tuple[str, int]]
) -> None:
    """Each stream's steps one after the other, many streams at once; what is not answered is sent again."""
    room = asyncio.Semaphore(32)

    async def one(stream: list[tuple[str, int, bytes]]) -> None:
        async with room:
            for contact, step, data in stream:
                await _deliver(port, data)
                acknowledged.append((contact, step))

    await asyncio.gather(*(one(stream) for stream in streams))


async def _deliver(port: int, data: bytes) -> None:
    await until(lambda: _accepted(port, data), seconds=60, what="an answer", every=0.05)


async def _accepted(port: int, data: bytes) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            return int((await reader.readline())[9:12]) in (200, 202)
        finally:
            writer.close()
    except (OSError, ValueError):
        return False


def _kill_all(process: psutil.Process) -> None:
    for member in [process, *process.children(recursive=True)]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def _figures(acknowledged: Sequence[tuple[str, int]], tallied: Sequence[tuple[Any, ...]]) -> list[Figure]:
    seen = Counter((contact, step) for contact, step in tallied)
    lost = sum(1 for each in acknowledged if each not in seen)
    doubled = sum(count - 1 for count in seen.values())
    order: defaultdict[str, list[int]] = defaultdict(list)
    for contact, step in tallied:
        order[contact].append(step)
    disordered = sum(1 for steps in order.values() if steps != sorted(steps))
    note = f"{len(acknowledged):,} acknowledged events of {len(order)} contacts, everything killed once midway"
    return [
        Figure("lost", lost, "events", "= 0", note),
        Figure("doubled", doubled, "events", "= 0", "each event inserts one row"),
        Figure("disordered", disordered, "contacts", "= 0", f"{STEPS} steps per contact"),
    ]
