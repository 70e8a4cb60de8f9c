"""One copy by plan, made by a process of its own: `python -m circuit_script.backup.planned`, the plan on its standard
input. So neither the worker's loop nor its memory feels it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg

from circuit_script.backup.dump import back_up
from circuit_script.backup.places import file_name, open_place, outdated
from circuit_script.db.pool import Connection, open_connection
from circuit_script.errors import CircuitError
from circuit_script.events.chores import BACKUP, due_in, failed, succeeded
from circuit_script.execution.hardening import hide_from_children

LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('circuit.backup'))"
HALF_MADE = "copying-"  # how the names of folders begin in which a copy is made
AGAIN = 900.0  # seconds after a failure, at most
NOT_NOW = "not now"


@dataclass(frozen=True, slots=True)
class Plan:
    """``every`` in seconds; ``keep`` copies stay; what is half made lies in ``folder``."""

    url: str
    to: str
    every: float
    keep: int
    endpoint_url: str
    folder: str

    @property
    def again(self) -> float:
        return min(AGAIN, self.every / 4)


async def copy_now(plan: Plan) -> str:
    """Make the copy if it is due and no other worker makes it; where it is, or NOT_NOW.

    What goes wrong is remembered for `status` and raised.
    """
    lock = await open_connection(plan.url, name="circuit-script copies")
    try:
        # The transaction holds the lock and nothing else: it keeps no snapshot, and it ends with this process.
        async with lock.transaction():
            await lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            row = await (await lock.execute(LOCK)).fetchone()
            if not row or not row[0]:
                return NOT_NOW
            return await _copy(plan)
    finally:
        await lock.close()


async def _copy(plan: Plan) -> str:
    connection = await open_connection(plan.url, name="circuit-script copies")
    try:
        if await due_in(connection, BACKUP, every=plan.every, again=plan.again) > 0:
            return NOT_NOW
        try:
            where, rows, size = await _make(plan)
        except (CircuitError, OSError, psycopg.Error) as error:
            await _remember(connection, plan.url, str(error))
            raise
        await succeeded(connection, BACKUP, where=where, rows=rows, bytes=size)
        return where
    finally:
        await connection.close()


async def _make(plan: Plan) -> tuple[str, int, int]:
    place = open_place(plan.to, plan.endpoint_url)
    await asyncio.to_thread(_sweep, Path(plan.folder))
    with tempfile.TemporaryDirectory(prefix=HALF_MADE, dir=plan.folder) as folder:
        file = Path(folder) / "copy"
        manifest = await back_up(plan.url, file)
        size = file.stat().st_size
        where = await place.put(file, file_name(manifest.installation, manifest.taken_at, planned=True))
    for name in outdated(await place.names(), manifest.installation, plan.keep):
        await place.remove(name)
    return where, manifest.rows, size


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left there: we hold the lock, so nobody else makes a copy."""
    for left in folder.glob(f"{HALF_MADE}*"):
        shutil.rmtree(left, ignore_errors=True)


async def _remember(connection: Connection, url: str, failure: str) -> None:
    """Also when the connection was lost meanwhile."""
    try:
        await failed(connection, BACKUP, failure)
    except psycopg.Error:
        async with await open_connection(url, name="circuit-script copies") as other:
            await failed(other, BACKUP, failure)


async def _until_told(plan: Plan) -> str:
    """``copy_now``; at SIGTERM what is half made goes."""
    task = asyncio.current_task()
    assert task is not None  # this is a coroutine's
    with contextlib.suppress(NotImplementedError):  # not every system has it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await copy_now(plan)


def main() -> None:
    """Exit code 0 and where the copy is, or 1 and what went wrong."""
    hide_from_children()
    os.nice(10)
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    try:
        print(asyncio.run(_until_told(plan)))
    except asyncio.CancelledError:
        raise SystemExit(1) from None
    except (CircuitError, OSError, psycopg.Error) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
