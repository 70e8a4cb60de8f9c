"""The dashboard's role: a process that runs the web page for people, and says when it is ready."""

from __future__ import annotations

from circuit_script.cli.serve import say_ready
from circuit_script.cli.supervisor import database_of
from circuit_script.config import Settings
from circuit_script.dashboard.serve import run_dashboard


async def run_role(settings: Settings, ready_fd: int | None, supervised: int) -> None:
    """Run the dashboard until it is told to stop. Raises StartError where it is not installed."""
    url = await database_of(settings, started=bool(supervised))
    await run_dashboard(settings, url, on_ready=lambda address: say_ready(ready_fd, address))
