"""``circuit-script serve``: a supervisor of roles, or one role alone."""

from __future__ import annotations

import gc
import os
import signal
from enum import StrEnum
from typing import Annotated, Any

import typer
import uvloop

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.supervisor import Supervisor
from circuit_script.cli.verbs import loading
from circuit_script.config import load_settings
from circuit_script.execution.hardening import die_with_parent, hide_from_children

NAME = "serve"
EXAMPLES = "Examples:  circuit-script serve  ·  circuit-script serve --port 8080  ·  circuit-script serve --role worker"


class Role(StrEnum):
    all = "all"
    gateway = "gateway"
    worker = "worker"
    dashboard = "dashboard"


def run(
    folder: Folder = None,
    role: Annotated[Role, typer.Option(help="Run one role only, on a host of its own.")] = Role.all,
    port: Annotated[
        int | None, typer.Option(help="Port of the gateway, or of the dashboard alone (0 picks a free one).")
    ] = None,
    folder_release: Annotated[
        bool, typer.Option("--folder-release", help="Make the folder's app live, whatever was deployed since.")
    ] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    supervised: Annotated[int, typer.Option(hidden=True, help="The supervisor's process.")] = 0,
    control_fd: Annotated[int | None, typer.Option(hidden=True, help="Where `dev` asks the worker to reload.")] = None,
    dev: Annotated[bool, typer.Option(hidden=True, help="Speak to a developer.")] = False,
) -> None:
    """Run the app: PostgreSQL, gateway, worker and dashboard. SIGTERM drains and exits 0; SIGHUP runs the app's files
    as they are now."""
    hide_from_children()
    settings = load_settings(app_folder(folder), **ports(port, dashboard=role is Role.dashboard))
    match role:  # only a role needs what it imports
        case Role.all:
            uvloop.run(Supervisor(settings, folder_release=folder_release).run())
        case Role.gateway:
            with loading():
                from circuit_script.cli.gateway import run_role as run_gateway_role

            begin("gateway", supervised, dev=dev)
            uvloop.run(run_gateway_role(settings, ready_fd, supervised))
        case Role.worker:
            with loading():
                from circuit_script.cli.worker import run_role as run_worker_role

            begin("worker", supervised, dev=dev)
            uvloop.run(run_worker_role(settings, ready_fd, supervised, control_fd, folder_release))
        case Role.dashboard:
            with loading():
                from circuit_script.cli.dashboard import run_role as run_dashboard_role

            begin("dashboard", supervised, dev=dev)
            uvloop.run(run_dashboard_role(settings, ready_fd, supervised))


def ports(port: int | None, *, dashboard: bool = False) -> dict[str, Any]:
    """What ``--port`` says of the settings. Who picks a free one for the gateway does so for the dashboard, too."""
    if port is None:
        return {}
    said = {"port": port}
    return {"dashboard": said} if dashboard else {"gateway": said} | ({} if port else {"dashboard": said})


def _collect_garbage_seldom() -> None:
    """A batch makes thousands of small dicts that live until its outcome. Looking through all of them again and again
    for cycles cost an eighth of the worker's time; cycles are few here and still found."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def begin(role: str, supervised: int, *, dev: bool = False) -> None:
    """Set up the process of a role."""
    if dev:
        from circuit_script.cli.dev.terminal import log_to_terminal  # loads what only developers need

        log_to_terminal(role)
    else:
        from circuit_script.telemetry import configure_logging  # the supervisor, which only says a few words, has none

        configure_logging(role)
    _collect_garbage_seldom()
    if supervised:
        die_with_parent(supervised, by=signal.SIGTERM)


def say_ready(descriptor: int | None, words: str) -> None:
    """Tell the supervisor that the role does its work now."""
    if descriptor is not None:
        os.write(descriptor, words.encode() + b"\n")
        os.close(descriptor)
