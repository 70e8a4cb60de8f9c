"""What a handler may change of its process beside its memory. It is looked at after each run: the next starts there.

Python's own objects (globals, patched modules, os.environ) are not looked at: they stay for the next execution of the
same tenant, as in any server, and end with the child.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of `signal` make enums, which takes five times as long
import locale
import os
import resource
import signal
import socket
import sys
import threading
from typing import Any

_SIGNALS = tuple(
    map(int, (signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM))
)
_LIMITS = (
    resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA, resource.RLIMIT_STACK, resource.RLIMIT_NPROC,
    resource.RLIMIT_NOFILE, resource.RLIMIT_AS,
)  # fmt: skip
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)


_slot = ""


def live_in(slot: str) -> None:
    """The folder of this child's temporary files, where it has one of its own."""
    global _slot
    _slot = slot


def look() -> tuple[Any, ...]:
    """The surroundings as they are now: equal when nothing has changed. Takes some twenty microseconds.

    The parent sets the limit of the data segment with the first run: what was seen before differs. Raises OSError when
    the folder that this process was in is gone.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    return (
        mask,
        os.getcwd(),
        [_signal.getsignal(each) for each in _SIGNALS],
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ()),
        [resource.getrlimit(each) for each in _LIMITS],
        [_signal.getitimer(each) for each in _TIMERS],
        (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)),
        (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()),
        (sys.stdin, sys.stdout, sys.stderr),
        _crowded(),
        (socket.getdefaulttimeout(), locale.setlocale(locale.LC_ALL)),
    )


def _crowded() -> bool:
    """Whether temporary files take so much of their room that the next execution could lack it."""
    if not _slot:
        return False
    room = os.statvfs(_slot)
    return room.f_bavail * 2 < room.f_blocks
