"""``circuit-script serve``: a supervisor of roles, or one role alone."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from circuit_script.cli.supervisor import Supervisor, database_of
from circuit_script.config import Settings, load_settings
from circuit_script.execution.hardening import die_with_parent, hide_from_children
from circuit_script.telemetry import configure_logging

NAME = "serve"
EXAMPLES = "Examples:  circuit-script serve  ·  circuit-script serve --port 8080  ·  circuit-script serve --role worker"


class Role(StrEnum):
    all = "all"
    gateway = "gateway"
    worker = "worker"


def run(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    role: Annotated[Role, typer.Option(help="Run one role only, on a host of its own.")] = Role.all,
    port: Annotated[int | None, typer.Option(help="Port of the gateway (0 picks a free one).")] = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    supervised: Annotated[int, typer.Option(hidden=True, help="The supervisor's process.")] = 0,
) -> None:
    """Run the app: PostgreSQL, gateway and worker. SIGTERM drains and exits 0."""
    hide_from_children()
    overrides: dict[str, Any] = {}
    settings = load_settings(folder)
    if port is not None:
        overrides["gateway"] = {**settings.gateway.model_dump(), "port": port}
        settings = load_settings(folder, **overrides)
    match role:
        case Role.all:
            uvloop.run(Supervisor(settings).run())
        case Role.gateway:
            uvloop.run(_gateway(settings, ready_fd, supervised))
        case Role.worker:
            uvloop.run(_worker(settings, ready_fd, supervised))


def _collect_garbage_seldom() -> None:
    """A batch makes thousands of small dicts that live until its outcome. Looking through all of them again and again
    for cycles cost an eighth of the worker's time; cycles are few here and still found."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _begin(role: str, supervised: int) -> None:
    configure_logging(role)
    _collect_garbage_seldom()
    if supervised:
        die_with_parent(supervised, by=signal.SIGTERM)


async def _gateway(settings: Settings, ready_fd: int | None, supervised: int) -> None:
    from circuit_script.gateway.serve import run_gateway  # optional on a worker-only host: loads FastAPI

    _begin("gateway", supervised)
    url = await database_of(settings, started=bool(supervised))
    await run_gateway(settings, url, on_ready=lambda address: _say_ready(ready_fd, address))


async def _worker(settings: Settings, ready_fd: int | None, supervised: int) -> None:
    from circuit_script.wiring import Worker, run_worker  # only this role needs it

    _begin("worker", supervised)
    url = await database_of(settings, started=bool(supervised))

    def ready(worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, worker.stop)
        _say_ready(ready_fd, f"release {worker.release.id}")

    await run_worker(settings, url, ready)


def _say_ready(descriptor: int | None, words: str) -> None:
    if descriptor is not None:
        os.write(descriptor, words.encode() + b"\n")
        os.close(descriptor)
