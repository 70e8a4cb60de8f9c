"""Releases that must not go live, each deployed to a platform that runs a good one: which of them were stopped at
their gate, with words that say what to do, while what was live went on.

    python -m benchmarks.release --only bad
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.bad_releases import BAD_RELEASES, PATIENT, TESTS, TRIGGERS, Bad
from tests.acceptance.command import run
from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import make_vendor

LIVE = "SELECT release FROM circuit.live"
IGNORED = shutil.ignore_patterns(".circuit", "__pycache__", ".pytest_cache")


def measure(quick: bool) -> Mapping[str, Any]:
    """How many were tried and stopped; ``missed`` names the others."""
    tried = {name: bad for name, bad in BAD_RELEASES.items() if not (quick and bad.slow)}
    more = f"[deploy]\nimport_seconds = {PATIENT}\n"
    with served(None, TRIGGERS, public_key=make_vendor().public_key, more=more) as platform:
        _good(platform)
        missed = [name for name, bad in tried.items() if not _is_stopped(platform, bad)]
    gates = Counter(bad.step for bad in tried.values())
    return {
        "bad_releases_tried": len(tried),
        "bad_releases_stopped": len(tried) - len(missed),
        "missed": f"not stopped: {', '.join(missed)}" if missed else "",
        "said": "stopped by " + ", ".join(f"{step} {count}" for step, count in gates.items()),
    }


def _good(platform: Platform) -> None:
    tests = platform.folder / "tests"
    tests.mkdir(exist_ok=True)
    for old in tests.glob("test_*.py"):
        old.unlink()
    (tests / "test_triggers.py").write_text(TESTS)
    (platform.folder / "requirements.txt").write_text("circuit-script[test]\n")
    arguments = ("--folder", str(platform.folder), "--yes", "--detach", "--json")
    ran = run("deploy", *arguments, database=platform.url)
    if ran.code:
        raise RuntimeError(f"the good one was refused: {ran.err}")


def _is_stopped(platform: Platform, bad: Bad) -> bool:
    live = platform.value(LIVE)
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as place:
        app = Path(shutil.copytree(platform.folder, Path(place) / "app", ignore=IGNORED))
        bad.spoil(app)
        arguments = ("--folder", str(app), "--yes", "--version", "v2.0.0", *bad.arguments, "--json")
        ran = run("deploy", *arguments, database=platform.url)
    try:
        told = json.loads(ran.out)
        gate, refused = told["steps"][-1]["step"], told["refused"]
    except (ValueError, LookupError):
        return False
    words = bool(re.search(bad.says, refused["why"], re.DOTALL) and re.search(bad.cure, refused["cure"]))
    return ran.code == 1 and gate == bad.step and words and platform.value(LIVE) == live
