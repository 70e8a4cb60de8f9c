"""The real command, run once: piped, as a script runs it, or in a terminal, as a person does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.platform import COMMAND, START, environment

COLUMNS = 200
ESCAPE = "\x1b["


@dataclass(frozen=True)
class Ran:
    """How a command ended. In a terminal ``out`` is all that was to be seen."""

    code: int
    out: str
    err: str = ""


def run(*arguments: str, database: str | None = None, folder: Path | None = None, **more: str) -> Ran:
    """Piped. ``more`` are variables of the environment."""
    ran = subprocess.run(
        [COMMAND, *arguments],
        env=environment(database) | more,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def run_in_terminal(*arguments: str, database: str | None = None, folder: Path | None = None, **more: str) -> Ran:
    """In a terminal, until it ends by itself."""
    with Terminal.open(*arguments, database=database, folder=folder, **more) as terminal:
        return Ran(terminal.wait(), terminal.seen)


@dataclass
class Terminal:
    """A command that goes on in a terminal of its own."""

    process: subprocess.Popen[bytes]
    screen: int
    seen: str = ""

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, *arguments: str, database: str | None = None, folder: Path | None = None, **more: str
    ) -> Iterator[Terminal]:
        screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        process = subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(database) | {"TERM": "xterm-256color"} | more,
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # its controlling terminal: Ctrl-C comes by it
        )
        os.close(theirs)
        try:
            yield cls(process, screen)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(screen)

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def wait_for(self, words: str) -> None:
        """Until these words can be seen."""
        self._read(lambda: words in self.seen)
        assert words in self.seen, self.seen

    def wait(self) -> int:
        """Its exit code, once it has ended and all that it said was read."""
        self._read(lambda: False)
        return self.process.wait(START)

    def _read(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START
        while not enough() and time.monotonic() < deadline:
            if not select.select([self.screen], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.screen, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                return
            self.seen += data.decode(errors="replace").replace("\r\n", "\n")
