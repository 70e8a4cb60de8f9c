"""Lines on standard output, from a thread of its own: whoever reads there may be slow, and the road does not wait."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

BOUND = 10_000  # lines that wait at most
ENDING = 1.0  # seconds for what is left at the end
ENOUGH = 64 * 1024  # bytes of one write
GATHER = 0.2  # seconds between two looks: a thread that wakes for each line costs the road more than the line


class PrintedLines:
    """Writes lines to ``descriptor``, at most ``bound`` behind; what is over is dropped and counted."""

    def __init__(self, descriptor: int = 1, bound: int = BOUND) -> None:
        self._descriptor = descriptor
        self._bound = bound
        self._lines: deque[Callable[[], bytes]] = deque()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="printed lines", daemon=True)
        self._thread.start()
        self.dropped = 0

    def add(self, line: Callable[[], bytes]) -> None:
        """Take a line, which is made into bytes by the thread; never waits."""
        if len(self._lines) >= self._bound:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()

    def stop(self) -> None:
        """Write what is left, for a second at most."""
        self._stopping.set()
        self._some.set()
        self._thread.join(ENDING)

    def _run(self) -> None:
        while not self._stopping.is_set() or self._lines:
            self._some.wait()
            self._stopping.wait(GATHER)
            self._some.clear()
            with contextlib.suppress(OSError):  # nobody reads any more: the lines are in the database
                self._write()

    def _write(self) -> None:
        while self._lines:
            chunk = bytearray()
            while self._lines and len(chunk) < ENOUGH:
                chunk += self._lines.popleft()()
            left = memoryview(chunk)
            while left:
                left = left[os.write(self._descriptor, left) :]
