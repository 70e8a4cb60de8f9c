"""The app's tests, as a deploy runs them: the real ``circuit-script test --json``, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from circuit_script.cli.environments import environment_of_tests
from circuit_script.config import Settings
from circuit_script.errors import DeployRefused

LINES = 40  # of what failing tests have said
INTERRUPTED = 130
PATIENCE = 30.0  # seconds in which interrupted tests end
ERROR = "error: "


def report_of_tests(settings: Settings) -> tuple[Mapping[str, Any], str]:
    """What `circuit-script test --json` reports, and the last lines that pytest said. Raises DeployRefused when it does
    not get so far, KeyboardInterrupt when it was interrupted."""
    command = [sys.executable, "-P", "-m", "circuit_script.cli", "test", "--json", "--folder", str(settings.folder)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=settings.folder,
            env=environment_of_tests(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:  # a terminal has told the tests, too: they end their processes and their database
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            raise
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    try:
        report = json.loads(printed)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise _not_run(lines)
    return report, "\n".join(lines[-LINES:])


def _not_run(lines: list[str]) -> DeployRefused:
    """Its own words: they say what to do."""
    error = next((line for line in lines if line.startswith(ERROR)), "")
    why = error.removeprefix(ERROR) or "\n".join(lines[-LINES:]) or "circuit-script test said nothing."
    if "There is no test" in why:
        cure = "Write one in tests/: circuit-script explain testing."
        return DeployRefused("The app has no tests, so nobody knows what it does.", cure=cure)
    return DeployRefused(why, cure="Let it pass: circuit-script test.")
