"""What one execution does to the process that it shares: it is found, and the others run again and succeed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.governor import MB
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, until

pytestmark = pytest.mark.evasion

APP = """
import ctypes, re

async def met(context):
    '''Waits until all of them are here.'''
    print(os.getpid())
    await http.get("http://x/here")

@trigger("Contact", ["afterInsert"], concurrency=4)
async def does(context):
    for record in context.new_records:
        async with context.record(record):
            await CircuitDB.update("Contact", {"id": record.id, "seen": True})
    await met(context)
    kind = context.new_records[0].get("kind")
    if kind is not None:
        await globals()[kind](context)
    await http.get("http://x/wait")

async def spin(context):
    while True:
        await asyncio.sleep(0)

async def burn(context):
    while True:
        pass

async def hog(context):
    kept = []
    while True:
        kept.append(bytearray(1024 * 1024))
        await asyncio.sleep(0.001)

async def hog_at_once(context):
    kept = b"x" * (4096 * 1024 * 1024)

async def block(context):
    time.sleep(60)

async def block_in_c(context):
    ctypes.PyDLL(None).usleep(60_000_000)  # holds the interpreter, too

async def search(context):
    re.match(r"(a|a)*b", "a" * 40)

async def search_in_a_thread(context):
    await asyncio.to_thread(re.match, r"(a|a)*b", "a" * 40)

async def leave(context):
    os._exit(3)

async def crash(context):
    ctypes.string_at(0)

async def crash_in_a_thread(context):
    await asyncio.to_thread(ctypes.string_at, 0)

async def fork_away(context):
    for _ in range(80):
        if os.fork() == 0:
            time.sleep(60)
    await asyncio.sleep(60)

async def close(context):
    os.closerange(3, 100)
    await CircuitDB.query("Contact", {"id": 1})
"""


@dataclass
class Road(Recorder):
    """Records as the road would: what one run did counts only if it succeeded; calls are journaled."""

    here: Any = None
    paid: list[str] = field(default_factory=list)
    journal: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        if verb == "http":
            url = arguments["url"]
            if url not in self.journal:
                await self.here[url].wait()
                self.paid.append(url)
                self.journal.add(url)
        return await super().request(verb, arguments)


class Meeting:
    """Opens once as many have come."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._all = asyncio.Event()

    async def wait(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._all.set()
        await self._all.wait()


class Never:
    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def wait(self) -> None:
        await self.open.wait()


async def run_all(bench: Bench, kinds: list[str | None], **limits: Any) -> tuple[list[Road], list[Outcome]]:
    """All at once, in one child; then those that were disturbed once more, alone."""
    waiting = Never()
    here = {"http://x/here": Meeting(len(kinds)), "http://x/wait": waiting}
    roads = [Road(here=here) for _ in kinds]

    def start(n: int, concurrency: int) -> asyncio.Task[Outcome]:
        record = {"id": str(n)} | ({"kind": kinds[n]} if kinds[n] else {})
        return asyncio.create_task(
            bench.run("does", records=[record], broker=roads[n], concurrency=concurrency, **limits)
        )

    outcomes = await asyncio.gather(*[start(n, 4) for n in range(len(kinds))])
    assert len({road.messages[0] for road in roads}) == 1, "they shared a child"
    waiting.open.set()
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, Failed) and outcome.disturbed:
            assert "it runs again, alone" in outcome.reason
            outcomes[n] = await start(n, 1)
    return roads, outcomes


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("spin", "cpu_time"), ("hog", "memory"), ("hog_at_once", "memory"), ("fork_away", "processes")],
)
async def test_who_uses_too_much_of_the_process_is_found(pool_of: PoolOf, kind: str, limit: str) -> None:
    bench = await pool_of(APP, size=1)
    more: dict[str, Any] = {"cpu_time": 0.3} if kind == "spin" else {}
    roads, outcomes = await run_all(bench, [None, kind, None], memory=100 * MB, **more)
    guilty = outcomes.pop(1)
    assert isinstance(guilty, Breached), guilty
    assert guilty.limit == limit
    assert all(isinstance(each, Succeeded) for each in outcomes), outcomes
    assert [road.paid.count("http://x/here") for road in roads] == [1, 1, 1], "what was paid is not paid again"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("leave", "left its process with exit code 3"),
        ("crash", "SIGSEGV"),
        ("crash_in_a_thread", "SIGSEGV"),
        ("close", "closed its connection"),
    ],
)
async def test_who_ends_the_process_is_found(pool_of: PoolOf, kind: str, why: str) -> None:
    bench = await pool_of(APP, size=1)
    _, outcomes = await run_all(bench, [None, None, kind, None])
    guilty = outcomes.pop(2)
    assert isinstance(guilty, Failed), guilty
    assert why in guilty.reason
    assert not guilty.disturbed
    if why == "SIGSEGV":
        assert "in crash" in guilty.detail or "to_thread" in guilty.detail or "run" in guilty.detail
    assert all(isinstance(each, Succeeded) for each in outcomes), outcomes


