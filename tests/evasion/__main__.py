"""Try every trick and print the counts as JSON: ``python -m tests.evasion [standard|strict …]``.

    {"evasions_tried": 217, "evasions_stopped": 217, "by_mode": {…}, "failed": {…}, "impossible": {…}}

``evasions_stopped`` counts those that got nowhere: the right outcome, no effect, no trace, the next executions clean.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circuit_script.errors import IsolationUnavailable
from tests.evasion.judge import faults, lacking, lay_out, open_bench
from tests.evasion.table import BOTH, TRICKS, Mode


async def tally(modes: Sequence[Mode] = BOTH) -> dict[str, Any]:
    """Try every trick in these modes. A mode that this machine cannot do counts nothing and is named."""
    counts: dict[str, dict[str, int]] = {}
    failed: dict[str, Sequence[str]] = {}
    impossible: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="evasion-") as scratch:
        for mode in modes:
            try:
                counts[mode] = await _tried(Path(scratch) / mode, mode, failed)
            except IsolationUnavailable as error:
                impossible[mode] = str(error)
    return {
        "evasions_tried": sum(each["tried"] for each in counts.values()),
        "evasions_stopped": sum(each["stopped"] for each in counts.values()),
        "by_mode": counts,
        "failed": failed,
        "impossible": impossible,
    }


async def _tried(folder: Path, mode: Mode, failed: dict[str, Sequence[str]]) -> dict[str, int]:
    lay_out(folder)
    bench = await open_bench(folder, mode)
    tried = 0
    try:
        for trick in TRICKS:
            if mode in trick.modes and not lacking(bench, trick, mode):
                tried += 1
                if found := await _faults(bench, trick):
                    failed[f"{trick.name} ({mode})"] = found
    finally:
        await bench.pool.stop()
    return {"tried": tried, "stopped": tried - sum(name.endswith(f"({mode})") for name in failed)}


async def _faults(bench: Any, trick: Any) -> Sequence[str]:
    try:
        return await faults(bench, trick)
    except Exception as error:  # one trick that breaks the judge is one that got somewhere
        return [f"{type(error).__name__}: {error}"]


if __name__ == "__main__":
    logging.disable()
    wanted: list[Mode] = [mode for mode in BOTH if mode in sys.argv[1:]]
    print(json.dumps(asyncio.run(tally(wanted or BOTH)), indent=2))
