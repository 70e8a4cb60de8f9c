"""Handlers that misbehave: each ends as the right outcome, others go on, and the next execution is clean."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from circuit_script.errors import RequestRefused
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.governor import LimitExceeded
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, alive, until

pytestmark = pytest.mark.evasion

MB = 1024 * 1024

APP = """
import mmap, signal, socket, threading, ctypes, subprocess

kept = []

def handler(function):
    return trigger("Contact", ["afterInsert"])(function)

@handler
async def good(context):
    assert kept == [] and threading.active_count() == 1
    for record in context.new_records:
        async with context.record(record):
            await CircuitDB.update("Contact", {"id": record.id, "pid": os.getpid()})
            await asyncio.sleep(0.01)

@handler
async def spins(context):
    for record in context.new_records:
        while record.id == "2":
            pass

@handler
def spins_in_a_function(context):
    while True:
        pass

@handler
def spins_and_swallows(context):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

@handler
async def sleeps(context):
    log.info("begun")
    await asyncio.sleep(60)

@handler
def sleeps_in_a_function(context):
    time.sleep(60)

@handler
async def sleeps_and_swallows(context):
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

@handler
async def asks_and_swallows(context):
    while True:
        try:
            await CircuitDB.get("Contact", "1")
        except BaseException:
            pass

@handler
async def asks_again(context):
    for _ in range(3):
        try:
            await CircuitDB.get("Contact", "1")
        except BaseException as error:
            kept.append(type(error).__name__)
    if kept == ["LimitExceeded"] * 3:
        log.info("raised again")

@handler
def cleans_up(context):
    try:
        time.sleep(60)
    finally:
        log.info("cleaned up")

@handler
def grows_a_list(context):
    while True:
        kept.append([0] * 100_000)

@handler
def grows_bytes(context):
    data = bytearray()
    while True:
        data += bytes(10_000_000)

@handler
def takes_too_much_at_once(context):
    bytearray(10_000_000_000)

@handler
def handles_memory_error(context):
    for record in context.new_records:
        with context.record(record):
            if record.id == "2":
                bytearray(10_000_000_000)

@handler
def maps_shared(context):
    while True:
        kept.append(mmap.mmap(-1, 5_000_000))
        kept[-1].write(b"x" * 5_000_000)

@handler
def fills_memfds(context):
    while True:
        kept.append(os.memfd_create("big"))
        os.write(kept[-1], b"x" * 5_000_000)

@handler
def burns(context):
    while True:
        sum(range(1000))

@handler
def burns_below(context):
    subprocess.run([sys.executable, "-c", "while True: pass"])

@handler
def exits(context):
    for record in context.new_records:
        if record.id == "2":
            os._exit(3)

@handler
async def raises_system_exit(context):
    raise SystemExit("enough")

@handler
async def raises_system_exit_in_a_task(context):
    async def leave():
        sys.exit(4)
    await asyncio.create_task(leave())

@handler
def raises_interrupt(context):
    raise KeyboardInterrupt

@handler
def segfaults(context):
    ctypes.string_at(0)

@handler
def aborts(context):
    os.abort()

@handler
def kills_itself(context):
    os.kill(os.getpid(), signal.SIGKILL)

@handler
def forks(context):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    with open("forked", "w") as file:
        file.write(str(pid))

@handler
def forks_and_returns_twice(context):
    os.fork()

@handler
def forks_daemon(context):
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        with open("forked", "w") as file:
            file.write(str(pid))
        os._exit(0)
    os.wait()

@handler
def spawns(context):
    started = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with open("forked", "w") as file:
        file.write(str(started.pid))

@handler
async def forks_and_asks(context):
    if os.fork() == 0:
        await CircuitDB.get("Contact", "from the fork")
    os.wait()

@handler
def closes_everything(context):
    os.closerange(0, 1000)

@handler
def closes_everything_and_goes_on(context):
    os.closerange(0, 1000)
    for number in range(20):
        os.open("stolen%d" % number, os.O_CREAT | os.O_RDWR)
    time.sleep(60)

@handler
def writes_garbage(context):
    for link in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + link).startswith("socket:"):
                os.write(int(link), b"garbage" * 100)
        except OSError:
            pass
    time.sleep(60)

