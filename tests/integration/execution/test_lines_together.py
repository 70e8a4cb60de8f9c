"""Log lines that travel together: none is lost, doubled or out of order, however the child ends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from tests.integration.execution.conftest import Bench, PoolOf, Recorder, until

pytestmark = pytest.mark.evasion

ENDS = ("exits", "is_killed", "crashes", "hangs", "hangs_in_c", "eats_memory", "raises", "leaves")

APP = """
import ctypes, random, signal, threading
from circuit_script.execution.protocol import *
from circuit_script.execution.session import session

def handler(function):
    return trigger("Contact", ["afterInsert"])(function)

def beside(function):
    return trigger("Contact", ["afterInsert"], concurrency=4)(function)

def end(how):
    match how:
        case "exits":
            os._exit(3)
        case "is_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crashes":
            ctypes.string_at(0)
        case "hangs":
            while True:
                pass
        case "hangs_in_c":
            ctypes.PyDLL(None).sleep(60)
        case "eats_memory":
            kept = [bytes(50_000_000) for _ in range(100)]
        case "raises":
            raise ValueError("no")
        case "leaves":
            sys.exit(1)

def say(record):
    for number in range(record["n"]):
        log.info(str(number), text="x" * record.get("size", 0))

@handler
async def says(context):
    await asyncio.sleep(0)
    say(context.new_records[0])
    end(context.new_records[0].get("how"))

@beside
async def says_beside(context):
    await asyncio.sleep(0)
    say(context.new_records[0])
    end(context.new_records[0].get("how"))

@handler
def says_plainly(context):
    say(context.new_records[0])
    time.sleep(0.4)

@beside
async def says_for_ever(context):
    import mmap
    with open("said", "r+b") as file:
        said = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
    chance = random.Random(context.new_records[0]["seed"])
    while True:
        for _ in range(chance.choice([1, 3, 100])):
            log.info(str(said[0]), text="x" * chance.choice([0, 10, 3000]))
            said[0] += 1
        if chance.random() < 0.2:
            await CircuitDB.query("Contact")
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003]))

@handler
async def says_and_waits(context):
    say(context.new_records[0])
    await asyncio.sleep(0.4)

@handler
async def says_in_a_thread(context):
    await asyncio.to_thread(say, context.new_records[0])
    time.sleep(0.4)

@handler
def says_in_run_and_stands(context):
    async def inner():
        say(context.new_records[0])
    run(inner())
    time.sleep(0.4)

@handler
async def asks(context):
    for number in range(20):
        log.info("a")
        log.info("b")
        await CircuitDB.query("Contact")
        log.info("c")

@handler
async def forks(context):
    log.info("before")
    log.info("before too")
    if (pid := os.fork()) == 0:
        log.info("never")
        await asyncio.sleep(0.01)
        os._exit(0)
    os.waitpid(pid, 0)
    log.info("after")

@handler
async def forks_in_c(context):
    log.info("before")
    log.info("before too")
    if (pid := ctypes.CDLL(None).fork()) == 0:
        log.info("never")
        await asyncio.sleep(0.01)
        os._exit(0)
    os.waitpid(pid, 0)
    log.info("after")

@handler
async def writes_nonsense(context):
    kind = context.new_records[0]["kind"]
    chance = random.Random(kind)
    stash = session()._wire.stash
    sent, room = stash._words[SENT], stash._room
    frames = {
        "garbage": chance.randbytes(len(room)),
        "a huge frame": b"\\xff\\xff\\xff\\xff" + chance.randbytes(100),
        "half a frame": bytes(pack(LogLine(packed({"message": "x"}))))[:-3],
        "no dict": bytes(pack(LogLine(packed([1, 2])))),
        "no line": bytes(pack(LogLine(packed({"message": 5, "level": []})))),
        "a result": bytes(pack(Result("returned"))),
        "another's line": bytes(pack(LogLine(packed({"message": "x"}), 10**9))) * 20,
        "deep nesting": b"\\xff\\x1f\\0\\0\\x93\\x04" + b"\\x91" * 8000,
        "much": bytes(pack(LogLine(packed({"message": "x"})))) * 200,
    }.get(kind, b"")
    room[: min(len(frames), len(room))] = frames[: len(room)]
    stash._words[WAITING] = min(len(frames), len(room))
    match kind:
        case "a low offset":
            stash._words[SENT], stash._words[WAITING] = -(2**63), 2**63 - 1
        case "a high offset":
            stash._words[SENT], stash._words[WAITING] = 2**63 - 1, 2**63 - 1
        case "a negative size":
            stash._words[WAITING] = -1
        case "a wrong size":
            stash._words[WAITING] = 10**9
    os._exit(3)

