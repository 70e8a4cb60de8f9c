"""What others do meanwhile and afterwards: they must find everything as it was."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from app.tricks import trick
from circuit_script import CircuitDB, log

MASK = os.umask(0o022)
os.umask(MASK)
HERE = os.getcwd()
KEPT: dict[str, Any] = {"loop": None}  # what tricks leave for whoever comes next


@trick
async def writes(context: Any) -> None:
    for record in context.new_records:
        async with context.record(record):
            await CircuitDB.update("Contact", {"id": record.id, "score": 1})
            await asyncio.sleep(0)


def temporary_files() -> list[str]:
    """What lies in its own folder: name, size, owner, and how many seconds ago it was changed."""
    if "TMPDIR" not in os.environ:
        return []
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    now = time.time()
    return [f"{name}: {of.st_size} bytes of {of.st_uid}, {now - of.st_mtime:.3f} s old" for name, of in found]


@trick
async def looks_around(context: Any) -> None:
    """The process is as a fresh one, but for Python's own objects."""
    assert os.getcwd() == HERE, "another folder"
    mask = os.umask(MASK)
    assert mask == MASK, f"umask {mask:o}"
    assert threading.active_count() == 1, "a thread is left"
    assert signal.getsignal(signal.SIGALRM).__module__.startswith("circuit_script"), "the alarm is switched off"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "signals are blocked"
    assert not (left := temporary_files()), f"temporary files: {left}"
    await writes(context)


@trick
async def looks_at_globals(context: Any) -> None:
    """What a handler of another tenant has done to Python's objects is not here."""
    await looks_around(context)
    assert list(KEPT) == ["loop"], "another tenant's globals"
    assert json.loads(json.dumps({"a": 1})) == {"a": 1}, "json is patched"
    assert datetime.datetime.now().year > 2000, "datetime is patched"
    assert asyncio.sleep.__module__ == "asyncio.tasks", "asyncio is patched"
    assert "EVASION" not in os.environ, "another tenant's environment"
    assert Path(__file__).is_file()
    log.info(os.getpid())
