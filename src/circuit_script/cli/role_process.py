"""One role as a process of its own: what it is started with, what it said, how it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class RoleProcess:
    """One role as a process; ``ready`` is what it said when it was."""

    name: str
    process: asyncio.subprocess.Process
    ready: str
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class More:
    """``descriptors`` are inherited under their numbers, and closed here once they are."""

    arguments: Sequence[str] = ()
    descriptors: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


async def terminate(process: asyncio.subprocess.Process, grace: float) -> None:
    """Ask it to end; after ``grace`` seconds it is killed."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """What is written into the pipe, until its end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        yield reader
    finally:
        transport.close()


def say(words: str) -> None:
    """Tell whoever started us, while there is somebody."""
    with contextlib.suppress(OSError):
        print(f"circuit-script: {words}", file=sys.stderr, flush=True)
