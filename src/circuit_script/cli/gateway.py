"""The gateway's role: a process that runs a gateway, and says when it is ready."""

from __future__ import annotations

from circuit_script.cli.serve import say_ready
from circuit_script.cli.supervisor import database_of
from circuit_script.config import Settings
from circuit_script.gateway.serve import run_gateway


async def run_role(settings: Settings, ready_fd: int | None, supervised: int) -> None:
    """Run a gateway until it is told to stop."""
    url = await database_of(settings, started=bool(supervised))
    await run_gateway(settings, url, on_ready=lambda address: say_ready(ready_fd, address), supervised=bool(supervised))
