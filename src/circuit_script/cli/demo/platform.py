"""The platform as users start it: ``circuit-script serve`` in a subprocess."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from circuit_script.errors import StartError

_START = 60.0
_END = 45.0


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(folder: Path, address: str, token: str) -> AsyncIterator[None]:
    """The app in ``folder``, ready to receive; ``token`` opens its CRM.

    It is ended as an operator would: SIGTERM, and it drains.

    Raises StartError with the end of its log when it does not come up.
    """
    log = folder / "serve.log"
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    environment["CIRCUIT_DASHBOARD__ENABLED"] = "false"  # nobody could sign in: it is gone in seconds
    environment["CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN"] = token
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "circuit_script.cli", "serve", "--folder", str(folder)),
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends it in order
        )
    try:
        await _ready(process, address, log)
        yield
    finally:
        await _end(process)


async def _ready(process: asyncio.subprocess.Process, address: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    async with httpx.AsyncClient() as client:
        while time.monotonic() < deadline:
            if process.returncode is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{address}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    said = log.read_text(errors="replace")[-1500:].strip()
    raise StartError(f"The demo's platform did not start. It said:\n{said}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _END)
    except TimeoutError:
        process.kill()
        await process.wait()


async def status(client: httpx.AsyncClient) -> dict[str, Any]:
    """What the platform says of itself."""
    answer = await client.get("/api/status")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
