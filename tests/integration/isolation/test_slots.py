"""Who gets a folder for temporary files that another had is alone in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from circuit_script.execution.isolation import confine, root
from circuit_script.execution.outcome import Failed
from tests.integration.execution.conftest import Recorder, alive, until
from tests.integration.isolation.conftest import StrictOf, code_in

pytestmark = [
    pytest.mark.evasion,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs a private root"),
]

LEAVES = """
import ctypes
LIBC = ctypes.CDLL(None)

@trigger("Contact", ["afterInsert"])
def leaves(context):
    log.info(os.environ["TMPDIR"])
    reader, writer = os.pipe()
    me = os.getpid()
    for _ in range(8):  # each below the one before, in a session of its own
        if LIBC.fork():
            break
        LIBC.setsid()
        os.write(writer, b"%d " % os.getpid())
    while os.getpid() != me:
        with open(os.environ["TMPDIR"] + "/mine", "a") as file:
            file.write("x")
    said = b""
    while said.count(b" ") < 8:
        said += os.read(reader, 4096)
    log.info(said.decode())
    os._exit(1)
"""


async def test_a_slot_is_renewed_when_nobody_is_left_of_its_child(strict_of: StrictOf) -> None:
    bench = await strict_of(LEAVES)
    for _ in range(3):
        broker = Recorder()
        outcome = await bench.run("leaves", broker=broker)
        assert isinstance(outcome, Failed), outcome
        own, below = broker.messages
        slot = Path(f"/proc/{bench.pool.zygote_pid}/root{os.path.dirname(own)}")
        await until(lambda slot=slot, own=own: not (slot / os.path.basename(own)).exists(), 30)
        assert not [pid for pid in map(int, below.split()) if alive(pid)]


HOPS = """
import ctypes
LIBC = ctypes.CDLL(None)

@trigger("Contact", ["afterInsert"])
def hops(context):
    reader, writer = os.pipe()
    if LIBC.fork() == 0:
        for hop in range(20):  # each in a session of its own, and without the one before
            LIBC.setsid()
            os.write(writer, b"%d " % os.getpid())
            if hop == 19:
                time.sleep(600)
            if LIBC.fork():
                os._exit(0)
    os.close(writer)
    said = os.read(reader, 4096)
    while said.count(b" ") < 20:
        said += os.read(reader, 4096)
    log.info(said.decode())
"""


async def test_who_moves_to_a_new_session_and_process_over_and_over_ends_with_its_execution(
    strict_of: StrictOf,
) -> None:
    bench = await strict_of(HOPS)
    broker = Recorder()
    await bench.run("hops", broker=broker)
    (hopped,) = broker.messages
    assert len(hopped.split()) == 20
    await until(lambda: not any(map(alive, map(int, hopped.split()))), 30)
    slots = Path(f"/proc/{bench.pool.zygote_pid}/root{root.SLOTS}")
    await until(lambda: not any(os.listdir(own) for slot in slots.iterdir() for own in slot.iterdir()), 30)


async def test_a_folder_of_temporary_files_cannot_be_guessed(strict_of: StrictOf) -> None:
    bench = await strict_of()
    theirs = eval(await code_in(bench, "open(os.environ['TMPDIR'] + '/report', 'w').close(); os.environ['TMPDIR']"))
    slot, name = os.path.split(theirs)
    assert len(name) == 32
    assert os.path.dirname(slot) == root.SLOTS
    code = f"exec('try: n = os.listdir(\"{slot}\")\\nexcept OSError as e: n = type(e).__name__'); n"
    assert await code_in(bench, code, tenant="b") == "'PermissionError'"
    assert await code_in(bench, f"os.path.exists({slot + '/report'!r})", tenant="b") == "False"
    assert name not in await code_in(bench, "open('/proc/self/mountinfo').read()", tenant="b")


SURVIVES = """
import json, os, pathlib, sys
from circuit_script.execution.isolation import confine

confined, slots = confine.zygote("strict", pathlib.Path(sys.argv[1]), "", os.getppid())
confined.seal()
slot = slots.take()
news, tell = os.pipe()
found, report = os.pipe()

def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"

def first():
    own = os.environ["TMPDIR"]
    os.write(report, b"!")
    theirs = os.read(news, 4096).decode()
    above = os.path.dirname(theirs)
    said = {
        "a file of theirs": tried(lambda: open(theirs + "/second").read()),
        "a new file of theirs": tried(lambda: open(theirs + "/first", "w")),
        "a file beside": tried(lambda: open(above + "/first", "w")),
        "their names": tried(lambda: os.listdir(theirs)),
        "the old place again": tried(lambda: os.makedirs(own)),
    }
    os.write(report, json.dumps(said).encode())

def second():
    own = os.environ["TMPDIR"]
    before = os.listdir(own)
    open(own + "/second", "w").close()
    os.write(tell, own.encode())
    said = json.loads(os.read(found, 4096))
    print(json.dumps([before, os.listdir(own), said]), flush=True)

def child(life):
    if os.fork() == 0:
        try:
            confined.child(slot)
            life()
        finally:
            os._exit(0)

child(first)
assert os.read(found, 1) == b"!"
slots.give_back(slot)
child(second)
os.wait(), os.wait()
"""


def test_who_survives_in_a_slot_that_is_given_out_again_neither_reads_nor_writes_there(tmp_path: Path) -> None:
    if missing := confine.lacks():
        pytest.skip(str(missing))
    (tmp_path / "app.py").write_text("")
    done = subprocess.run([sys.executable, "-c", SURVIVES, str(tmp_path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after, said = json.loads(done.stdout)
    assert before == []
    assert after == ["second"]
    assert set(said.values()) == {"PermissionError"}
