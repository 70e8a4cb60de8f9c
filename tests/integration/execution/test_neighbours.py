"""What one execution in a shared child cannot do to the others, nor to the worker's places."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from circuit_script.errors import IsolationUnavailable
from circuit_script.execution.host.crew import Crew, Seat
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, until

pytestmark = pytest.mark.evasion

APP = """
import threading

LOCK = threading.Lock()

@trigger("Contact", ["afterInsert"], concurrency=4)
async def does(context):
    log.info(os.getpid())
    await globals()[context.new_records[0].get("kind", "asks")](context)

async def asks(context):
    await CircuitDB.query("Contact", {"id": "1"})
    await asyncio.sleep(0)
    await CircuitDB.query("Contact", {"id": "1"})

async def waits(context):
    await http.get("http://x/wait")

async def takes_back_that_it_began(context):
    await http.get("http://x/paid")
    context._word[128] = 0
    os._exit(3)

async def takes_back_and_is_killed(context):
    await http.get("http://x/paid")
    context._word[128] = 0
    os.kill(os.getpid(), 9)

async def dies_of_an_odd_signal(context):
    os.kill(os.getpid(), 40)

async def floods(context):
    await asyncio.gather(*[http.get("http://x/wait") for _ in range(300)])

async def floods_too_much(context):
    await asyncio.gather(*[http.get("http://x/wait") for _ in range(1100)])

async def blocks_again_and_again(context):
    while True:
        time.sleep(0.05)
        await asyncio.sleep(0)

async def takes_turns(context):
    for _ in range(50):
        await asyncio.sleep(0.001)

async def burns(context):
    while True:
        for _ in range(20000):
            pass
        await asyncio.sleep(0)

async def speaks_for_nobody(context):
    from circuit_script.execution.protocol import LogLine, pack, packed
    from circuit_script.execution.session import session

    wire, frame = session()._wire, pack(LogLine(packed({"message": "x", "level": "info"}), 10**9))
    while True:
        wire.send(frame)
        await asyncio.sleep(0)

async def holds_the_lock(context):
    def hold():
        with LOCK:
            time.sleep(60)
    await asyncio.to_thread(hold)

async def wants_the_lock(context):
    while "holder" in context.new_records[0] and not LOCK.locked():
        await asyncio.sleep(0.001)
    with LOCK:
        pass
"""


class Gate(Recorder):
    """A broker whose callouts to x/wait wait until it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        if verb == "http" and arguments["url"].endswith("wait"):
            await self.open.wait()
        return await super().request(verb, arguments)


def spawn(
    bench: Bench, broker: Any, kind: str, concurrency: int = 4, handler: str = "does", **more: Any
) -> asyncio.Task[Outcome]:
    record = {"id": "1", "kind": kind} | more.pop("record", {})
    return asyncio.create_task(bench.run(handler, records=[record], broker=broker, concurrency=concurrency, **more))


async def beside(bench: Bench, kind: str, **more: Any) -> tuple[Gate, asyncio.Task[Outcome]]:
    """One that has begun."""
    broker = Gate()
    running = spawn(bench, broker, kind, **more)
    await until(lambda: broker.lines or running.done())
    return broker, running


