"""Whether the server that a PostgreSQL lock file names is alive, and what to do when it is not."""

from __future__ import annotations

import os
from pathlib import Path

_NO_PROCESS = 2**31 - 1  # above every system's largest process id


def is_running(data: Path) -> bool:
    """Whether a live server has the data folder ``data`` (by its postmaster.pid; it may still be starting)."""
    try:
        pid = int((data / "postmaster.pid").read_text("utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return False
    return _is_server(abs(pid), data)


def free_stale(lock: Path, data: Path) -> None:
    """Give a lock file a number that no process has, when the one in it is not a live server of ``data``.

    PostgreSQL takes any process of its user with that number for a running server: the zombie of a killed one,
    and in a restarted container somebody else. The file stays, for by its other lines the server finds the
    shared memory of backends that still run.
    """
    try:
        pid, *rest = lock.read_text("utf-8").splitlines()
        number = abs(int(pid))
    except (FileNotFoundError, ValueError):
        return
    if not _is_server(number, data):
        lock.write_text("\n".join([str(_NO_PROCESS), *rest, ""]), "utf-8")


def _is_server(pid: int, data: Path) -> bool:
    if not Path("/proc/self/stat").exists():
        return is_alive(pid)
    process = Path(f"/proc/{pid}")
    try:
        name, _, state = (process / "stat").read_text("utf-8").partition("(")[2].rpartition(")")
    except OSError:
        return False
    if name != "postgres" or state.split()[0] in ("Z", "X"):
        return False
    try:
        return (process / "cwd").readlink() == data.resolve()  # a server lives in its data
    except OSError:
        return True  # a container's root may not look at other users' processes


def is_alive(pid: int) -> bool:
    """Whether a process of this host has the id, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