@handler
def claims_a_huge_frame(context):
    from circuit_script.execution.session import session
    session()._wire.send(bytearray(b"\\xff\\xff\\xff\\xff"))
    time.sleep(60)

@handler
def lies_about_its_errors(context):
    context.errors[77] = "there is no such record"

@handler
def prints_megabytes(context):
    for _ in range(200_000):
        print("x" * 100)
    os.write(1, b"y" * 10_000_000)
    print("z" * 30_000_000)

@handler
def starts_threads(context):
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

@handler
def starts_threads_that_spin(context):
    def spin():
        while True:
            pass
    for _ in range(3):
        threading.Thread(target=spin).start()

@handler
async def floods_with_requests(context):
    answers = await asyncio.gather(*[CircuitDB.get("Contact", [str(n)] * 20) for n in range(3000)])
    assert len(answers) == 3000

@handler
def leaks(context):
    kept.append(bytearray(60_000_000))
    log.info(len(kept))

@handler
def changes_a_global(context):
    kept.append(context.tenant)
    log.info(",".join(kept))

@handler
def shows_pid(context):
    log.info(os.getpid())
"""

THREE = [{"id": "1"}, {"id": "2"}, {"id": "3"}]


async def beside_good_ones(bench: Bench, handler: str, **settings: object) -> Outcome:
    """Run it while another tenant's executions go on in the other place; then see that the next one is clean."""
    running = asyncio.create_task(bench.run(handler, **settings))  # type: ignore[arg-type]  # limits by name
    others = 0
    while not running.done():
        assert isinstance(await bench.run("good", tenant="other"), Succeeded)
        others += 1
    assert others > 0
    broker = Recorder()
    after = await bench.run("good", records=THREE, broker=broker)
    assert after == Succeeded(broker.usage)
    assert len(broker.asked) == 3
    return running.result()


@pytest.mark.parametrize(
    "handler",
    [
        "spins",
        "spins_in_a_function",
        "spins_and_swallows",
        "sleeps",
        "sleeps_in_a_function",
        "sleeps_and_swallows",
        "asks_and_swallows",
    ],
)
async def test_a_handler_that_does_not_end_breaches_wall_time_and_is_killed(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, handler, records=THREE, wall_time=0.3)
    assert isinstance(outcome, Breached)
    assert (outcome.limit, outcome.ceiling) == ("wall_time", 0.3)
    assert 0.3 < outcome.usage.wall_time < 5, "it was ended: by itself it would have taken 60 s, or for ever"
    assert outcome.suspect == (1 if handler == "spins" else None)


async def test_a_handler_may_clean_up_in_the_moment_between_verdict_and_kill(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("cleans_up", wall_time=0.2, broker=broker)
    assert isinstance(outcome, Breached)
    assert broker.messages == ["cleaned up"]


@pytest.mark.parametrize("handler", ["grows_a_list", "grows_bytes", "maps_shared", "fills_memfds"])
async def test_a_handler_that_allocates_without_end_breaches_memory(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, handler, memory=64 * MB, wall_time=5)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "memory"
    assert 64 * MB <= outcome.used < 256 * MB


async def test_memory_that_is_refused_at_once_is_a_breach_unless_it_is_handled(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, "takes_too_much_at_once", memory=64 * MB)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "memory"
    handled = await bench.run("handles_memory_error", records=THREE, memory=64 * MB)
    assert isinstance(handled, Succeeded)
    assert handled.errors == {1: "MemoryError"}


@pytest.mark.parametrize("handler", ["burns", "burns_below"])
async def test_a_handler_that_burns_cpu_breaches_cpu_time(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, handler, cpu_time=0.2, wall_time=10)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "cpu_time"
    assert 0.2 < outcome.used < 0.5


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("exits", "the handler left its process with exit code 3"),
        ("raises_system_exit", "SystemExit: enough"),
        ("raises_system_exit_in_a_task", "SystemExit: 4"),
        ("raises_interrupt", "KeyboardInterrupt"),
        ("segfaults", "the handler's process was killed by SIGSEGV"),
        ("aborts", "the handler's process was killed by SIGABRT"),
        ("kills_itself", "the handler's process was killed by SIGKILL"),
        ("closes_everything", "the handler closed its connection to the platform"),
        ("closes_everything_and_goes_on", "the handler closed its connection to the platform"),
        ("writes_garbage", "the handler wrote garbage on its connection to the platform"),
        ("claims_a_huge_frame", "the handler wrote garbage on its connection to the platform"),
        ("lies_about_its_errors", "the handler wrote garbage on its connection to the platform"),
    ],
)
async def test_a_handler_that_leaves_or_breaks_its_process_fails_with_the_reason(
    pool_of: PoolOf, handler: str, reason: str
) -> None:
    bench = await pool_of(APP)
    began = time.monotonic()
    outcome = await beside_good_ones(bench, handler, records=THREE, wall_time=10)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith(reason)
    assert outcome.suspect == (1 if handler == "exits" else None)
    assert time.monotonic() - began < 9  # it did not wait for its limit
    if handler in ("segfaults", "aborts"):
        assert f"in {handler}" in outcome.detail


