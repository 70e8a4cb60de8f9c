from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from circuit_script.execution import procfs

MB = 1024 * 1024


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process that has taken 40 MB and 0.1 s of CPU, and has one child and one more thread."""
    script = (
        "import os, subprocess, threading, time\n"
        "held = bytearray(40_000_000); memfd = os.memfd_create('x'); os.write(memfd, bytes(9_000_000))\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "while time.process_time() < 0.1: pass\n"
        "print('ready', child.pid, flush=True); input()\n"
        "child.kill()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate("\n")


def test_a_process_is_measured(busy: subprocess.Popen[str]) -> None:
    assert busy.stdout is not None
    child = int(busy.stdout.readline().split()[1])
    files = procfs.ProcessFiles(busy.pid)
    extent = files.extent()
    assert extent.threads == 2
    assert extent.parent
    assert extent.resident > 39 * MB
    assert extent.data > 39 * MB
    assert procfs.memory_of(busy.pid) > extent.resident + 8 * MB
    assert 0.1 <= procfs.cpu_time(busy.pid) < 5
    assert procfs.children_of(busy.pid) == procfs._children_by_search(busy.pid) == [child]
    assert child in procfs.descendants_of(os.getpid())
    files.close()


def test_what_a_thread_has_forked_is_below_its_process() -> None:
    script = (
        "import subprocess, threading, time\n"
        "def breed(): print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)\n"
        "threading.Thread(target=breed, daemon=True).start(); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert procfs.children_of(process.pid) == [child]
        finally:
            os.kill(child, signal.SIGKILL)
            process.communicate("\n")


def test_a_process_that_is_gone_measures_nothing() -> None:
    process = subprocess.Popen(["true"])
    files = procfs.ProcessFiles(process.pid)
    process.wait()
    with pytest.raises(OSError, match="No such process"):
        files.extent()
    files.close()
    assert procfs.cpu_time(process.pid) == 0
    assert procfs.memory_of(process.pid) == 0
    assert procfs.children_of(process.pid) == []
    with pytest.raises(OSError, match="No such file"):
        procfs.ProcessFiles(process.pid)
