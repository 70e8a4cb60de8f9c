"""What README.md names is there, and its demo works. Its story is run with the other pages (test_docs.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from circuit_script.cli.init import TRIGGERS
from circuit_script.testing.stand_ins.gohighlevel import contract_of
from tests.acceptance.platform import COMMAND, environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(pattern: str) -> list[str]:
    return re.findall(pattern, README, re.DOTALL | re.MULTILINE)


def test_the_snippet_is_the_app_that_init_makes() -> None:
    (snippet,) = blocks(r"^```python title=\"app/triggers\.py\"\n(.*?)^```")
    assert snippet == TRIGGERS


def test_every_make_target_that_it_names_exists() -> None:
    named = sorted(set(re.findall(r"(?:^ +|`)make ([a-z-]+)", README, re.MULTILINE)))
    tests = ["faults", "soak", "test", "test-evasion", "test-slow", "test-stories"]
    parts = ["connectors", "door", "faults", "governor", "judgment", "release", "see"]
    benches = ["bench", *(f"bench-{part}" for part in parts)]
    assert named == [*benches, "demo", "docs", *tests]
    for target in named:
        ran = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


def test_every_path_that_it_names_exists() -> None:
    named = re.findall(r"\((docs/[^)]+|[A-Z]+\.md)\)|`((?:src|tests)/[\w/.]+)`", README)
    named += [("", path) for command in re.findall(r"`\.venv/bin/pytest ([^`]+)`", README) for path in command.split()]
    assert len(named) > 10
    for one, other in named:
        assert (ROOT / (one or other)).exists(), one or other


def test_the_demo_exits_0_because_every_number_is_as_it_must_be() -> None:
    command = [COMMAND, "demo", "--deliveries", "200", "--json"]
    contracts = {name: value for name, value in os.environ.items() if name == "CIRCUIT_SHARED"}
    ran = subprocess.run(command, env=environment(None, measured=False) | contracts, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["right"] is True
    counts = {each["name"]: each["found"] for each in found["counts"]}
    assert counts["echo of our own write"] == found["writes"] > 150
    assert counts["duplicate"] > 0
    assert [each["score"] for each in found["best"]] == sorted((each["score"] for each in found["best"]), reverse=True)
    assert found["violations"] == []
    assert (found["checked"] > 200) is (contract_of() is not None)
