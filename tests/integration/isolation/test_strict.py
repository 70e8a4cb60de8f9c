"""Strict isolation: what an ordinary app does still works, and where it cannot be had the start is refused."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest

from circuit_script.errors import IsolationUnavailable
from circuit_script.execution.isolation import confine, landlock
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Breached, Succeeded
from tests.integration.execution.conftest import PoolOf, Recorder, alive, until
from tests.integration.isolation.conftest import STRICT, StrictOf, code_in

pytestmark = pytest.mark.evasion

USUAL = {
    "a lazy import": ("import sqlite3; sqlite3.connect(':memory:').execute('select 1').fetchone()", "(1,)"),
    "a temporary file": ("import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'abc')", "3"),
    "a temporary folder": ("import tempfile; os.path.isdir(tempfile.mkdtemp())", "True"),
    "time zones": ("import zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin').key", "'Europe/Berlin'"),
    "certificates": ("import ssl; ssl.create_default_context().cert_store_stats()['x509_ca'] >= 0", "True"),
    "randomness": ("len(os.urandom(8)), len(__import__('secrets').token_bytes(8))", "(8, 8)"),
    "threads": ("from concurrent.futures import ThreadPoolExecutor as P; list(P(2).map(len, ['ab']))", "[2]"),
    "a subprocess": ("import subprocess; subprocess.run(['true']).returncode", "0"),
    "a process with a pipe": (
        "import multiprocessing as m; c = m.get_context('fork'); a, b = c.Pipe(); "
        "p = c.Process(target=b.send, args=(7,)); p.start(); a.recv()",
        "7",
    ),
    "a loop of its own": ("import asyncio; asyncio.run(asyncio.sleep(0, 5))", "5"),
    "more than a pair of sockets takes at once": (
        "import asyncio, socket; async def f():\n a, b = socket.socketpair()\n"
        " reader, kept = await asyncio.open_connection(sock=a)\n"
        " _, writer = await asyncio.open_connection(sock=b)\n"
        " writer.writelines([bytes(500_000)] * 2)\n writer.close()\n"
        " return len(await reader.read()); asyncio.run(f())",
        "1000000",
    ),
    "the number of processors": ("os.cpu_count() >= 1", "True"),
    "its own /proc": ("open('/proc/self/status').readline()[:5]", "'Name:'"),
    "a file of the app": ("len(open('app.py').read()) > 10", "True"),
    "the name of its user": ("import getpass; os.environ.setdefault('USER', 'x'); bool(getpass.getuser())", "True"),
    "a copy with its mode and times": (
        "import shutil, tempfile; os.path.getsize(shutil.copy2('app.py', tempfile.gettempdir())) > 10",
        "True",
    ),
    "a copy of a tree": (
        "import shutil, tempfile; d = tempfile.mkdtemp(); open(d + '/f', 'w').close(); "
        "os.listdir(shutil.copytree(d, d + '-2'))",
        "['f']",
    ),
    "an archive": (
        "import shutil, tempfile; d = tempfile.mkdtemp(); open(d + '/f', 'w').close(); "
        "a = shutil.make_archive(d, 'gztar', d); shutil.unpack_archive(a, d + '-2'); os.listdir(d + '-2')",
        "['f']",
    ),
    "a temporary folder that goes": (
        "import tempfile; d = tempfile.TemporaryDirectory(); d.cleanup(); os.path.exists(d.name)",
        "False",
    ),
    "its home": ("import pathlib; (pathlib.Path.home() / 'cache').write_text('x')", "1"),
}

SAYS = """
import signal

