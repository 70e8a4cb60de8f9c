"""Contestants as subprocesses: started, awaited, measured, ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU of a process and its descendants, also of those that have ended."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])
    return total


async def http_get(port: int, path: str) -> tuple[int, bytes]:
    """One GET on loopback; (0, b"") while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, b""
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
    except OSError:
        return 0, b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head[9:12]), body) if head else (0, b"")


async def until(condition: Callable[[], object], *, seconds: float, what: str, every: float = 0.02) -> None:
    """Poll a plain or async condition until it holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        await asyncio.sleep(every)


@asynccontextmanager
async def running(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    ready: Callable[[], object],
    seconds: float = 30.0,
) -> AsyncIterator[psutil.Process]:
    """The command's process once ``ready``; it and all its children are gone afterwards."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(env or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)

    async def up() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {_tail(log)}")
        value = ready()
        return bool(await value if asyncio.iscoroutine(value) else value)

    try:
        await until(up, seconds=seconds, what=f"start of {' '.join(command[:4])}")
        yield psutil.Process(process.pid)
    finally:
        await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        if child.is_running():
            child.kill()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size of a process and all its descendants, in MB, without PostgreSQL's."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            if member.name() != "postgres":
                total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return float(total) / 1e6


def python() -> str:
    """The interpreter that runs the bench runs the contestants."""
    return sys.executable


def beside_python(name: str) -> str | None:
    """A command of our virtual environment, or of the system."""
    local = Path(sys.executable).with_name(name)
    return str(local) if local.exists() else shutil.which(name)
