"""How long an endpoint takes: alone, and while the road is saturated, beside the same function bare.

The bare one is FastAPI on uvicorn that commits one row before it answers: what a careful developer would write.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import app, contestants, postgres
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.load import Result, closed_loop, request
from benchmarks.processes import free_port, http_get, python, running

ENDPOINT = """
from pydantic import BaseModel

from circuit_script import endpoint


class Question(BaseModel):
    message: str


class Answer(BaseModel):
    reply: str


@endpoint("chat", methods=["POST"], auth="none")
async def chat(question: Question) -> Answer:
    return Answer(reply=question.message.upper())
"""
PATH = "/api/chat"
BODY = b'{"message": "When do you open on Sunday?"}'
ROAD_CONNECTIONS = 64


async def measure(bench: Bench) -> list[Figure]:
    ask = request(PATH, {"content-type": "application/json"}, BODY)
    bench.says("a bare endpoint")
    async with _bare(bench) as port:
        await _asked(port, [ask] * 100)
        bare = await _asked(port, [ask] * bench.size(2000, 500))
    bench.says("an endpoint, idle")
    async with _ours(bench) as port:
        await _asked(port, [ask] * 200)
        idle = await _asked(port, [ask] * bench.size(2000, 500))
        bench.says("an endpoint, while the road is saturated")
        busy, events = await _beside_the_road(bench, port, ask)
    note = f"one caller, {len(idle.latencies)} calls; committed before the answer"
    saturated = f"beside {events:,} webhooks over {ROAD_CONNECTIONS} connections, {len(busy.latencies)} calls"
    return [
        Figure("endpoint_p50_ms", round(idle.percentile(0.5), 2), "ms", "", note),
        Figure("endpoint_p99_ms", round(idle.percentile(0.99), 2), "ms", "", note),
        Figure("endpoint_p50_ms_saturated", round(busy.percentile(0.5), 2), "ms", "", saturated),
        Figure("endpoint_p99_ms_saturated", round(busy.percentile(0.99), 2), "ms", "", saturated),
        Figure(
            "endpoint_p50_of_bare",
            round(statistics.median(idle.latencies) / statistics.median(bare.latencies), 2),
            "ratio",
            "",
            f"FastAPI on uvicorn that commits one row: p50 {bare.percentile(0.5):.2f} ms",
        ),
    ]


async def _asked(port: int, requests: list[bytes]) -> Result:
    result = await closed_loop(port, requests, connections=1)
    if result.statuses[200] != len(requests):
        raise RuntimeError(f"not every call was answered: {dict(result.statuses)}")
    return result


async def _beside_the_road(bench: Bench, port: int, ask: bytes) -> tuple[Result, int]:
    """Ask one question after the other until the webhooks that arrive meanwhile are all acknowledged."""
    hooks = bench.contacts(bench.size(20_000, 6_000))
    road = asyncio.create_task(closed_loop(port, hooks, connections=ROAD_CONNECTIONS))
    asked = Result()
    while not road.done():
        part = await _asked(port, [ask] * 10)
        asked.latencies += part.latencies
        asked.statuses += part.statuses
    accepted = (await road).statuses[202]
    if accepted != len(hooks):
        raise RuntimeError("not every delivery was accepted")
    return asked, accepted


@asynccontextmanager
async def _ours(bench: Bench) -> AsyncIterator[int]:
    triggers = app.SCORING.format(batch=200) + ENDPOINT
    place, database = bench.place("endpoint"), await bench.database()
    async with contestants.ours(place, database, bench.vendor.public_key, triggers=triggers) as ours:
        yield ours.port


@asynccontextmanager
async def _bare(bench: Bench) -> AsyncIterator[int]:
    folder, port, database = bench.place("bare"), free_port(), await bench.database()
    await postgres.execute(database, "CREATE TABLE asked (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text)")

    async def ready() -> bool:
        return (await http_get(port, "/ready"))[0] == 200

    command = [python(), str(Path(__file__).with_name("bare.py")), "--port", str(port), "--database", database]
    async with running(command, log=folder / "bare.log", ready=ready):
        yield port
