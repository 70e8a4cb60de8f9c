"""What is left when a zygote is killed at the worst moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from circuit_script.execution.isolation import landlock
from tests.integration.execution.conftest import alive, until

STOPS = """
import os, signal, time
from circuit_script.execution import hardening
from circuit_script.execution.isolation import landlock, orphans

hardening.drop_privileges()
assert landlock.scope_signals() and orphans._bounded(os.getppid())
undertaker = orphans.outlive(os.getpid(), os.getppid())
while os.getsid(undertaker) != undertaker:
    time.sleep(0.001)
if (left := os.fork()) == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
print(undertaker, left, flush=True)
os.kill(-1, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(landlock.abi() < landlock.OLDEST, reason="needs Landlock to keep signals in")
async def test_nothing_stays_stopped_when_a_zygote_is_killed_while_all_below_it_are() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPS], stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        below = [int(pid) for pid in zygote.stdout.readline().split()]
    assert len(below) == 2
    await until(lambda: not any(map(alive, below)))
