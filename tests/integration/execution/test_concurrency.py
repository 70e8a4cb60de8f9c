"""Executions that share a child wait at once, each with what is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from circuit_script.errors import RequestRefused
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.governor import LimitExceeded
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, until

pytestmark = pytest.mark.evasion

APP = """
waiting = 0

@trigger("Contact", ["afterInsert"], concurrency=4)
async def meets(context):
    '''Ends once as many wait as are to come.'''
    global waiting
    waiting += 1
    while waiting < context.new_records[0]["come"]:
        await asyncio.sleep(0.001)
    log.info(os.getpid())

@trigger("Contact", ["afterInsert"], concurrency=4)
async def asks(context):
    for record in context.new_records:
        async with context.record(record):
            print(f"begin {record.id}", end="")
            found = await CircuitDB.get("Contact", [record.id])
            print(" found", found[0].id, flush=False)
            await asyncio.gather(*[one(record, n) for n in range(3)])
            if record.get("bad"):
                raise ValueError(f"bad {record.id}")
    log.info(f"used {context.limits.db_queries.used}")

async def one(record, n):
    await CircuitDB.update("Contact", {"id": record.id, "n": n})
    await asyncio.to_thread(run, http.get("http://x/" + record.id))
    print(f"{record.id} {n}")

@trigger("Contact", ["afterInsert"], concurrency=4)
async def overdraws(context):
    log.info(os.getpid())
    for _ in range(100):
        await http.get("http://x/" + context.new_records[0].id)

@trigger("Contact", ["afterInsert"], concurrency=4)
async def waits(context):
    log.info(os.getpid())
    await http.get("http://x/wait")

@trigger("Contact", ["afterInsert"], concurrency=4)
async def sleeps(context):
    log.info(os.getpid())
    await asyncio.sleep(60)

@trigger("Contact", ["afterInsert"], concurrency=4)
async def swallows(context):
    log.info(os.getpid())
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

@trigger("Contact", ["afterInsert"], concurrency=4)
async def leaves(context):
    log.info(os.getpid())
    kind = context.new_records[0]["kind"]
    if kind == "task":
        async def stays():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        asyncio.create_task(stays())
        await asyncio.sleep(0)
    elif kind == "timer":
        asyncio.get_running_loop().call_later(60, print)
    elif kind == "thread":
        import threading
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    elif kind == "process":
        import subprocess
        subprocess.run(["true"])
    elif kind == "cancelled":
        asyncio.create_task(asyncio.sleep(60))

@trigger("Contact", ["afterInsert"], concurrency=4)
async def in_a_thread(context):
    log.info(os.getpid())
    await asyncio.to_thread(time.sleep, 1)

@trigger("Contact", ["afterInsert"], concurrency=4)
async def floods(context):
    log.info(os.getpid())
    await asyncio.gather(*[http.get("http://x/wait") for _ in range(300)])
"""


class Gate(Recorder):
    """A broker whose callouts wait until it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        if verb == "http":
            await self.open.wait()
        return await super().request(verb, arguments)


def spawn(bench: Bench, handler: str, broker: Any, **more: Any) -> asyncio.Task[Outcome]:
    return asyncio.create_task(bench.run(handler, broker=broker, concurrency=4, **more))


