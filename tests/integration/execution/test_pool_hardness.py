"""Handlers that attack the platform by accident: its loop, its memory, its patience, and whoever runs next."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from circuit_script.execution.host import child_link
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.execution.procfs import parent_of
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, alive, until

pytestmark = pytest.mark.evasion

MB = 1024 * 1024

APP = """
import ctypes, signal, socket, subprocess, threading
from concurrent.futures import ThreadPoolExecutor

kept = []

def handler(function):
    return trigger("Contact", ["afterInsert"])(function)

@handler
async def good(context):
    await asyncio.sleep(0)

@handler
def who(context):
    log.info(os.getpid())

@handler
def truncates(context):
    for number in range(3, 20):
        try:
            os.ftruncate(number, 0)
        except OSError:
            pass
    os._exit(1)

@handler
def closes_the_loop(context):
    asyncio.get_event_loop().close()

@handler
def runs_its_own_loop(context):
    log.info(os.getpid())
    asyncio.run(asyncio.sleep(0))

@handler
def needs_a_loop(context):
    log.info(os.getpid())
    asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))

@handler
async def leaves_a_timer(context):
    loop = asyncio.get_running_loop()
    mine = context.new_records[0].id
    loop.call_later(0.05, lambda: loop.create_task(CircuitDB.update("Contact", {"id": mine})))

@handler
async def leaves_a_callback_that_leaves_one(context):
    loop = asyncio.get_running_loop()
    mine = context.new_records[0].id
    def again():
        loop.call_soon(again)
    again()

@handler
async def leaves_a_reader(context):
    loop = asyncio.get_running_loop()
    mine = context.new_records[0].id
    kept.extend(socket.socketpair())
    kept[1].send(b"x")
    loop.call_later(0.02, print)
    loop.add_reader(kept[0], lambda: loop.create_task(CircuitDB.update("Contact", {"id": mine})))

@handler
async def waits(context):
    log.info("begun")
    await asyncio.sleep(0.2)

@handler
def logs_a_huge_context(context):
    for _ in range(3):
        log.info("got", body={"rows": [{"n": n, "x": "y" * 10} for n in range(50_000)]})

@handler
def logs_much_through_context(context):
    for _ in range(1000):
        log.info("x", body={"b": "y" * 1000})

@handler
def sends_one_huge_line(context):
    from circuit_script.execution.protocol import LogLine, pack, packed
    from circuit_script.execution.session import session
    rows = [{"n": n, "x": "y" * 10} for n in range(600_000)]
    session()._wire.send(pack(LogLine(packed({"message": "x", "context": {"rows": rows}}))))

@handler
def floods_with_unasked_words(context):
    from circuit_script.execution.protocol import LogLine, pack, packed
    from circuit_script.execution.session import session
    frames = pack(LogLine(packed({}))) * 20_000
    while True:
        session()._wire.send(frames)

@handler
def lies_about_its_record(context):
    context._word[0] = 10**9
    os._exit(3)

@handler
def uses_os_system(context):
    os.system("sleep 61 >/dev/null 2>&1 & echo $! > forked")

@handler
def uses_system_of_c(context):
    ctypes.CDLL(None).system(b"sleep 62 >/dev/null 2>&1 & echo $! > forked")

@handler
def leaves_an_orphan_and_goes_on(context):
    os.system("setsid sleep 63 >/dev/null 2>&1 & echo $! > forked")
    time.sleep(0.5)

@handler
def runs_many_short_processes(context):
    while True:
        subprocess.run(["sh", "-c", "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done"])

@handler
def starts_many_processes(context):
    for _ in range(80):
        kept.append(subprocess.Popen(["sleep", "64"]))
    time.sleep(10)

@handler
def maps_in_threads(context):
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda _: time.sleep(0.05), range(32)))

@handler
def keeps_a_file(context):
    log.info(os.getpid())
    kept.append(open("/dev/null"))