@trigger("Contact", ["afterInsert"])
async def says_and_is_killed(context):
    for number in range(50):
        log.info(str(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_apps_usually_do_works(strict_of: StrictOf) -> None:
    bench = await strict_of()
    found = {name: await code_in(bench, code) for name, (code, _) in USUAL.items()}
    assert found == {name: expected for name, (_, expected) in USUAL.items()}
    if find_spec("numpy") is not None:
        assert await code_in(bench, "import numpy; int(numpy.arange(4).sum())") == "6"
    # What does not: a semaphore between processes, and so multiprocessing.Pool.
    code = "import multiprocessing as m; exec('try: m.Lock()\\nexcept OSError as e: n = type(e).__name__'); n"
    assert await code_in(bench, code) in ("'FileNotFoundError'", "'PermissionError'")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give children another uid")
async def test_children_have_a_uid_that_nobody_else_has(strict_of: StrictOf, tmp_path: Path) -> None:
    bench = await strict_of()
    uid, gid, groups = eval(await code_in(bench, "os.getresuid(), os.getresgid(), os.getgroups()"))
    assert uid == (confine.uid_for(tmp_path),) * 3 == gid
    assert groups == []
    with pytest.raises(KeyError):
        pwd.getpwuid(uid[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a private root")
async def test_an_interpreter_and_an_app_in_closed_folders_are_found(strict_of: StrictOf, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    bench = await strict_of()
    seen = eval(
        await code_in(bench, "os.listdir('.'), sys.prefix, [p for p in ('/root', '/home') if os.path.exists(p)]")
    )
    assert seen[0] == ["app.py"]
    assert seen[1] == sys.prefix
    assert "/home" not in seen[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a private root")
async def test_a_file_that_the_uid_cannot_read_is_named_with_the_cure(pool_of: PoolOf, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("x = 1")
    (tmp_path / "secret.py").chmod(0o600)
    with pytest.raises(IsolationUnavailable, match=r"cannot read .*secret\.py.* chmod -R o\+rX"):
        await pool_of("import secret", hosting=STRICT)


async def test_an_old_kernel_is_refused_with_the_cure(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 4)
    found = confine.lacks()
    assert found is not None
    assert "Landlock ABI 4, and 6 is needed" in found.what
    assert 'isolation = "standard"' in found.cure


async def test_the_import_of_the_app_is_fenced_in_as_well(strict_of: StrictOf) -> None:
    source = """
import socket
try:
    socket.socket()
    found = "a socket"
except PermissionError:
    found = "none"
@trigger("Contact", ["afterInsert"])
def says(context):
    log.info(found)
"""
    bench, broker = await strict_of(source), Recorder()
    assert isinstance(await bench.run("says", broker=broker), Succeeded)
    assert broker.messages == ["none"]


async def test_temporary_files_of_a_tenant_are_gone_for_the_next(strict_of: StrictOf) -> None:
    bench = await strict_of()
    left = "import tempfile, pathlib; open(tempfile.gettempdir() + '/left', 'w').write('of a')"
    assert await code_in(bench, left, tenant="a") == "4"
    found = "import tempfile; (os.listdir(tempfile.gettempdir()), os.listdir(tempfile.gettempdir()) == [])[0]"
    for tenant in ("b", "c", "d", "a"):
        expected = "['left']" if tenant == "a" else "[]"
        assert await code_in(bench, found, tenant=tenant) == expected


async def test_limits_hold_under_another_uid(strict_of: StrictOf) -> None:
    bench = await strict_of("""
@trigger("Contact", ["afterInsert"])
def grows(context):
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1_000_000)))
@trigger("Contact", ["afterInsert"])
def takes_too_much_at_once(context):
    bytearray(10_000_000_000)
""")
    for handler in ("grows", "takes_too_much_at_once"):
        outcome = await bench.run(handler, memory=64 * 1024 * 1024)
        assert isinstance(outcome, Breached)
        assert outcome.limit == "memory"


@pytest.mark.parametrize("start", ["fork", "spawn"])
async def test_lines_that_wait_in_shared_memory_are_found(strict_of: StrictOf, start: Literal["fork", "spawn"]) -> None:
    bench, broker = await strict_of(SAYS, hosting=Hosting("strict", start)), Recorder()
    await bench.run("says_and_is_killed", broker=broker)
    assert broker.messages == [str(number) for number in range(50)]


async def test_spawned_children_are_fenced_in_as_well(strict_of: StrictOf) -> None:
    bench = await strict_of(hosting=Hosting("strict", "spawn"))
    code = "import socket; exec('try: socket.socket()\\nexcept OSError as e: n = type(e).__name__'); n"
    assert await code_in(bench, code) == "'PermissionError'"


WORKER = """
import asyncio, os, pathlib, sys
from circuit_script.clock import uuid7
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Work
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.procfs import descendants_of
from circuit_script.governor import Limits, Usage

class Broker:
    usage = Usage()
    def log(self, line):
        print(*descendants_of(os.getpid()), flush=True)

async def main():
    hide_from_children()
    folder = pathlib.Path(sys.argv[1])
    pool = Pool(app_folder=folder, app="app", size=2, on_change=lambda: None, hosting=Hosting(sys.argv[2]))
    await pool.start()
    work = Work(uuid7(), "clings", "t", "Contact", "afterInsert", [{"id": "1"}], [None], [{}], Limits())
    print(await pool.run(work, Broker()))
    await pool.stop()

asyncio.run(main())
"""

CLINGS = """
import ctypes, time
from circuit_script import trigger

@trigger("Contact", ["afterInsert"])
def clings(context):
    library = ctypes.CDLL(None)
    library.prctl(1, 0)
    if library.fork() == 0:  # Python does not hear of it
        library.setsid()
        library.sleep(600)
    print("here")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("mode", ["strict", "standard"])
async def test_what_will_not_hear_of_it_dies_with_a_killed_worker(
    strict_of: StrictOf, tmp_path: Path, mode: str
) -> None:
    await strict_of()  # skips where it cannot be had
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "app.py").write_text(CLINGS)
    command = [sys.executable, "-c", WORKER, str(folder), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        below = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(below) >= 3
        os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: not any(map(alive, below)))


@pytest.mark.skipif(os.geteuid() != 0, reason="it becomes another user; the other tests are run as one already")
@pytest.mark.parametrize(("mode", "allowed"), [("strict", "denied"), ("standard", "done")])
async def test_a_worker_that_is_not_root_hides_the_settings_in_both_modes(
    strict_of: StrictOf, tmp_path: Path, mode: str, allowed: str
) -> None:
    """Run as nobody, in a mount namespace where nobody can reach the interpreter: Landlock and a filter, or a user
    namespace, do what root's private root does."""
    await strict_of()  # skips where it cannot be had
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path), mode]
    (tmp_path / "app.py").write_text(PEEKS)
    (tmp_path / "circuit.toml").write_text("# secret")
    (tmp_path / ".circuit").mkdir()
    (tmp_path / ".circuit" / "postgres.password").write_text("secret")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(line.split("=") for line in done.stdout.split())
    assert said == {
        "uid": "65534",
        "settings": "denied",
        "password": "denied",
        "socket": allowed,
        "write": allowed,
        "temporary": "done",
        "kill": "denied",
        "mode": allowed,
        "times": allowed,
    }


PEEKS = """
import os, socket, tempfile
from circuit_script import log, trigger

def tried(attempt):
    try:
        attempt()
    except OSError:
        return "denied"
    return "done"

def changed(change, *to):
    before = os.stat("/run/circuit/1").st_ctime_ns  # its uid's, and not its own
    tried(lambda: change("/run/circuit/1", *to))
    return "denied" if os.stat("/run/circuit/1").st_ctime_ns == before else "done"

@trigger("Contact", ["afterInsert"])
def peeks(context):
    log.info(f"uid={os.getuid()}")
    log.info("settings=" + tried(lambda: open("circuit.toml").read()))
    log.info("password=" + tried(lambda: open(".circuit/postgres.password").read()))
    log.info("socket=" + tried(socket.socket))
    log.info("write=" + tried(lambda: open("/run/circuit/1/theirs", "w")))
    log.info("temporary=" + tried(lambda: tempfile.TemporaryFile()))
    log.info("kill=" + tried(lambda: os.kill(os.getppid(), 0)))
    log.info("mode=" + changed(os.chmod, 0o777))
    log.info("times=" + changed(os.utime, (0, 0)))
"""

AS_NOBODY = """
import os, pathlib, sys
from circuit_script.execution.isolation import kernel, paths, root
folder = pathlib.Path(sys.argv[1])
import asyncio, tempfile
from circuit_script.clock import uuid7
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Work
from circuit_script.execution.host.pool import Pool
from circuit_script.governor import Limits, Usage
paths.STATE = paths.FILE = ""  # its settings are there: they must not be read all the same
root.enter(folder, 65534, 65534)
kernel.mount("tmp", "/tmp", "tmpfs", 0, "mode=1777") if not str(folder).startswith("/tmp") else None
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
os.environ["TMPDIR"] = "/run/circuit/0"

class Broker:
    usage = Usage()
    def log(self, line):
        print(line["message"])

async def main():
    pool = Pool(app_folder=folder, app="app", size=1, on_change=lambda: None, hosting=Hosting(sys.argv[2]))
    await pool.start()
    work = Work(uuid7(), "peeks", "t", "Contact", "afterInsert", [{"id": "1"}], [None], [{}], Limits())
    outcome = await pool.run(work, Broker())
    await pool.stop()
    assert type(outcome).__name__ == "Succeeded", outcome

asyncio.run(main())
assert os.listdir("/run/circuit/0") == [], "the scratch folder is left"
"""
