from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = "import sys; from circuit_script.execution.authoring.scripts import run_script; run_script(sys.argv[1])"
FORKS = """
import os
if os.fork() == 0:
    os.read(0, 1)
    os._exit(0)
"""
FLOODS = """
import subprocess
subprocess.Popen(["yes"])
"""
# The fork ends as the script does; then more is said than a pipe holds.
ENDS_IN_A_FORK = """
import os, subprocess, sys
if (fork := os.fork()) == 0:
    sys.exit()
os.waitpid(fork, 0)
subprocess.run(["head", "-c", "1000000", "/dev/zero"], check=True)
"""


@pytest.mark.parametrize("script", [FORKS, FLOODS, ENDS_IN_A_FORK])
def test_a_script_ends_whatever_the_processes_do_that_it_has_started(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(script)
    command = [sys.executable, "-c", RUNS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as ran:  # stdin keeps the fork
        try:
            assert ran.wait(30) == 0
        finally:
            ran.kill()
