"""A worker as a process of its own: python -m tests.messaging.worker FOLDER URL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from circuit_script.config import load_settings
from circuit_script.wiring import run_worker

if __name__ == "__main__":
    asyncio.run(run_worker(load_settings(Path(sys.argv[1])), sys.argv[2], lambda worker: print("ready", flush=True)))
