"""A replay under way, as who began it sees it: a bar with the time that is left. Ctrl-C lets go of it."""

from __future__ import annotations

import asyncio
import signal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuit_script.cli.output import console
from circuit_script.db.pool import Connection
from circuit_script.events.replay import replays
from circuit_script.events.replay.replays import Replay

LOOK = 1.0  # seconds between two looks


async def follow(connection: Connection, replay: Replay) -> Replay | None:
    """Return it when it is over; None after a Ctrl-C, which leaves it running. Raises psycopg.Error."""
    let_go = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, let_go.set)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console(stderr=True), transient=True) as progress:
            task = progress.add_task("running", total=replay.chosen)
            while not let_go.is_set():
                found = await replays.look(connection, replay.id)
                progress.update(task, completed=found.settled, description=found.status)
                if found.is_over:
                    return found
                try:
                    await asyncio.wait_for(let_go.wait(), LOOK)
                except TimeoutError:
                    continue
        return None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
