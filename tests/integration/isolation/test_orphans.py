"""What is left when a zygote is killed at the worst moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from circuit_script.execution.isolation import confine, landlock
from tests.integration.execution.conftest import alive, until

STOPS = """
import os, signal, sys, time
from pathlib import Path
from circuit_script.execution.isolation import confine, orphans

confined, _ = confine.zygote(sys.argv[1], Path(sys.argv[2]), sys.argv[3], os.getppid())
assert confined.scoped and orphans._bounded(os.getppid())
undertaker = orphans.outlive(os.getpid(), os.getppid())
confined.seal()
while os.getsid(undertaker) != undertaker:
    time.sleep(0.001)
try:
    open(f"/proc/{undertaker}/mem", "r+b")
    raise SystemExit("its memory can be written to")
except OSError:
    pass
if (left := os.fork()) == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
print(undertaker, left, flush=True)
os.kill(-1, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(landlock.abi() < landlock.OLDEST, reason="needs Landlock to keep signals in")
@pytest.mark.parametrize("mode", ["standard", "strict"])
async def test_nothing_stays_stopped_when_a_zygote_is_killed_while_all_below_it_are(mode: str, tmp_path: Path) -> None:
    if mode == "strict" and (missing := confine.lacks()):
        pytest.skip(str(missing))
    app, scratch = tmp_path / "app", tmp_path / "scratch"
    for folder in (app, scratch):
        folder.mkdir()
    command = [sys.executable, "-c", STOPS, mode, str(app), str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        below = [int(pid) for pid in zygote.stdout.readline().split()]
    assert len(below) == 2
    await until(lambda: not any(map(alive, below)))