async def test_executions_of_one_tenant_wait_in_one_child_at_once(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    brokers = [Recorder() for _ in range(4)]
    runs = [spawn(bench, "meets", each, records=[{"id": "1", "come": 4}]) for each in brokers]
    assert all(isinstance(each, Succeeded) for each in await asyncio.gather(*runs))
    assert len({tuple(each.messages) for each in brokers}) == 1
    assert bench.pool.busy == 0
    again = Recorder()
    assert isinstance(await spawn(bench, "meets", again, records=[{"id": "1", "come": 5}]), Succeeded)
    assert again.messages == brokers[0].messages, "a clean child waits for more"


async def test_more_than_fit_take_another_child(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    gates = [Gate() for _ in range(5)]
    runs = [spawn(bench, "waits", gate) for gate in gates]
    await until(lambda: all(gate.lines for gate in gates))
    pids = [gate.messages[0] for gate in gates]
    assert len(set(pids[:4])) == 1
    assert pids[4] not in pids[:4]
    assert bench.pool.busy == 5
    assert not bench.pool.idle("acme", False)
    gates[0].open.set()
    await runs[0]
    late = Gate()
    runs.append(spawn(bench, "waits", late))
    await until(lambda: late.lines)
    assert late.messages[0] == pids[0], "a free seat is taken"
    for gate in [*gates, late]:
        gate.open.set()
    assert all(isinstance(each, Succeeded) for each in await asyncio.gather(*runs))
    assert bench.pool.busy == 0
    assert bench.pool.idle("acme", False)


async def test_tenants_and_handlers_are_never_mixed(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=4)
    gates = {(tenant, handler): Gate() for tenant in ("one", "two") for handler in ("waits", "overdraws")}
    runs = [spawn(bench, handler, gate, tenant=tenant) for (tenant, handler), gate in gates.items()]
    await until(lambda: all(gate.lines for gate in gates.values()))
    assert len({gate.messages[0] for gate in gates.values()}) == 4
    for gate in gates.values():
        gate.open.set()
    await asyncio.gather(*runs)


async def test_tenants_share_a_child_if_the_author_has_promised_it(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    gates = [Gate(), Gate()]
    runs = [spawn(bench, "waits", gate, tenant=f"t{n}", share=True) for n, gate in enumerate(gates)]
    await until(lambda: all(gate.lines for gate in gates))
    assert gates[0].messages == gates[1].messages
    for gate in gates:
        gate.open.set()
    await asyncio.gather(*runs)


async def test_each_has_its_own_requests_log_prints_records_and_errors(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=2)
    brokers = [Recorder() for _ in range(24)]
    runs = [
        spawn(bench, "asks", each, records=[{"id": f"{n}a"}, {"id": f"{n}b", "bad": n % 2}], callouts=10 + n)
        for n, each in enumerate(brokers)
    ]
    for n, (outcome, broker) in enumerate(zip(await asyncio.gather(*runs), brokers, strict=True)):
        assert isinstance(outcome, Succeeded)
        assert outcome.errors == ({1: f"ValueError: bad {n}b"} if n % 2 else {})
        assert outcome.usage is broker.usage
        asked = [arguments for _, arguments in broker.asked]
        assert len(asked) == 2 * (1 + 3 + 3)
        for arguments in asked:
            ids = arguments.get("ids") or [row["id"] for row in arguments.get("rows", ())]
            ids = ids or [arguments["url"].rpartition("/")[2]]
            assert ids == [f"{n}{'ab'[arguments['record']]}" if "record" in arguments else ids[0]]
            assert ids[0][:-1] == str(n)
        printed = [line for line in broker.lines if "traceback" not in (line.get("context") or {})]
        told = sorted(line["message"] for line in printed)
        assert told == sorted([
            *(f"begin {n}{x} found {n}{x}" for x in "ab"), *(f"{n}{x} {k}" for x in "ab" for k in range(3)), "used 0",
        ])  # fmt: skip
        for line in printed:
            if line["message"].startswith("begin"):
                assert line["record"] == "ab".index(line["message"][-1])


async def test_a_limit_of_one_ends_only_that_one(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)

    class Meter(Recorder):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            self.usage.callouts += 1
            if self.usage.callouts > 7:
                raise LimitExceeded("callouts", 8, 7)
            return await super().request(verb, arguments)

    gates = [Gate() for _ in range(3)]
    neighbours = [spawn(bench, "overdraws", gate) for gate in gates]
    await until(lambda: all(gate.lines for gate in gates))
    outcome = await spawn(bench, "overdraws", Meter())
    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"
    assert outcome.where.startswith("app.py:")
    for gate in gates:
        gate.open.set()
    for neighbour in await asyncio.gather(*neighbours):
        assert isinstance(neighbour, Succeeded)


async def test_the_wall_time_of_one_ends_only_that_one(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    gate, late = Gate(), Recorder()
    neighbour = spawn(bench, "waits", gate)
    await until(lambda: gate.lines)
    outcome = await asyncio.gather(spawn(bench, "waits", Gate(), wall_time=0.2))
    assert isinstance(outcome[0], Breached)
    assert outcome[0].limit == "wall_time"
    assert not neighbour.done()
    gate.open.set()
    assert isinstance(await neighbour, Succeeded)
    assert isinstance(await bench.run("meets", broker=late, concurrency=4, records=[{"id": "1", "come": 1}]), Succeeded)


async def test_who_does_not_end_at_its_limit_takes_its_process_with_it(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    one, other = Recorder(), Recorder()
    neighbour = spawn(bench, "swallows", one)
    await until(lambda: one.lines)
    outcome = await spawn(bench, "swallows", other, wall_time=0.2)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "wall_time"
    disturbed = await neighbour
    assert isinstance(disturbed, Failed)
    assert disturbed.disturbed
    assert not disturbed.blameless
    assert "runs again" in disturbed.reason


async def test_the_cancellation_of_one_ends_only_that_one(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    gates = [Gate(), Gate()]
    runs = [spawn(bench, "waits", gate) for gate in gates]
    await until(lambda: all(gate.lines for gate in gates))
    runs[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await runs[0]
    await until(lambda: bench.pool.busy == 1)
    gates[1].open.set()
    assert isinstance(await runs[1], Succeeded)
    again = Recorder()
    assert isinstance(await bench.run("waits", broker=again, concurrency=4), Succeeded)
    assert again.messages == gates[1].messages, "the child is as it was"


@pytest.mark.parametrize("handler", ["in_a_thread", "floods"])
async def test_what_a_cancelled_one_has_under_way_disturbs_nobody(pool_of: PoolOf, handler: str) -> None:
    """A thread cannot be ended, and of a flood of requests the parent hears no more until they are answered."""
    bench = await pool_of(APP, size=1)
    gates = [Gate(), Gate(), Gate()]
    gone = spawn(bench, handler, gates[0])
    stays = spawn(bench, handler, gates[1])
    await until(lambda: all(gate.lines for gate in gates[:2]))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gates[1].open.set()
    assert isinstance(await stays, Succeeded)
    gates[2].open.set()
    assert isinstance(await spawn(bench, handler, gates[2]), Succeeded)
    if handler == "in_a_thread":
        assert gates[2].messages != gates[1].messages, "its thread still works there"


async def test_who_swallows_its_cancellation_takes_its_process_with_it(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    brokers = [Recorder(), Recorder()]
    runs = [spawn(bench, "swallows", each) for each in brokers]
    await until(lambda: all(each.lines for each in brokers))
    runs[0].cancel()
    disturbed = await runs[1]
    assert isinstance(disturbed, Failed)
    assert disturbed.disturbed


@pytest.mark.parametrize("kind", ["task", "timer", "thread", "process"])
async def test_a_child_in_which_something_is_left_takes_nobody_new(pool_of: PoolOf, kind: str) -> None:
    bench = await pool_of(APP, size=2)
    first, second, third = Recorder(), Gate(), Recorder()
    neighbour = spawn(bench, "leaves", second, records=[{"id": "1", "kind": "none"}])
    await neighbour
    outcome = await spawn(bench, "leaves", first, records=[{"id": "1", "kind": kind}])
    assert isinstance(outcome, Succeeded)
    await spawn(bench, "leaves", third, records=[{"id": "1", "kind": "none"}])
    assert second.messages == first.messages != third.messages


async def test_what_ends_when_it_is_cancelled_leaves_a_clean_child(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    brokers = [Recorder() for _ in range(3)]
    for each in brokers:
        assert isinstance(await spawn(bench, "leaves", each, records=[{"id": "1", "kind": "cancelled"}]), Succeeded)
    assert len({tuple(each.messages) for each in brokers}) == 1


async def test_what_cannot_be_sent_gives_its_seat_back(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    outcome = await bench.run("meets", concurrency=4, records=[{"id": object()}])
    assert isinstance(outcome, Failed)
    assert outcome.suspect == 0
    await until(lambda: bench.pool.busy == 0)
    assert isinstance(await bench.run("meets", concurrency=4, records=[{"id": "1", "come": 1}]), Succeeded)


async def test_the_pool_stops_with_crews_in_it(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    gates = [Gate() for _ in range(6)]
    runs = [spawn(bench, "waits", gate) for gate in gates]
    await until(lambda: sum(bool(gate.lines) for gate in gates) == 4)
    await asyncio.wait_for(bench.pool.stop(), 5)
    for outcome in await asyncio.gather(*runs):
        assert isinstance(outcome, Failed)
        assert outcome.blameless
        assert not outcome.disturbed


async def test_a_request_after_the_end_is_refused_by_the_parent_too(pool_of: PoolOf) -> None:
    """Requests of neighbours are answered each by its own broker, in whatever order."""
    bench = await pool_of(APP, size=1)

    class Refuses(Recorder):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            raise RequestRefused("not you")

    gate = Gate()
    neighbour = spawn(bench, "waits", gate)
    await until(lambda: gate.lines)
    outcome = await spawn(bench, "waits", Refuses())
    assert isinstance(outcome, Failed)
    assert "not you" in outcome.reason
    gate.open.set()
    assert isinstance(await neighbour, Succeeded)