@pytest.mark.parametrize("handler", ["forks", "forks_daemon", "spawns"])
async def test_a_process_that_a_handler_leaves_behind_is_killed(
    pool_of: PoolOf, handler: str, tmp_path: object
) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, handler, wall_time=5)
    assert isinstance(outcome, Succeeded)
    with open(f"{tmp_path}/forked") as file:
        left = int(file.read())
    await until(lambda: not alive(left))


@pytest.mark.parametrize("handler", ["forks_and_returns_twice", "forks_and_asks"])
async def test_a_fork_of_a_handler_never_speaks_for_it(pool_of: PoolOf, handler: str) -> None:
    bench, broker, pids = await pool_of(APP), Recorder(), Recorder()
    await bench.run("shows_pid", broker=pids)
    assert await bench.run(handler, broker=broker, wall_time=5) == Succeeded(broker.usage)
    assert broker.asked == []
    await bench.run("shows_pid", broker=pids)
    assert pids.messages[0] != pids.messages[1]


async def test_printing_megabytes_neither_blocks_nor_floods(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("prints_megabytes", broker=broker, log_bytes=100_000, wall_time=10)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "log_bytes"
    assert 50_000 < sum(map(len, broker.messages)) < 100_000
    assert isinstance(await beside_good_ones(bench, "good"), Succeeded)


@pytest.mark.parametrize("handler", ["starts_threads", "starts_threads_that_spin"])
async def test_a_child_with_threads_left_is_replaced(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP)
    outcome = await beside_good_ones(bench, handler, wall_time=5)
    assert isinstance(outcome, Succeeded)
    await until(lambda: all(os.path.exists(f"/proc/{child.pid}/task/{child.pid}") for child in bench.pool.children))
    assert all(len(os.listdir(f"/proc/{child.pid}/task")) == 1 for child in bench.pool.children)


async def test_thousands_of_requests_at_once_are_all_answered(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    assert await bench.run("floods_with_requests", broker=broker) == Succeeded(broker.usage)
    assert len(broker.asked) == 3000


async def test_a_child_that_stays_large_is_replaced(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for _ in range(3):
        assert isinstance(await bench.run("leaks", broker=broker), Succeeded)
    assert broker.messages == ["1", "1", "1"]
    assert broker.usage.memory > 50 * MB


class Limiting(Recorder):
    async def request(self, verb: str, arguments: dict[str, object]) -> object:
        await super().request(verb, arguments)
        raise LimitExceeded("db_queries", 1, 0)


async def test_a_limit_that_the_broker_gives_is_the_verdict_whatever_the_handler_does_then(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Limiting()
    outcome = await bench.run("asks_again", broker=broker)
    assert isinstance(outcome, Breached)
    assert (outcome.limit, outcome.used, outcome.ceiling) == ("db_queries", 1, 0)
    assert len(broker.asked) == 1
    assert broker.messages == ["raised again"]
    began = time.monotonic()
    swallowed = await beside_good_ones(bench, "asks_and_swallows", broker=Limiting(), wall_time=10)
    assert isinstance(swallowed, Breached)
    assert swallowed.limit == "db_queries"
    assert time.monotonic() - began < 9  # it did not wait for its limit


class Faulty(Recorder):
    def log(self, line: dict[str, object]) -> None:
        raise OSError("no space left")

    async def request(self, verb: str, arguments: dict[str, object]) -> object:
        if arguments["object"] == "Contact":
            raise ZeroDivisionError
        raise RequestRefused("never")


async def test_a_broker_that_fails_is_a_failed_execution_and_a_log_that_fails_is_not(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    assert isinstance(await bench.run("shows_pid", broker=Faulty()), Succeeded)
    outcome = await bench.run("floods_with_requests", broker=Faulty())
    assert isinstance(outcome, Failed)
    assert "the platform could not answer: ZeroDivisionError" in outcome.reason


async def test_globals_do_not_leak_from_tenant_to_tenant(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for tenant in ("a", "a", "b", "a", "b", "c"):
        assert isinstance(await bench.run("changes_a_global", tenant=tenant, broker=broker), Succeeded)
    assert broker.messages == ["a", "a,a", "b", "a,a,a", "b,b", "c"]


async def test_handlers_that_promise_it_share_a_child(pool_of: PoolOf) -> None:
    bench, shared, alone = await pool_of(APP), Recorder(), Recorder()
    for tenant in ("a", "b", "c"):
        await bench.run("shows_pid", tenant=tenant, share=True, broker=shared)
        await bench.run("shows_pid", tenant=tenant, broker=alone)
    assert len(set(shared.messages)) == 1
    assert len(set(shared.messages + alone.messages)) == 4


async def test_another_ceiling_of_memory_takes_another_child(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for memory in (64, 96, 64):
        await bench.run("shows_pid", memory=memory * MB, broker=broker)
    first, second, third = broker.messages
    assert first == third != second


async def test_a_killed_child_fails_its_execution_only_and_an_idle_one_nothing(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    running = asyncio.create_task(bench.run("sleeps", broker=broker))
    await until(lambda: broker.messages == ["begun"])
    os.kill(next(child.pid for child in bench.pool.children if child.busy), signal.SIGKILL)
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the handler's process was killed by SIGKILL"
    assert isinstance(await bench.run("good"), Succeeded)
    for child in bench.pool.children:
        os.kill(child.pid, signal.SIGKILL)
    assert isinstance(await bench.run("good"), Succeeded)


async def test_a_killed_zygote_takes_its_children_along_and_is_replaced(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    assert isinstance(await bench.run("good"), Succeeded)
    running = asyncio.create_task(bench.run("sleeps", broker=broker))
    await until(lambda: broker.messages == ["begun"])
    zygote, children = bench.pool.zygote_pid, [child.pid for child in bench.pool.children]
    os.kill(zygote, signal.SIGKILL)
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the process that hosts the handlers ended"
    await until(lambda: not any(map(alive, children)))
    await until(lambda: bench.pool.zygote_pid not in (0, zygote))
    assert bench.pool.idle("acme", False)
    assert isinstance(await bench.run("good"), Succeeded)


async def test_work_that_meets_a_dying_zygote_waits_for_the_next(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    processes = [bench.pool.zygote_pid, *(child.pid for child in bench.pool.children)]
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    while any(map(alive, processes)):
        pass  # without a pause: the pool must not have heard of it when the work comes
    outcomes = await asyncio.gather(*[bench.run("good", tenant=str(n)) for n in range(4)])
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)


async def test_the_app_is_not_taken_again_when_it_changed_on_disk(pool_of: PoolOf, tmp_path: object) -> None:
    bench = await pool_of(APP)
    with open(f"{tmp_path}/app.py") as file:
        before = file.read()
    with open(f"{tmp_path}/app.py", "w") as file:
        file.write("x = 1")
    old = bench.pool.zygote_pid
    os.kill(old, signal.SIGKILL)
    await until(lambda: bench.pool.zygote_pid == 0)
    assert not bench.pool.idle("acme", False)
    with open(f"{tmp_path}/app.py", "w") as file:
        file.write(before)
    assert isinstance(await bench.run("good"), Succeeded)
