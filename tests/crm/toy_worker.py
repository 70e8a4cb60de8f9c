"""A worker of an app whose records live with the toy vendor, as a process of its own: python -m tests.crm.toy_worker
FOLDER URL. It says "ready" once it is."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from circuit_script.config import load_settings
from circuit_script.connectors.registry import VENDORS
from circuit_script.wiring import Worker, run_worker


def ready(worker: Worker) -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    VENDORS["toy"] = "tests.crm.toy"
    asyncio.run(run_worker(load_settings(Path(sys.argv[1])), sys.argv[2], ready))
