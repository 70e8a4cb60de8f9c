"""When the worker is killed, nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.integration.execution.conftest import alive, until

APP = """
import os, time
from circuit_script import trigger

@trigger("Contact", ["afterInsert"])
def forks_and_stays(context):
    if os.fork():
        print("forked")
    time.sleep(60)
"""

WORKER = """
import asyncio, pathlib, sys
from circuit_script.clock import uuid7
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.outcome import Work
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.procfs import descendants_of
from circuit_script.governor import Limits, Usage
import os

class Broker:
    usage = Usage()
    def log(self, line):
        print(*descendants_of(os.getpid()), flush=True)

async def main():
    hide_from_children()
    pool = Pool(app_folder=pathlib.Path(sys.argv[1]), app="app", size=2, on_change=lambda: None)
    await pool.start()
    work = Work(uuid7(), "forks_and_stays", "t", "Contact", "afterInsert", [{"id": "1"}], [None], [{}], Limits())
    await pool.run(work, Broker())

asyncio.run(main())
"""


async def test_kill_of_the_worker_ends_zygote_children_and_their_forks(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    script = textwrap.dedent(WORKER)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        below = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(below) >= 3  # the zygote, the child, its fork
        assert all(map(alive, below))
        os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: not any(map(alive, below)))
