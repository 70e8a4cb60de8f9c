"""Time, CPU and memory where Python does not look: in C, in threads, below, in files that are none."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.behaved import KEPT
from app.swallowing import for_ever
from app.tricks import denied, evaded, trick

MB = 1024 * 1024
LIBC = ctypes.CDLL(None)


@trick
def raises_to_a_huge_power(context: Any) -> None:
    pow(7, 300_000_000)


@trick
def backtracks(context: Any) -> None:
    re.match("(a+)+$", "a" * 60 + "b")


@trick
def sums_in_c(context: Any) -> None:
    sum(range(10**12))


@trick
def sleeps_in_c_holding_the_lock(context: Any) -> None:
    ctypes.PyDLL(None).sleep(60)


@trick
def sleeps_in_c(context: Any) -> None:
    ctypes.CDLL(None).sleep(60)


@trick
def stops_itself(context: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@trick
def compresses_in_threads(context: Any) -> None:
    def burn() -> None:
        while True:
            zlib.compress(bytes(4 * MB), 9)

    for _ in range(4):
        threading.Thread(target=burn).start()
    for_ever()


@trick
def leaves_threads(context: Any) -> None:
    for _ in range(3):
        threading.Thread(target=for_ever).start()


@trick
def leaves_a_pool_of_threads(context: Any) -> None:
    KEPT["pool"] = ThreadPoolExecutor(2)
    KEPT["pool"].submit(for_ever)


@trick
def waits_for_its_pool(context: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(for_ever)


@trick
def burns_in_a_subprocess(context: Any) -> None:
    subprocess.run([sys.executable, "-S", "-c", "while True: pass"], check=False)


@trick
def fills_memfds(context: Any) -> None:
    for _ in range(100):
        KEPT.setdefault("files", []).append(os.memfd_create("hidden"))
        os.write(KEPT["files"][-1], bytes(5 * MB))


@trick
def hides_memfds_in_a_socket(context: Any) -> None:
    """What lies in a socket's queue is in nobody's descriptors."""
    for _ in range(100):
        KEPT.setdefault("pairs", []).append(socket.socketpair())
        hidden = os.memfd_create("hidden")
        os.write(hidden, bytes(5 * MB))
        socket.send_fds(KEPT["pairs"][-1][0], [b"x"], [hidden])
        os.close(hidden)
    evaded("500 MB in flight")


@trick
def shares_anonymous_memory(context: Any) -> None:
    for _ in range(100):
        KEPT.setdefault("maps", []).append(mmap.mmap(-1, 5 * MB))
        KEPT["maps"][-1].write(bytes(5 * MB))


@trick
def allocates_in_a_fork(context: Any) -> None:
    if os.fork() == 0:
        held = [bytearray(5 * MB) for _ in range(100)]
        for each in held:
            each[::4096] = bytes(len(each) // 4096)
        time.sleep(60)
    os.wait()


@trick
def lifts_its_limit(context: Any) -> None:
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY:
        evaded("no limit on memory")
    for _ in range(100):
        KEPT.setdefault("held", []).append(bytearray(os.urandom(5 * MB)))


@trick
def fills_shared_memory_files(context: Any) -> None:
    def fill() -> None:
        with open("/dev/shm/circuit-evasion", "wb") as file:
            for _ in range(200):
                file.write(bytes(MB))

    try:
        denied(fill, "a file in /dev/shm")
    finally:
        with contextlib.suppress(OSError):
            os.unlink("/dev/shm/circuit-evasion")


@trick
def fills_temporary_files(context: Any) -> None:
    def fill() -> None:
        with open(f"{tempfile.gettempdir()}/circuit-evasion", "wb") as file:
            for _ in range(200):
                file.write(bytes(MB))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    denied(fill, "200 MB of temporary files")


@trick
def leaves_temporary_files(context: Any) -> None:
    folder = tempfile.mkdtemp(prefix="circuit-evasion")
    os.chmod(folder, 0o000)
    with open(f"{tempfile.gettempdir()}/circuit-evasion-left", "w") as file:
        file.write("of another tenant")


@trick
def lowers_its_limits(context: Any) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@trick
def prefers_others_to_be_killed(context: Any) -> None:
    def write() -> str:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
        with open("/proc/self/oom_score_adj") as file:
            return file.read()

    denied(write, "oom_score_adj")


def in_an_orphan(work: Callable[[], object]) -> None:
    """Do it in a process whose parent has ended, and that Python does not know of."""
    if LIBC.fork() == 0:
        if LIBC.fork() == 0:
            work()
        os._exit(0)
    os.wait()


def burn() -> None:
    while True:
        pass


def fill() -> None:
    held = bytearray(20 * MB)
    held[::4096] = bytes(len(held) // 4096)
    time.sleep(60)


@trick
def allocates_in_orphans(context: Any) -> None:
    for _ in range(20):
        in_an_orphan(fill)
    time.sleep(60)


@trick
def burns_in_orphans(context: Any) -> None:
    for _ in range(3):
        in_an_orphan(burn)
    time.sleep(60)


@trick
def allocates_below_a_thread(context: Any) -> None:
    def breed() -> None:
        for _ in range(20):
            if LIBC.fork() == 0:
                fill()
        time.sleep(60)

    threading.Thread(target=breed).start()
    time.sleep(60)


@trick
def digs_deep(context: Any) -> None:
    """Folders that no path reaches the end of."""
    inner = os.open(tempfile.gettempdir(), os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 100, dir_fd=inner)
        outer, inner = inner, os.open("d" * 100, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open("secret", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
    os._exit(1)
