"""The worker's role: a process that runs a `wiring.Worker`, and hears when to stop and when to reload."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import structlog

from circuit_script.cli.control import Line, Said, Wrong, running
from circuit_script.cli.hangup import Terminal
from circuit_script.cli.serve import say_ready
from circuit_script.cli.supervisor import EXPLAINED, database_of
from circuit_script.config import Settings
from circuit_script.errors import AppError
from circuit_script.tasks import end
from circuit_script.wiring import Refused, Switched, Tap, Unchanged, Worker, run_worker

log = structlog.get_logger()


async def run_role(
    settings: Settings, ready_fd: int | None, supervised: int, control_fd: int | None, folder_release: bool = False
) -> None:
    """Run a worker until it is told to stop. ``control_fd`` is the line to `dev`, if that is who started it. With
    ``folder_release`` it makes the folder's app live, whatever was deployed."""
    signal.signal(signal.SIGHUP, lambda *_: None)  # until there is something to reload
    terminal = Terminal()
    control = await Line.open(socket.socket(fileno=control_fd)) if control_fd is not None else None
    beside: set[asyncio.Task[None]] = set()
    url = await database_of(settings, started=bool(supervised))

    def ready(worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, worker.stop)
        loop.add_signal_handler(signal.SIGHUP, hung_up, worker)
        if control is not None:
            begin(_obey(control, worker))
        say_ready(ready_fd, f"release {worker.live.release.id}")

    def hung_up(worker: Worker) -> None:
        if terminal.is_gone():
            worker.stop()
        else:
            begin(_log_reload(worker))

    def begin(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        beside.add(task)
        task.add_done_callback(beside.discard)

    try:
        await run_worker(
            settings,
            url,
            ready,
            tap=_terminal_tap() if control is not None else None,
            dev=control is not None,
            folder_by=_user() if folder_release else "",
        )
    except AppError as error:
        if control is None:
            raise
        await control.say(Wrong.of(error))
        raise SystemExit(EXPLAINED) from None
    finally:
        await end(beside)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return f"uid {os.getuid()}"


def _terminal_tap() -> Tap:
    from circuit_script.cli.dev.terminal import TerminalTap  # for developers only: loads rich

    return TerminalTap()


async def _log_reload(worker: Worker) -> None:
    """Reload because a signal asked for it: what comes of it goes to the log."""
    match await worker.reload():
        case Switched(live, seconds):
            log.info("release.live", release=live.release.id, handlers=len(live.release.handlers), seconds=seconds)
        case Unchanged(live):
            log.info("release.unchanged", release=live.release.id)
        case Refused(error):
            log.error("release.refused", error=str(error), next="the release before goes on")


async def _obey(control: Line, worker: Worker) -> None:
    """Say what runs, and reload as often as `dev` asks for it."""

    async def reload() -> Said:
        match await worker.reload():
            case Switched(live, seconds):
                return running(live, seconds=seconds)
            case Unchanged(live):
                return running(live, changed=False)
            case Refused(error):
                return Wrong.of(error)

    await control.say(running(worker.live))
    await control.obey(reload)