@pytest.mark.parametrize("kind", ["burn", "block", "block_in_c", "search"])
async def test_who_blocks_the_loop_is_found_with_its_stack(pool_of: PoolOf, kind: str) -> None:
    bench = await pool_of(APP, size=1, longest_turn=0.3)
    _, outcomes = await run_all(bench, [None, kind, None])
    guilty = outcomes.pop(1)
    assert isinstance(guilty, Breached), guilty
    assert guilty.limit == "blocked_loop"
    assert f"in {kind}" in guilty.detail
    assert guilty.where.startswith("app.py:")
    assert 0.3 <= guilty.used < 5
    assert guilty.ceiling == 0.3
    assert all(isinstance(each, Succeeded) for each in outcomes), outcomes


async def test_whose_thread_holds_the_interpreter_is_found(pool_of: PoolOf) -> None:
    """By the step that started it, or else alone, where it is held to its own limits."""
    bench = await pool_of(APP, size=1, longest_turn=0.3)
    _, outcomes = await run_all(bench, [None, "search_in_a_thread", None], cpu_time=1)
    guilty = outcomes.pop(1)
    assert isinstance(guilty, Breached), guilty
    assert guilty.limit in ("blocked_loop", "cpu_time")
    assert all(isinstance(each, Succeeded) for each in outcomes), outcomes


@pytest.mark.usefixtures("time_to_speak")
async def test_the_clock_of_one_that_is_alone_is_its_own(pool_of: PoolOf) -> None:
    """Nobody is kept waiting, so nobody is blamed for it; and a breach needs no second run to be told whose it is."""
    bench = await pool_of(APP, size=1, longest_turn=0.1)
    here = {"http://x/here": Meeting(1), "http://x/wait": Meeting(1)}
    record = {"id": "1", "kind": "burn"}
    outcome = await bench.run("does", records=[record], broker=Road(here=here), concurrency=4, cpu_time=0.4)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "cpu_time"
    assert "in burn" in outcome.detail
    outcome = await bench.run("does", records=[record], broker=Road(here=here), concurrency=4, wall_time=0.4)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "wall_time"


async def test_who_has_ended_before_keeps_its_outcome(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    first = {"http://x/here": Meeting(1), "http://x/wait": Meeting(1)}
    never = {"http://x/here": Meeting(1), "http://x/wait": Never()}
    staying = Road(here=never)
    neighbour = asyncio.create_task(bench.run("does", broker=staying, concurrency=4))
    await until(lambda: staying.paid)
    done = Road(here=first)
    assert isinstance(await bench.run("does", broker=done, concurrency=4), Succeeded)
    crashing = Road(here={**first, "http://x/here": Meeting(1)})
    outcome = await bench.run("does", records=[{"id": "1", "kind": "crash"}], broker=crashing, concurrency=4)
    assert staying.messages == done.messages == crashing.messages
    assert isinstance(outcome, Failed)
    assert outcome.disturbed
    disturbed = await neighbour
    assert isinstance(disturbed, Failed)
    assert disturbed.disturbed
