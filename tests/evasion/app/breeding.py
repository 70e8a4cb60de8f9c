"""Processes: more of them, ones that stay, and other people's."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from app.swallowing import for_ever
from app.tricks import denied, evaded, trick

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PR_SCHED_CORE = 62
CLONE_PARENT = 0x8000
IDLE = 3 << 13  # the class of who gets the disk when nobody else wants it
NUMBERS = {
    "x86_64": {"ioprio_set": 251, "io_setup": 206, "syslog": 103},
    "aarch64": {"ioprio_set": 30, "io_setup": 0, "syslog": 116},
}


@trick
def forks_and_leaves(context: Any) -> None:
    if os.fork() == 0:
        for_ever()


@trick
def forks_twice_into_a_session(context: Any) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            LIBC.prctl(PR_SET_PDEATHSIG, 0)
            for_ever()
        os._exit(0)
    os.wait()


@trick
def is_a_fork_bomb_in_sessions(context: Any) -> None:
    """No process group holds it, and no process of it lives long enough to be looked for."""
    over = time.monotonic() + 8  # where nothing stops it
    resource.setrlimit(resource.RLIMIT_NPROC, (60, resource.getrlimit(resource.RLIMIT_NPROC)[1]))  # others shall run
    for _ in range(4):
        if LIBC.fork() == 0:
            while time.monotonic() < over:
                LIBC.setsid()
                if LIBC.fork() > 0 and LIBC.fork() > 0:
                    break
            os._exit(0)


@trick
def is_a_fork_bomb(context: Any) -> None:
    while True:
        with contextlib.suppress(BaseException):
            if os.fork() == 0:
                time.sleep(0.002)


@trick
def detaches_a_subprocess(context: Any) -> None:
    subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], start_new_session=True)


@trick
def spawns_by_posix(context: Any) -> None:
    os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 65"], {}, setsid=True)


@trick
def uses_multiprocessing(context: Any) -> None:
    multiprocessing.get_context("fork").Process(target=for_ever).start()


@trick
def survives_its_parent(context: Any) -> None:
    if LIBC.prctl(PR_SET_PDEATHSIG, 0) == 0:
        evaded("the death of the parent is not heard of")


@trick
def hides_from_the_worker(context: Any) -> None:
    if LIBC.prctl(PR_SET_DUMPABLE, 0) == 0:
        evaded("non-dumpable: a worker without rights cannot look into it")


@trick
def exits(context: Any) -> None:
    os._exit(0)


@trick
def aborts(context: Any) -> None:
    os.abort()


@trick
def kills_itself(context: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@trick
def kills_itself_in_real_time(context: Any) -> None:
    os.kill(os.getpid(), 40)


@trick
def kills_itself_by_the_first_signal_of_real_time(context: Any) -> None:
    os.kill(os.getpid(), signal.SIGRTMIN)


@trick
def kills_itself_by_a_signal_of_the_library(context: Any) -> None:
    os.kill(os.getpid(), 33)


@trick
def kills_itself_by_a_signal_that_nobody_uses(context: Any) -> None:
    os.kill(os.getpid(), signal.SIGPWR)


@trick
def crashes(context: Any) -> None:
    ctypes.string_at(0)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def called(name: str, *arguments: Any) -> int:
    """A system call by its number. Raises OSError."""
    return _checked(LIBC.syscall(NUMBERS[os.uname().machine][name], *arguments))


def others() -> Iterator[int]:
    """Its zygote, its siblings, the worker, and who has started that."""
    me, zygote = os.getpid(), os.getppid()
    yield zygote
    with contextlib.suppress(OSError), open(f"/proc/{zygote}/task/{zygote}/children") as file:
        yield from (int(pid) for pid in file.read().split() if int(pid) != me)
    with contextlib.suppress(OSError), open(f"/proc/{zygote}/status") as file:
        yield next(int(line.split()[1]) for line in file if line.startswith("PPid:"))


@trick
def kills_the_zygote(context: Any) -> None:
    denied(lambda: os.kill(os.getppid(), signal.SIGKILL), "the zygote")


@trick
def stops_everybody(context: Any) -> None:
    for pid in others():
        denied(lambda pid=pid: os.kill(pid, signal.SIGSTOP), f"process {pid}")


@trick
def kills_everybody(context: Any) -> None:
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGCONT)
    for pid in others():
        denied(lambda pid=pid: os.kill(pid, 0), f"process {pid}")
        denied(lambda pid=pid: os.killpg(os.getpgid(pid), 0), f"the group of {pid}")


@trick
def kills_by_descriptor(context: Any) -> None:
    for pid in others():
        denied(lambda pid=pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM), f"process {pid}")


@trick
def limits_others(context: Any) -> None:
    for pid in others():
        with contextlib.suppress(OSError):
            before = resource.prlimit(pid, resource.RLIMIT_CORE)
            resource.prlimit(pid, resource.RLIMIT_CORE, before)
            evaded(f"the limits of {pid}")


@trick
def slows_others_down(context: Any) -> None:
    for pid in others():
        denied(lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)), f"{pid}")
        denied(lambda pid=pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid)), f"the processors of {pid}")
        denied(lambda pid=pid: called("ioprio_set", 1, pid, IDLE), f"the disk for {pid}")


@trick
def takes_what_the_machine_has_once(context: Any) -> None:
    context_of_io = ctypes.c_ulong()
    denied(lambda: called("io_setup", 1, ctypes.byref(context_of_io)), "asynchronous writes")
    denied(lambda: called("syslog", 10, 0, 0), "the kernel's log")
    denied(lambda: _checked(LIBC.prctl(PR_SCHED_CORE, 1, 0, 0, 0)), "a core that nobody else may use")


@trick
def puts_descriptors_on_their_way(context: Any) -> None:
    """The kernel counts them for all processes of a uid, and the zygote must send some."""
    one, other = socket.socketpair()
    with one, other, open(os.devnull) as null:
        for _ in range(4):
            denied(lambda: socket.send_fds(one, [b"x"], [null.fileno()] * 250), "250 descriptors")
        time.sleep(0.2)  # of its neighbours, which need new children


@trick
def makes_a_brother(context: Any) -> None:
    """A process whose parent is the zygote is below no child."""
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    made = LIBC.syscall(ctypes.c_long(clone), ctypes.c_long(CLONE_PARENT | signal.SIGCHLD), 0, 0, 0, 0)
    if made == 0:
        for_ever()
    if made > 0:
        evaded("a process beside the child")


@trick
def lets_its_orphans_go(context: Any) -> None:
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 0) == 0:
        evaded("what it starts is nobody's")
