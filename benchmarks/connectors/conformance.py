"""The conformance suite of every CRM, run as it is: how many of its cases there are, and how many fail."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from benchmarks.processes import ROOT, python

SUITES = "tests/crm"
_SAID = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


async def measure(quick: bool) -> dict[str, Any]:
    """``conformance_cases`` that ran, ``conformance_failed``; ``by_connector``; with ``quick`` of one only."""
    files = sorted((ROOT / SUITES).glob("test_*_conformance.py"))
    own = [ROOT / SUITES / name for name in ("test_toy.py", "test_local.py")]
    chosen = files[:1] if quick else [*files, *(each for each in own if each.is_file())]
    found = {each.stem.removeprefix("test_").removesuffix("_conformance"): await _run(str(each)) for each in chosen}
    return {
        "conformance_cases": sum(each["passed"] + each["failed"] for each in found.values()),
        "conformance_failed": sum(each["failed"] for each in found.values()),
        "by_connector": found,
    }


async def _run(file: str) -> dict[str, int]:
    """What pytest says of one file. Raises RuntimeError where nothing ran."""
    command = [python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", file]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode(errors="replace")
    last = said.strip().rpartition("\n")[2]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for number, word in _SAID.findall(last):
        counts["failed" if word.startswith("error") else word] += int(number)
    if not any(counts.values()):
        raise RuntimeError(f"{file} ran nothing: {said[-1000:]}")
    return counts