@pytest.mark.parametrize("known", [False, True], ids=["dead", "buried"])
async def test_a_child_that_dies_before_it_is_handed_a_run_costs_no_place(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    bench = await pool_of(APP, size=1)
    take, taken = Crew.take, []

    def take_of_a_dead_one(crew: Crew) -> Seat:
        taken.append(crew)
        if len(taken) == 1:
            os.kill(crew.link.pid, signal.SIGKILL)
            while os.path.exists(f"/proc/{crew.link.pid}"):
                pass
            if known:
                crew.link.ended(-signal.SIGKILL)
        return take(crew)

    monkeypatch.setattr(Crew, "take", take_of_a_dead_one)
    for _ in range(2):
        assert isinstance(await spawn(bench, Recorder(), "asks"), Succeeded)
    assert len(taken) == 3
    assert bench.pool.busy == 0


@pytest.mark.parametrize("kind", ["takes_back_that_it_began", "takes_back_and_is_killed"])
async def test_who_takes_back_that_it_began_is_not_run_again(pool_of: PoolOf, kind: str) -> None:
    bench, broker = await pool_of(APP, size=1), Recorder()
    outcome = await spawn(bench, broker, kind)
    assert isinstance(outcome, Failed)
    assert not outcome.blameless
    assert [verb for verb, _ in broker.asked] == ["http"]


async def test_a_signal_without_a_name_costs_no_place(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    _, neighbour = await beside(bench, "waits")
    outcomes = [await spawn(bench, Recorder(), "dies_of_an_odd_signal"), await neighbour]
    assert [isinstance(each, Failed) and each.disturbed for each in outcomes] == [True, True]
    outcome = await spawn(bench, Recorder(), "dies_of_an_odd_signal", concurrency=1)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the handler's process was killed by signal 40"
    assert bench.pool.busy == 0


async def test_a_flood_of_requests_keeps_nobody_else_waiting(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    _, waiting = await beside(bench, "waits")
    gate = Gate()
    flooding = spawn(bench, gate, "floods")
    await until(lambda: gate.lines)
    asking = Recorder()
    assert isinstance(await spawn(bench, asking, "asks"), Succeeded)
    assert len(asking.asked) == 2
    gate.open.set()
    assert isinstance(await flooding, Succeeded)
    waiting.cancel()


async def test_who_asks_for_too_much_at_once_ends_and_the_others_go_on(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    gate, waiting = await beside(bench, "waits")
    outcome = await spawn(bench, Gate(), "floods_too_much")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the handler asked for more than 1,024 things at once"
    gate.open.set()
    assert isinstance(await waiting, Succeeded)


async def test_whose_time_others_took_runs_again_alone(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    _, blocking = await beside(bench, "blocks_again_and_again", wall_time=5)
    late = await spawn(bench, Recorder(), "takes_turns", wall_time=0.5)
    assert isinstance(late, Failed)
    assert late.disturbed
    assert "others in its process kept it waiting" in late.reason
    assert isinstance(await spawn(bench, Recorder(), "takes_turns", concurrency=1, wall_time=5), Succeeded)
    blocking.cancel()


async def test_whose_time_is_its_own_is_late(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    _, waiting = await beside(bench, "waits")
    late = await spawn(bench, Gate(), "waits", wall_time=0.2)
    assert isinstance(late, Breached)
    assert late.limit == "wall_time"
    waiting.cancel()


async def test_those_who_come_and_go_lend_nobody_their_cpu_time(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    _, burning = await beside(bench, "burns", cpu_time=0.2)

    staying = deque([await beside(bench, "waits", cpu_time=0.2) for _ in range(2)])
    while not burning.done():
        staying.append(await beside(bench, "waits", cpu_time=0.2))
        gate, leaving = staying.popleft()
        gate.open.set()
        await leaving
    outcome = await burning
    assert isinstance(outcome, Failed)
    assert outcome.disturbed
    assert 0.2 < outcome.usage.cpu_time < 0.4, "those who are new have used nothing yet"
    for _, waiting in staying:
        waiting.cancel()
    assert "cpu_time" in outcome.reason
    alone = await spawn(bench, Recorder(), "burns", concurrency=1, cpu_time=0.2)
    assert isinstance(alone, Breached)
    assert alone.limit == "cpu_time"


async def test_who_speaks_for_nobody_again_and_again_ends(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    outcome = await spawn(bench, Recorder(), "speaks_for_nobody", cpu_time=3)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "it speaks for executions that are over"


async def test_who_waits_for_the_lock_of_another_is_not_blamed(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1, longest_turn=0.3)
    _, holding = await beside(bench, "holds_the_lock")
    waited = await spawn(bench, Recorder(), "wants_the_lock", record={"holder": True})
    assert isinstance(waited, Failed), waited
    assert waited.disturbed
    held = await holding
    assert isinstance(held, Failed)
    assert held.disturbed
    assert isinstance(await spawn(bench, Recorder(), "wants_the_lock", concurrency=1), Succeeded)


async def test_a_dead_child_is_looked_at_no_more(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await pool_of(APP, size=1)
    crews: list[Crew] = []
    take = Crew.take
    monkeypatch.setattr(Crew, "take", lambda crew: crews.append(crew) or take(crew))  # type: ignore[func-returns-value]
    broker, waiting = await beside(bench, "waits")
    os.kill(int(broker.messages[0]), signal.SIGKILL)
    assert isinstance(await waiting, Failed)
    assert crews[0].link.gone
    assert not crews[0].link.unread
    assert crews[0]._watch._timer.cancelled()


@pytest.mark.parametrize("isolation", ["standard", "strict"])
async def test_under_strict_isolation_tenants_never_share_a_process_at_once(
    pool_of: PoolOf, isolation: Any, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    try:
        bench = await pool_of(APP, hosting=Hosting(isolation))
    except IsolationUnavailable as error:
        pytest.skip(str(error))
    brokers, runs = [], []
    for tenant in ("a", "b", "a"):
        broker, running = await beside(bench, "waits", tenant=tenant, share=True)
        brokers.append(broker)
        runs.append(running)
    pids = [broker.messages[0] for broker in brokers]
    assert pids[0] == pids[2]
    assert (pids[0] == pids[1]) == (isolation == "standard")
    for broker in brokers:
        broker.open.set()
    assert all(isinstance(each, Succeeded) for each in await asyncio.gather(*runs))
