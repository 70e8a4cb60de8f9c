"""How children come to be: forked, or spawned for apps with threads; and what an app does once in each."""

from __future__ import annotations

import asyncio
import json

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Breached, Failed, Succeeded
from tests.integration.execution.conftest import PoolOf, Recorder

pytestmark = pytest.mark.evasion

SPAWN = Hosting("standard", "spawn")

THREADED = """
import queue, threading

asked, answers = queue.Queue(), queue.Queue()

def serve():
    while True:
        answers.put(asked.get() + 1)

server = threading.Thread(target=serve, daemon=True, name="server")
server.start()

@trigger("Contact", ["afterInsert"])
def asks_its_thread(context):
    asked.put(1)
    log.info(answers.get(timeout=3))

@trigger("Contact", ["afterInsert"])
def shows(context):
    log.info(os.getpid())

@trigger("Contact", ["afterInsert"])
def clings(context):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""

STARTS = """
import itertools
from circuit_script import on_child_start

state = {"calls": 0, "loaded": None}

@on_child_start
def load():
    until = time.process_time() + 0.15
    while time.process_time() < until:
        pass
    state["calls"] += 1
    state["loaded"] = bytearray(os.urandom(40_000_000))

@on_child_start
async def connect():
    await asyncio.sleep(0)
    state["pid"] = os.getpid()

@trigger("Contact", ["afterInsert"])
def uses(context):
    log.info(f"{state['calls']} {len(state['loaded'])} {state['pid'] == os.getpid()} {os.getpid()}")
"""


async def test_an_app_with_threads_is_told_what_to_do_and_works_when_spawned(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(THREADED), Recorder()
    manifest = bench.pool._manifest
    assert manifest is not None
    (warning,) = manifest.warnings
    assert "the thread 'server'" in warning
    assert 'start = "spawn" under [worker]' in warning
    assert "@on_child_start" in warning
    assert isinstance(await bench.run("asks_its_thread"), Failed)  # the reason for the warning
    bench = await pool_of(THREADED, hosting=SPAWN)
    assert bench.pool._manifest is not None
    assert bench.pool._manifest.warnings == ()
    assert isinstance(await bench.run("asks_its_thread", broker=broker), Succeeded)
    assert broker.messages == ["2"]


async def test_a_spawned_child_is_used_again_limited_and_replaced_as_a_forked_one(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(THREADED, hosting=SPAWN), Recorder()
    for tenant in ("a", "a", "b"):
        assert isinstance(await bench.run("shows", tenant=tenant, broker=broker), Succeeded)
    first, second, third = broker.messages
    assert first == second != third
    outcome = await bench.run("clings", tenant="a", wall_time=0.2)
    assert isinstance(outcome, Breached)
    assert isinstance(await bench.run("shows", tenant="a", broker=broker), Succeeded)
    assert broker.messages[-1] not in (first, third)


async def test_what_starts_in_each_child_does_so_once_and_counts_for_no_execution(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(STARTS), Recorder()
    for tenant in ("a", "a", "b"):
        limits = {"wall_time": 0.14, "cpu_time": 0.1, "memory": 20_000_000}
        assert isinstance(await bench.run("uses", tenant=tenant, broker=broker, **limits), Succeeded)
    said = [message.split() for message in broker.messages]
    assert [each[:3] for each in said] == [["1", "40000000", "True"]] * 3
    assert said[0][3] == said[1][3] != said[2][3]


async def test_an_error_there_fails_each_execution_with_its_line_and_no_child_is_made_for_it(pool_of: PoolOf) -> None:
    bench = await pool_of("""
from circuit_script import on_child_start

@on_child_start
def load():
    raise FileNotFoundError("model.bin")

@trigger("Contact", ["afterInsert"])
def uses(context):
    log.info("it ran")
""")
    pids = set()
    for _ in range(3):
        broker = Recorder()
        outcome = await bench.run("uses", broker=broker)
        assert isinstance(outcome, Failed)
        assert outcome.reason == "app.py:8: @on_child_start load: FileNotFoundError: model.bin"
        assert "raise FileNotFoundError" in outcome.detail
        assert not outcome.blameless
        assert broker.messages == []
        pids |= {child.pid for child in bench.pool.children if child.tenant == "acme"}
    assert len(pids) == 1, "children were made again and again"


async def test_an_app_that_no_longer_imports_in_a_spawned_child_says_so(pool_of: PoolOf) -> None:
    bench = await pool_of(
        """
if os.path.exists("spoilt"):
    raise RuntimeError("the second import fails")
open("spoilt", "w").close()

@trigger("Contact", ["afterInsert"])
def uses(context):
    pass
""",
        hosting=SPAWN,
    )
    outcome = await asyncio.wait_for(bench.run("uses"), 15)
    assert isinstance(outcome, Failed)
    assert "does not import in a new process" in outcome.reason
    assert "app.py:5: RuntimeError: the second import fails" in outcome.reason


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("@on_child_start\ndef load(model): pass", "it is called without arguments"),
        ("on_child_start(len)", "goes above a function"),
    ],
)
async def test_what_cannot_be_called_there_is_refused_with_its_line(pool_of: PoolOf, source: str, wrong: str) -> None:
    with pytest.raises(AppError, match=wrong) as refused:
        await pool_of(f"from circuit_script import on_child_start\n{source}")
    assert "app.py:4" in refused.value.detail or "app.py:5" in refused.value.detail


DIRTY = {
    "another folder": ("os.chdir('/usr')", True),
    "a folder that is gone": ("import tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)", True),
    "a mask": ("os.umask(0)", True),
    "a signal handler": ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", True),
    "a blocked signal": ("import signal; signal.pthread_sigmask(0, [10])", True),
    "a timer, which is stopped": ("import signal; signal.setitimer(signal.ITIMER_REAL, 30)", False),
    "a trace": ("sys.settrace(lambda *_: None)", True),
    "a limit": ("import resource; resource.setrlimit(7, (100, resource.getrlimit(7)[1]))", True),
    "a standard stream": ("import io; sys.stdout = io.StringIO()", True),
    "a default timeout": ("import socket; socket.setdefaulttimeout(1)", True),
    "a thread": ("import threading; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", True),
    "a process": ("import subprocess; subprocess.run(['true'])", True),
    "much memory": ("sys.kept = bytearray(os.urandom(50_000_000))", True),
    "a global": ("sys.kept = 1", False),
    "a variable of the environment": ("os.environ['X'] = '1'", False),
    "a patched module": ("import json; json.loads = len", False),
    "nothing": ("1 + 1", False),
}

EVALUATES = """
@trigger("Contact", ["afterInsert"])
def evaluates(context):
    log.info(os.getpid())
    exec(context.new_records[0].id, {"os": os, "sys": sys, "time": time})
"""


async def test_a_child_is_replaced_when_its_process_is_not_as_it_was(pool_of: PoolOf) -> None:
    bench, replaced = await pool_of(EVALUATES), {}
    for tenant, (code, _) in DIRTY.items():
        broker = Recorder()
        for line in (code, "pass"):
            outcome = await bench.run("evaluates", records=[{"id": line}], tenant=tenant, broker=broker)
            assert isinstance(outcome, Succeeded), (tenant, json.dumps(str(outcome)))
        replaced[tenant] = len(set(broker.messages)) == 2
    assert replaced == {name: expected for name, (_, expected) in DIRTY.items()}
