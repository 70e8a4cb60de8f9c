from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from circuit_script import failpoints
from circuit_script.clock import now, uuid7, wall
from circuit_script.failpoints import NAMES, areach, parse, reach

WALK = """
from circuit_script.clock import now, time_of, uuid7
from circuit_script.failpoints import reach
for step in range(1, 6):
    print(step, flush=True)
    try:
        reach("settle.before")
    except OSError as error:
        print(error.errno, flush=True)
print(int((time_of(uuid7()) - now()).total_seconds()), now().year)
"""


def walk(spec: str) -> tuple[int, list[str]]:
    """Five visits of one failpoint in a process of its own: its exit code and what it printed."""
    environment = {**os.environ, "CIRCUIT_FAILPOINTS": spec}
    ran = subprocess.run([sys.executable, "-c", WALK], env=environment, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout.split("\n")[:-1] or [ran.stderr]


def test_nothing_happens_unless_it_is_asked_for() -> None:
    assert failpoints.skew() == 0
    for name in NAMES:
        reach(name)


async def test_nothing_happens_in_a_task_either() -> None:
    for name in NAMES:
        await areach(name)


def test_a_process_is_killed_at_the_visit_that_was_named() -> None:
    assert walk("settle.before=kill@3") == (-signal.SIGKILL, ["1", "2", "3"])


def test_a_failpoint_fails_as_a_connection_or_a_disk_does_and_fires_once(tmp_path: Path) -> None:
    code, said = walk("settle.before=fail")
    assert (code, said[:3]) == (0, ["1", "104", "2"])
    (tmp_path / "settle.before").write_text("full@2")
    code, said = walk(str(tmp_path))
    assert (code, said[:4]) == (0, ["1", "2", "28", "3"])
    assert not list(tmp_path.iterdir())


def test_the_clock_jumps_for_ids_and_moments_alike(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-400000000")
    before = now().year
    for spec in (str(tmp_path), "clock=-400000000"):
        code, said = walk(spec)
        apart, year = said[-1].split()
        assert code == 0
        assert abs(int(apart)) <= 1
        assert before - int(year) in (12, 13)


def test_what_is_misspelled_is_refused() -> None:
    code, (said, *_) = walk("settle.befor=kill")
    assert code == 1
    assert "there is no failpoint" in said
    for wrong in ("die", "stall", "kill:2", "stall:long"):
        with pytest.raises(ValueError, match=r"none of|could not convert"):
            parse(wrong)


def test_the_two_clocks_agree_where_nothing_jumps() -> None:
    assert abs(now().timestamp() - wall()) < 5
    assert uuid7() < uuid7()