@handler
async def leaves_lines_for_the_next(context):
    stash = session()._wire.stash
    frame = pack(LogLine(packed({"message": "of another"})))
    stash._room[: len(frame)] = frame
    stash._words[WAITING] = len(frame)

@handler
async def ends_at_once(context):
    os._exit(3)
"""


async def said(bench: Bench, handler: str, record: dict[str, Any], **more: Any) -> tuple[list[str], Outcome]:
    broker = Recorder()
    outcome = await bench.run(handler, records=[{"id": "1", **record}], broker=broker, **more)
    return broker.messages, outcome


def counted(size: int) -> list[str]:
    return [str(number) for number in range(size)]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("lines", [1, 3, 500])
@pytest.mark.parametrize("handler", ["says", "says_beside"])
async def test_however_a_child_ends_its_lines_arrive_once_and_in_order(
    pool_of: PoolOf, how: str, lines: int, handler: str
) -> None:
    bench = await pool_of(APP, size=1)
    limits: dict[str, Any] = {"wall_time": 0.5, "memory": 100_000_000}
    concurrency = 4 if handler == "says_beside" else 1
    heard, outcome = await said(bench, handler, {"n": lines, "how": how}, concurrency=concurrency, **limits)
    assert heard == counted(lines)
    assert not isinstance(outcome, Succeeded)
    heard, outcome = await said(bench, handler, {"n": 2, "how": ""}, concurrency=concurrency)
    assert (heard, isinstance(outcome, Succeeded)) == (counted(2), True)


@pytest.mark.parametrize("seed", range(30))
async def test_a_child_that_is_killed_at_any_moment_loses_no_line(pool_of: PoolOf, tmp_path: Path, seed: int) -> None:
    (tmp_path / "said").write_bytes(bytes(8))
    bench = await pool_of(APP, size=1)
    running = asyncio.create_task(said(bench, "says_for_ever", {"seed": seed}, concurrency=4, log_bytes=10**9))
    chance = random.Random(seed)
    await until(lambda: (tmp_path / "said").read_bytes() != bytes(8))
    await asyncio.sleep(chance.random() / 20)
    for child in bench.pool.children:
        os.kill(child.pid, signal.SIGKILL)
    heard, outcome = await running
    assert isinstance(outcome, Failed)
    (counted_by_it,) = struct.unpack("q", (tmp_path / "said").read_bytes())
    assert heard == counted(len(heard))
    assert len(heard) - counted_by_it in (0, 1)


async def test_a_worker_that_was_busy_meanwhile_hears_all_of_a_child_that_is_gone(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    await said(bench, "says", {"n": 1, "how": ""})
    for _ in range(5):
        running = asyncio.create_task(said(bench, "says", {"n": 3000, "how": "exits"}))
        await until(lambda: any(child.busy for child in bench.pool.children))
        time.sleep(0.2)  # noqa: ASYNC251 - it keeps the worker from hearing anything
        assert (await running)[0] == counted(3000)


async def test_children_that_are_spawned_keep_their_lines_too(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1, hosting=Hosting(start="spawn"))
    assert (await said(bench, "says", {"n": 5, "how": "is_killed"}))[0] == counted(5)


async def test_a_child_that_another_ends_loses_no_line_of_either(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    runs = [
        said(bench, "says_beside", {"n": size, "how": "is_killed" if size == 7 else ""}, concurrency=4)
        for size in (3, 5, 7)
    ]
    for size, (heard, _) in zip((3, 5, 7), await asyncio.gather(*runs), strict=True):
        assert heard == counted(size)


async def test_executions_of_one_child_keep_their_lines_apart(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    runs = [said(bench, "says_beside", {"n": size, "how": ""}, concurrency=4) for size in range(1, 60)]
    for size, (heard, outcome) in enumerate(await asyncio.gather(*runs), 1):
        assert isinstance(outcome, Succeeded)
        assert heard == counted(size)


@pytest.mark.parametrize("lines", [1000, 10_000])
async def test_many_lines_of_one_turn_arrive(pool_of: PoolOf, lines: int) -> None:
    bench = await pool_of(APP, size=1)
    heard, outcome = await said(bench, "says", {"n": lines, "how": ""}, log_bytes=10_000_000)
    assert isinstance(outcome, Succeeded)
    assert heard == counted(lines)


async def test_lines_of_any_size_keep_their_order(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    for size in (0, 1000, 4000, 9000, 70_000):
        heard, _ = await said(bench, "says", {"n": 20, "size": size, "how": "exits"}, log_bytes=10_000_000)
        assert heard == counted(20)


async def test_lines_come_before_the_request_that_follows_them(pool_of: PoolOf) -> None:
    class Ordered(Recorder):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            self.lines.append({"message": verb})
            return await super().request(verb, arguments)

    bench, broker = await pool_of(APP, size=1), Ordered()
    assert isinstance(await bench.run("asks", broker=broker), Succeeded)
    assert broker.messages == ["a", "b", "query", "c"] * 20


@pytest.mark.parametrize(
    ("handler", "lines"),
    [("says_plainly", 5), ("says_and_waits", 1), ("says_and_waits", 5), ("says_in_a_thread", 5),
     ("says_in_run_and_stands", 5)],
)  # fmt: skip
async def test_lines_arrive_while_the_handler_goes_on(pool_of: PoolOf, handler: str, lines: int) -> None:
    bench, broker = await pool_of(APP, size=1), Recorder()
    running = asyncio.create_task(bench.run(handler, records=[{"id": "1", "n": lines}], broker=broker))
    started = time.monotonic()
    await until(lambda: broker.messages == counted(lines))
    assert time.monotonic() - started < 0.35
    assert not running.done()
    assert isinstance(await running, Succeeded)
    assert broker.messages == counted(lines)


@pytest.mark.parametrize("how", ["", "exits", "hangs"])
@pytest.mark.parametrize("handler", ["says", "says_beside"])
async def test_too_many_bytes_of_lines_are_still_a_breach(pool_of: PoolOf, how: str, handler: str) -> None:
    bench = await pool_of(APP, size=1)
    concurrency = 4 if handler == "says_beside" else 1
    heard, outcome = await said(
        bench, handler, {"n": 50, "how": how}, log_bytes=640, wall_time=0.5, concurrency=concurrency
    )
    assert isinstance(outcome, Breached)
    assert outcome.limit == ("wall_time" if how == "hangs" else "log_bytes")  # its last lines are found at its end
    assert len(heard) <= 10
    assert heard == counted(len(heard))


@pytest.mark.parametrize("handler", ["forks", "forks_in_c"])
async def test_a_process_that_a_handler_forks_says_nothing_and_doubles_nothing(pool_of: PoolOf, handler: str) -> None:
    bench = await pool_of(APP, size=1)
    heard, _ = await said(bench, handler, {})
    assert heard == ["before", "before too", "after"]


NONSENSE = (
    "garbage", "a huge frame", "half a frame", "no dict", "no line", "a result", "another's line", "deep nesting",
    "much", "a low offset", "a high offset", "a negative size", "a wrong size",
)  # fmt: skip


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_in_shared_memory_harms_nobody(
    pool_of: PoolOf, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await pool_of(APP, size=1)
    heard, outcome = await said(bench, "writes_nonsense", {"kind": kind}, log_bytes=6400)
    if kind == "much":
        assert isinstance(outcome, Breached)
        assert len(heard) == 100
    else:
        assert isinstance(outcome, Failed)
        assert outcome.reason == "the handler left its process with exit code 3"
    assert (await said(bench, "says", {"n": 2, "how": ""}))[0] == counted(2)
    assert not [record for record in caplog.records if record.exc_info]


async def test_lines_of_an_older_run_are_not_of_the_next(pool_of: PoolOf) -> None:
    bench = await pool_of(APP, size=1)
    assert (await said(bench, "leaves_lines_for_the_next", {}))[0] == []
    assert (await said(bench, "ends_at_once", {}))[0] == []
