"""Runs the dashboard until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvicorn

from circuit_script.config import Settings
from circuit_script.dashboard.patient import LONGEST_HEAD, PatientProtocol
from circuit_script.db.pool import open_pool
from circuit_script.errors import StartError
from circuit_script.listening import listen
from circuit_script.web_server import serve

GRACE = 3  # seconds that requests have to finish: pages that are open keep their connection for ever
LONGEST_MESSAGE = 4_000_000  # bytes


async def run_dashboard(
    settings: Settings,
    url: str,
    *,
    on_ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until ``stop`` is set, or, without one, until SIGTERM or SIGINT. ``on_ready`` gets the address.

    Raises StartError when it cannot listen there, or when NiceGUI is not installed.
    """
    try:
        from circuit_script.dashboard.app import make_app, watching  # an extra: who has none needs no NiceGUI
    except ModuleNotFoundError as error:
        if error.name != "nicegui":
            raise
        raise StartError(
            "The dashboard needs NiceGUI.", cure="Install it: pip install 'circuit-script[dashboard]'", page="dashboard"
        ) from None
    listener = listen(settings.dashboard.host, settings.dashboard.port, "dashboard")
    try:
        async with await open_pool(
            url, min_size=1, max_size=3, name="circuit-script dashboard", pooler=settings.pooler
        ) as pool:
            config = uvicorn.Config(
                make_app(settings, pool),
                loop="none",  # the caller's
                http=PatientProtocol,
                h11_max_incomplete_event_size=LONGEST_HEAD,
                ws="websockets-sansio",
                ws_max_size=LONGEST_MESSAGE,
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
            async with watching():
                await serve(config, listener, stop, on_ready)
    finally:
        listener.close()
