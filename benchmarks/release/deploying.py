"""``circuit-script deploy`` of the app that ``init`` makes, tests and all, to a platform that runs.

python -m benchmarks.release --only deploy
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.command import run
from tests.acceptance.platform import Platform, free_port, running

DEPLOYS = 5


def measure(quick: bool) -> Mapping[str, Any]:
    """Seconds from the command to "live on every worker": the first one, and the median of those after it."""
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "acme"
        _do("init", str(folder))
        port = free_port()
        settings = folder / "circuit.toml"
        settings.write_text(re.sub(r"^port = \d+", f"port = {port}", settings.read_text(), flags=re.MULTILINE))
        with running(Platform(folder, port)) as platform:
            first = _deployed(folder, platform.url)
            again = []
            for number in range(1 if quick else DEPLOYS):
                (folder / "app" / "changed.py").write_text(f"NUMBER = {number}\n")
                again.append(_deployed(folder, platform.url))
    return {"deploy_s": round(statistics.median(again), 2), "first_s": round(first, 2), "deploys": len(again)}


def _deployed(folder: Path, database: str) -> float:
    began = time.monotonic()
    _do("deploy", "--folder", str(folder), "--yes", "--detach", "--json", database=database)
    return time.monotonic() - began


def _do(*arguments: str, database: str | None = None) -> None:
    ran = run(*arguments, database=database)
    if ran.code:
        raise RuntimeError(f"{' '.join(arguments)}: {ran.err or ran.out}")
