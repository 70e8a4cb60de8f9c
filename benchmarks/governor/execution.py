"""What governing costs per execution, and how fast a runaway is gone and replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks import app
from benchmarks.bare import scored
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.load import percentile
from benchmarks.processes import ROOT, python, until
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import Breached, Succeeded, Work
from circuit_script.governor import Limits, Usage

WALL_TIME = 0.1
Trip = Callable[[bytes], Awaitable[None]]
DEFAULTS = Limits()  # a handler has them from its declaration on

TRIGGERS = """
from circuit_script import trigger

from app.scoring import score


@trigger("Contact", ["afterInsert"], share_child=True)
async def score_contacts(context):
    for contact in context.new_records:
        score(contact)


@trigger("Runaway", ["afterInsert"])
def run_away(context):
    while True:
        pass
"""


class CountingBroker:
    """The broker of an execution that asks for nothing."""

    def __init__(self) -> None:
        self.usage = Usage()

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        raise RuntimeError(f"nothing asks for {verb} here")

    def log(self, line: dict[str, Any]) -> None:
        """Nothing is logged here."""


async def measure(bench: Bench) -> list[Figure]:
    """Overhead, kill and replacement of a small app: also a part of the road's figures."""
    async with _pool(bench, TRIGGERS) as pool:
        bench.says("what governing costs per execution")
        overheads = await _overheads(bench, pool)
        bench.says("killing runaways")
        kills, replacements, note = await _runaways(bench, pool)
    return [
        *overheads,
        Figure("kill_ms", round(percentile(kills, 0.99), 1), "ms", "< 100", f"p99; {note}"),
        Figure("replace_ms", round(percentile(replacements, 0.99), 1), "ms", "< 20", f"p99; {note}"),
    ]


async def measure_large(bench: Bench) -> list[Figure]:
    """Replacement of a child whose app imports pandas."""
    async with _pool(bench, "import pandas\n" + TRIGGERS) as pool:
        bench.says("replacing large children")
        _, replacements, note = await _runaways(bench, pool)
    return [Figure("replace_pandas_ms", round(percentile(replacements, 0.99), 1), "ms", "< 20", f"p99; {note}")]


@asynccontextmanager
async def _pool(bench: Bench, triggers: str) -> AsyncIterator[Pool]:
    folder = app.scaffold(bench.place("pool"), triggers=triggers, port=1, public_key="")
    pool = Pool(app_folder=folder, app="app", size=2, on_change=lambda: None, objects=("Runaway",))
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


async def _overheads(bench: Bench, pool: Pool) -> list[Figure]:
    """What a governed round trip of one record takes more than one in a bare forked child, and in a process pool."""
    loop = asyncio.get_running_loop()
    async with _bare_child() as trip:
        child = await _beside(bench, pool, "execution_overhead_us", "< 200", "a bare child", trip)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:

        async def call(body: bytes) -> None:
            await loop.run_in_executor(executor, scored, [body])

        return [child, await _beside(bench, pool, "over_process_pool_us", "", "ProcessPoolExecutor", call)]


async def _beside(bench: Bench, pool: Pool, name: str, target: str, peer: str, trip: Trip) -> Figure:
    """The difference of the medians of interleaved round trips."""
    governed, bare = [], []
    count = bench.size(2000, 500)
    for number in range(count + 100):
        contact = bench.vendor.contact()
        began = time.perf_counter()
        outcome = await pool.run(_work("score_contacts", "Contact", contact, DEFAULTS), CountingBroker())
        between = time.perf_counter()
        await trip(msgspec.json.encode(contact))
        ended = time.perf_counter()
        if not isinstance(outcome, Succeeded):
            raise RuntimeError(f"the handler did not succeed: {outcome}")
        if number >= 100:
            governed.append((between - began) * 1e6)
            bare.append((ended - between) * 1e6)
    note = f"medians: governed {median(governed):.0f} µs, {peer} {median(bare):.0f} µs; {count} batches of one"
    return Figure(name, round(median(governed) - median(bare)), "µs", target, note)


@asynccontextmanager
async def _bare_child() -> AsyncIterator[Trip]:
    """The bare prototype's child, and one round trip to it over asyncio streams."""
    ours, theirs = socket.socketpair()
    serve = "import socket, sys; from benchmarks.bare import serve_batches; "
    serve += "serve_batches(socket.socket(fileno=int(sys.argv[1])))"
    process = subprocess.Popen(
        [python(), "-c", serve, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def trip(body: bytes) -> None:
        frame = msgspec.msgpack.encode([body])
        writer.write(len(frame).to_bytes(4, "big") + frame)
        size = int.from_bytes(await reader.readexactly(4), "big")
        msgspec.msgpack.decode(await reader.readexactly(size))

    try:
        yield trip
    finally:
        writer.close()
        await asyncio.to_thread(process.wait)


async def _runaways(bench: Bench, pool: Pool) -> tuple[list[float], list[float], str]:
    """Milliseconds from the limit until the process is reaped, and from there until another stands ready."""
    kills: list[float] = []
    replacements: list[float] = []
    count = bench.size(60, 12)
    for _ in range(count):
        await until(lambda: len(_idle(pool)) == 2, seconds=10, what="two idle children", every=0.001)
        watch = _Watch(pool)
        outcome = await pool.run(
            _work("run_away", "Runaway", {"id": "1"}, Limits(wall_time=WALL_TIME)), CountingBroker()
        )
        if not isinstance(outcome, Breached):
            raise RuntimeError(f"the runaway was not stopped: {outcome}")
        await watch.over()
        kills.append((watch.reaped - watch.began - WALL_TIME) * 1000)
        replacements.append((watch.ready - watch.reaped) * 1000)
    return kills, replacements, f"{count} spinning handlers, wall_time {WALL_TIME:g} s"


class _Watch:
    """A thread that sees when the busy child's process is reaped and when a new child stands ready."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._before = set(_idle(pool))  # not the runaway before, which may still be on its way out
        self.began = time.perf_counter()
        self.reaped = 0.0
        self.ready = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    async def over(self) -> None:
        """Wait until the new child stands ready."""
        await until(lambda: self.ready, seconds=10, what="a new child", every=0.001)

    def _watch(self) -> None:
        deadline = self.began + 10
        while not self.ready and time.perf_counter() < deadline:
            now = time.perf_counter()
            if not self.reaped and any(not Path(f"/proc/{pid}").exists() for pid in self._before):
                self.reaped = now
            if self.reaped and len(_idle(self._pool)) == len(self._before):
                self.ready = now
            time.sleep(0.0002)


def _idle(pool: Pool) -> list[int]:
    return [child.pid for child in pool.children if not child.busy]


def _work(handler: str, object_: str, record: dict[str, Any], limits: Limits) -> Work:
    event = {"id": 1, "delivery": str(uuid.uuid4()), "source": "gohighlevel", "attempt": 1}
    return Work(
        execution=uuid.uuid4(),
        handler=handler,
        tenant="default",
        object=object_,
        event="afterInsert",
        records=[record],
        old=[None],
        events=[event],
        limits=limits,
        started_at=time.time(),
        share_child=handler == "score_contacts",
    )
