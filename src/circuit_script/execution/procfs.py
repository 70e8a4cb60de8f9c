"""What the kernel says about a process: CPU time, memory, threads, children. Reads take a few microseconds."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
HERTZ = os.sysconf("SC_CLK_TCK")
STAT_PPID, STAT_CUTIME = 1, 13  # fields after the command's closing bracket, counted from the state
LOOK = 4096


def cpu_time(pid: int) -> float:
    """Seconds of CPU that the process has used, 0 when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid makes it
    except OSError:
        return 0.0


def children_of(pid: int) -> list[int]:
    """The processes that any thread of this one has forked, or that it took over; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError, FileNotFoundError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
                continue
            if not os.path.exists("/proc/thread-self/children"):
                return _children_by_search(pid)
    except OSError:
        return found
    return found


def parent_of(pid: int) -> int:
    """The process that this one was forked by, or that took it over; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[STAT_PPID])
    except OSError:
        return 0


def descendants_of(pid: int, most: int = sys.maxsize) -> list[int]:
    """The processes below this one that are not orphans; no further ones are looked for once there are ``most``."""
    found = children_of(pid)
    for child in found:
        if len(found) >= most:
            break
        found += children_of(child)
    return found


def cpu_time_of_ended(pid: int) -> float:
    """Seconds of CPU of those below this process that have ended and were waited for, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[STAT_CUTIME : STAT_CUTIME + 2])) / HERTZ


def memory_of(pid: int) -> int:
    """Bytes of memory that only this process and its forks hold: anonymous and shared memory, and memfds."""
    anonymous = shared = 0
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    anonymous = int(line.split()[1]) * 1024
                elif line.startswith("RssShmem:"):
                    shared = int(line.split()[1]) * 1024
    except OSError:
        return 0
    return anonymous + max(shared, _memfds(pid))


def _memfds(pid: int) -> int:
    total, seen = 0, set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path).startswith("/memfd:"):
                    status = os.stat(entry.path)
                    if status.st_ino not in seen:
                        seen.add(status.st_ino)
                        total += status.st_blocks * 512
    return total


def _children_by_search(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[STAT_PPID]) == pid:
                    found.append(int(name))
    return found


class Extent(NamedTuple):
    """How large a process is. ``data`` is its data segment, ``resident`` its anonymous memory, ``mapped`` the files and
    shared memory in it, all in bytes; ``parent`` says whether it has children."""

    data: int
    resident: int
    mapped: int
    threads: int
    parent: bool


class ProcessFiles:
    """The /proc files of one process, kept open so that a look costs little. Raises OSError when it is gone."""

    def __init__(self, pid: int) -> None:
        self._open: list[int] = []
        self._descriptors = f"/proc/{pid}/fd"
        try:
            for name in ("statm", "task", "fd", f"task/{pid}/children"):
                self._open.append(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            if len(self._open) < 3:
                self.close()
                raise

    def extent(self) -> Extent:
        """Look now."""
        pages = os.pread(self._open[0], LOOK, 0).split()
        resident, shared, data = int(pages[1]), int(pages[2]), int(pages[5])
        threads = os.fstat(self._open[1]).st_nlink - 2  # a folder for each thread
        parent = len(self._open) > 3 and bool(os.pread(self._open[3], LOOK, 0))
        return Extent(data * PAGE, (resident - shared) * PAGE, shared * PAGE, threads, parent)

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return os.fstat(self._open[2]).st_size or len(os.listdir(self._descriptors))  # the size: from Linux 6.2 on

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())


def thread_states(pid: int) -> tuple[str, list[str]]:
    """What its main thread does now, and what the others do: "R" runs or wants to, "S" waits; "" when it is gone."""
    main, others = "", []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0].decode()
                if int(task) == pid:
                    main = state
                else:
                    others.append(state)
    return main, others