"""


class Ping:
    """How much CPU the loop used at most before it came round: the load of the machine does not count."""

    worst = 0.0

    async def during(self, run: Awaitable[Outcome]) -> Outcome:
        async def beat() -> None:
            while True:
                before = time.thread_time()
                await asyncio.sleep(0.002)
                self.worst = max(self.worst, time.thread_time() - before)

        beating = asyncio.create_task(beat())
        try:
            return await run
        finally:
            beating.cancel()


async def test_a_child_cannot_take_shared_memory_away(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("truncates")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the handler left its process with exit code 1"
    assert isinstance(await bench.run("good"), Succeeded)


async def test_a_handler_that_closes_the_loop_spoils_its_own_child_only(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    await bench.run("closes_the_loop")
    for _ in range(3):
        assert isinstance(await bench.run("good"), Succeeded)


async def test_a_handler_may_run_a_loop_of_its_own_and_the_next_one_has_ours(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    assert isinstance(await bench.run("runs_its_own_loop", broker=broker), Succeeded)
    assert isinstance(await bench.run("needs_a_loop", broker=broker), Succeeded)
    assert broker.messages[0] == broker.messages[1]


@pytest.mark.parametrize("handler", ["leaves_a_timer", "leaves_a_callback_that_leaves_one", "leaves_a_reader"])
async def test_what_a_handler_leaves_in_the_loop_does_not_happen_in_the_next_execution(
    pool_of: PoolOf, handler: str
) -> None:
    bench, broker, pids = await pool_of(APP), Recorder(), Recorder()
    await bench.run("who", tenant="a", share=True, broker=pids)
    await bench.run(handler, records=[{"id": "of a"}], tenant="a", share=True)
    assert isinstance(await bench.run("waits", tenant="b", share=True, broker=broker), Succeeded)
    assert broker.asked == []
    await bench.run("who", tenant="b", share=True, broker=pids)
    assert pids.messages[0] != pids.messages[1]


async def test_a_handler_that_the_platform_does_not_find_does_not_keep_its_child(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    assert isinstance(await bench.run("good"), Succeeded)
    assert isinstance(await bench.run("nobody"), Failed)
    await until(lambda: all(child.tenant is None for child in bench.pool.children))


async def test_children_that_say_nothing_are_replaced_and_it_is_told(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child_link, "PATIENCE", 0.2)
    hook = 'os.register_at_fork(after_in_child=lambda: time.sleep(60) if os.path.exists("block") else None)\n'
    bench = await pool_of('open("block", "w").close()\n' + hook + APP, size=1)
    running = asyncio.create_task(bench.run("good"))
    await until(lambda: any(record.levelno == logging.CRITICAL for record in caplog.records))
    outcome = await running
    assert isinstance(outcome, Failed)
    assert "os.register_at_fork" in outcome.reason
    zygote = bench.pool.zygote_pid
    os.unlink(f"{os.readlink(f'/proc/{zygote}/cwd')}/block")
    await until(lambda: bench.pool.children)
    assert isinstance(await bench.run("good"), Succeeded)
    assert bench.pool.zygote_pid == zygote


async def test_a_zygote_that_does_not_fork_is_replaced(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await pool_of(APP, size=1)
    monkeypatch.setattr(child_link, "PATIENCE", 0.3)
    zygote = bench.pool.zygote_pid
    os.kill(zygote, signal.SIGSTOP)
    for tenant in range(4):
        assert isinstance(await bench.run("good", tenant=str(tenant)), Succeeded)
    assert bench.pool.zygote_pid != zygote


async def test_who_is_ended_by_the_platform_is_blameless_and_who_ends_himself_is_not(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    running = asyncio.create_task(bench.run("waits", broker=broker))
    await until(lambda: broker.messages == ["begun"])
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.blameless
    own = await bench.run("truncates")
    assert isinstance(own, Failed)
    assert not own.blameless
    running = asyncio.create_task(bench.run("waits", broker=broker))
    await until(lambda: broker.messages == ["begun"] * 2)
    await bench.pool.stop()
    outcome = await running
    assert isinstance(outcome, Failed)
    assert outcome.blameless


async def test_a_huge_context_is_left_out_of_the_log(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    assert isinstance(await bench.run("logs_a_huge_context", broker=broker), Succeeded)
    assert broker.messages == ["got"] * 3
    assert "bytes was left out" in broker.lines[0]["context"]["circuit_script"]


async def test_what_comes_through_context_counts_as_log(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("logs_much_through_context", broker=broker, log_bytes=50_000)
    assert isinstance(outcome, Breached)
    assert (outcome.limit, outcome.usage.log_bytes) == ("log_bytes", outcome.used)
    assert 40 < len(broker.lines) < 50


@pytest.mark.parametrize("handler", ["sends_one_huge_line", "floods_with_unasked_words"])
async def test_one_child_does_not_hold_the_loop_of_the_worker(pool_of: PoolOf, handler: str) -> None:
    bench, broker, ping = await pool_of(APP), Recorder(), Ping()
    limits: dict[str, Any] = {"wall_time": 5, "memory": 1024 * MB}
    outcome = await ping.during(bench.run(handler, broker=broker, **limits))
    assert isinstance(outcome, Breached)
    assert outcome.limit == "log_bytes"
    assert ping.worst < 0.1


async def test_a_suspect_is_a_record_of_the_batch(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("lies_about_its_record")
    assert isinstance(outcome, Failed)
    assert outcome.suspect is None


@pytest.mark.parametrize("handler", ["uses_os_system", "uses_system_of_c"])
async def test_what_a_shell_left_is_killed_and_the_child_not_used_again(
    pool_of: PoolOf, handler: str, tmp_path: object
) -> None:
    bench, pids = await pool_of(APP), Recorder()
    await bench.run("who", broker=pids)
    assert isinstance(await bench.run(handler), Succeeded)
    await bench.run("who", broker=pids)
    assert pids.messages[0] != pids.messages[1]
    with open(f"{tmp_path}/forked") as file:
        left = int(file.read())
    await until(lambda: not alive(left))


async def test_orphans_stay_below_their_child_and_end_with_it(pool_of: PoolOf, tmp_path: object) -> None:
    bench = await pool_of(APP)
    running = asyncio.create_task(bench.run("leaves_an_orphan_and_goes_on"))
    path = f"{tmp_path}/forked"
    await until(lambda: os.path.exists(path) and os.path.getsize(path))
    with open(path) as file:
        left = int(file.read())
    child = next(each.pid for each in bench.pool.children if each.busy)
    await until(lambda: parent_of(left) == child)
    await running
    await until(lambda: not alive(left))


async def test_the_cpu_of_ended_processes_counts(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("runs_many_short_processes", cpu_time=0.5, wall_time=8)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "cpu_time"
    assert 0.5 < outcome.used < 1.5


async def test_too_many_processes_are_a_breach(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("starts_many_processes", wall_time=8)
    assert isinstance(outcome, Breached)
    assert (outcome.limit, outcome.ceiling) == ("processes", 64)


async def test_thirty_two_threads_fit_under_the_default_ceiling_of_memory(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    assert isinstance(await bench.run("maps_in_threads"), Succeeded)


async def test_a_child_that_keeps_descriptors_is_replaced(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    for _ in range(60):
        assert isinstance(await bench.run("keeps_a_file", broker=broker), Succeeded)
    assert max(map(broker.messages.count, broker.messages)) == 24


async def test_a_child_is_replaced_after_many_runs(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_link, "MAX_RUNS", 5)
    bench, broker = await pool_of(APP), Recorder()
    for _ in range(10):
        await bench.run("who", broker=broker)
    assert [broker.messages.count(pid) for pid in dict.fromkeys(broker.messages)] == [5, 5]


@pytest.mark.parametrize("limits", [{"memory": 2**63}, {"wall_time": 1e300}, {"memory": 65.5e6}])
async def test_absurd_limits_do_not_break_the_platform(
    pool_of: PoolOf, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.governor.Limits.__post_init__", lambda self: None)
    bench = await pool_of(APP)
    assert isinstance(await bench.run("good", **limits), Succeeded)


async def test_limits_that_the_kernel_does_not_take_fail_the_batch_and_no_more(
    pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.governor.Limits.__post_init__", lambda self: None)
    bench = await pool_of(APP)
    outcome = await bench.run("good", memory=float("nan"))
    assert isinstance(outcome, Failed)
    assert isinstance(await bench.run("good"), Succeeded)


async def test_an_app_whose_code_changed_on_disk_is_not_taken_again(
    pool_of: PoolOf, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    bench: Bench = await pool_of(APP)
    with open(f"{tmp_path}/app.py", "a") as file:
        file.write("\nadded = 1\n")
    os.kill(bench.pool.zygote_pid, signal.SIGKILL)
    await until(lambda: "changed on disk" in caplog.text)
    assert not bench.pool.idle("acme", False)
    with open(f"{tmp_path}/app.py", "w") as file:
        file.write("from circuit_script import *\nimport asyncio, os, sys, time\n" + APP)
    assert isinstance(await bench.run("good"), Succeeded)
