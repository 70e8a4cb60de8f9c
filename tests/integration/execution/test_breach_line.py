"""A breach names the author's line that crossed the limit, and shows what the handler was doing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from circuit_script.execution.outcome import Breached, Outcome, Succeeded
from circuit_script.governor import LimitExceeded, Limits, LoopFound, Meter
from tests.integration.execution.conftest import PoolOf, Recorder, until

pytestmark = pytest.mark.usefixtures("time_to_speak")

APP = """
import ctypes, faulthandler, signal, threading
from concurrent.futures import ThreadPoolExecutor

def handler(function):
    return trigger("Contact", ["afterInsert"])(function)

async def too_deep():
    await CircuitDB.get("Contact", "1")
    await CircuitDB.get("Contact", "1")  # the line of plain

@handler
async def plain(context):
    await too_deep()

@handler
async def swallowed(context):
    try:
        while True:
            await CircuitDB.get("Contact", "1")  # the line of swallowed
    except BaseException:
        pass
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

@handler
async def gathered(context):
    await asyncio.gather(CircuitDB.get("Contact", "1"), CircuitDB.get("Contact", "2"))  # the line of gathered

@handler
def in_a_thread(context):
    def work():
        try:
            for _ in range(2):
                run(CircuitDB.get("Contact", "1"))  # the line of in_a_thread
        except BaseException:
            pass
    with ThreadPoolExecutor() as pool:
        pool.submit(work).result()

@handler
def spins(context):
    while True: pass  # the line of spins

@handler
def spins_and_swallows(context):
    while True:
        try:
            while True: pass  # the line of spins_and_swallows
        except BaseException: pass  # also the line of spins_and_swallows

@handler
async def waits(context):
    await asyncio.sleep(60)  # the line of waits

@handler
def holds_the_gil(context):
    ctypes.pythonapi.PySys_GetObject  # found beforehand
    ctypes.PyDLL(None).usleep(60_000_000)  # the line of holds_the_gil

@handler
def burns(context):
    sum(range(10**12))  # the line of burns

@handler
def hoards(context):
    bytearray(10_000_000_000)  # the line of hoards

@handler
def deaf(context):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True: pass

@handler
def speaks_unasked(context):
    os.kill(os.getpid(), signal.SIGRTMAX - 3)
    return None

@handler
async def loops(context):
    await CircuitDB.get("Contact", "loop")  # the line of loops

@handler
async def good(context):
    pass
"""


class Metered(Recorder):
    """Counts with a real meter: one read is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(Limits(db_queries=1), 1)
        self.usage = self.meter.usage

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        self.meter.go_on()
        if arguments.get("ids") == ["loop"]:
            raise self.meter.exceeded(LoopFound("loop", 6, 5, "GET https://a came round again"))
        self.meter.spend("db_queries")
        return await super().request(verb, arguments)


def line_of(handler: str) -> list[str]:
    lines = APP.splitlines()
    offset = 2 + 1  # the header's lines; and they are counted from one
    return [f"app.py:{n + offset}" for n, line in enumerate(lines) if line.endswith(f"the line of {handler}")]


def breached(outcome: Outcome) -> Breached:
    assert isinstance(outcome, Breached), outcome
    return outcome


@pytest.mark.parametrize("handler", ["plain", "swallowed", "gathered", "in_a_thread"])
async def test_a_count_that_is_crossed_names_the_line_also_when_it_is_swallowed(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run(handler, broker=Metered()))

    assert outcome.limit == "db_queries"
    assert outcome.where in line_of(handler)
    assert outcome.reason == f"limit db_queries exceeded: 2 of 1, at {outcome.where}"


@pytest.mark.parametrize("handler", ["spins", "spins_and_swallows", "waits", "holds_the_gil"])
async def test_wall_time_names_the_line_that_stood_still(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run(handler, wall_time=0.2))

    assert outcome.limit == "wall_time"
    assert outcome.where in line_of(handler)
    assert f'File "{bench.pool._folder}/app.py"' in outcome.detail


async def test_a_stack_is_written_also_while_c_code_keeps_the_interpreter(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run("burns", cpu_time=0.1))

    assert outcome.limit == "cpu_time"
    assert outcome.where in line_of("burns")
    assert outcome.detail.count(" in burns\n") >= 1


async def test_what_the_kernel_refused_names_its_line(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run("hoards"))

    assert outcome.limit == "memory"
    assert outcome.where in line_of("hoards")


async def test_a_handler_that_blocks_every_signal_ends_in_time_without_a_stack(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run("deaf", wall_time=0.2))

    assert (outcome.limit, outcome.detail, outcome.where) == ("wall_time", "", "")
    assert isinstance(await bench.run("good"), Succeeded)


async def test_a_run_never_shows_the_stack_of_the_one_before(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    assert isinstance(await bench.run("speaks_unasked"), Succeeded)
    child = next(each for each in bench.pool._children.values() if each.key is not None)
    assert "speaks_unasked" in child.last_words

    outcome = breached(await bench.run("spins", wall_time=0.2))

    await until(lambda: child.gone)  # it ran in the same child
    assert "speaks_unasked" not in outcome.detail
    assert outcome.where in line_of("spins")


async def test_a_loop_is_a_breach_that_names_its_cycle(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)

    outcome = breached(await bench.run("loops", broker=Metered()))

    assert outcome.limit == "loop"
    assert outcome.reason == f"loop found: GET https://a came round again, at {line_of('loops')[0]}"
    assert "LoopFound: GET https://a came round again" in outcome.detail


async def test_two_breaches_at_once_keep_their_stacks_apart(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=2)

    one, other = await asyncio.gather(
        bench.run("spins", wall_time=0.2, tenant="one"), bench.run("holds_the_gil", wall_time=0.2, tenant="other")
    )

    assert breached(one).where in line_of("spins")
    assert breached(other).where in line_of("holds_the_gil")


def test_a_breach_is_the_same_after_it_was_pickled() -> None:
    import copy
    import pickle

    found = LoopFound("loop", 6, 5, "round and round", "a.py:3")
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert (type(again), again.crossed, again.where, str(again)) == (
            LoopFound,
            found.crossed,
            "a.py:3",
            "round and round (a.py:3)",
        )
    assert str(LimitExceeded("depth", 17, 16)) == "depth: used 17 of 16"
