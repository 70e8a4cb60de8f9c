"""`circuit-script dev` in a terminal of its own: what a developer types, and what they see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import tempfile
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.platform import COMMAND, Platform, environment, write_app
from tests.servers import TEMPLATE, Server, until

COLUMNS = 240
CTRL_C = b"\x03"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Developer(Platform):
    """One ``dev`` in ``folder``, in a pseudo-terminal."""

    more: dict[str, str] = field(default_factory=dict)
    _screen: int = field(init=False, default=-1)
    _seen: list[bytes] = field(init=False, default_factory=list)
    _reader: threading.Thread = field(init=False)
    _closing: threading.Event = field(init=False, default_factory=threading.Event)

    def start(self, *, wait: bool = True) -> Developer:
        if self._screen >= 0:
            self.hang_up()
        self._screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [COMMAND, "dev", "--folder", str(self.folder), *self.arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**environment(self.database), "TERM": "xterm-256color", **self.more},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # its controlling terminal: Ctrl-C comes by it
        )
        os.close(terminal)
        self._seen = []
        self._closing.clear()
        self._reader = threading.Thread(target=self._read, args=(self._screen,), daemon=True)
        self._reader.start()
        if wait:
            self.wait_ready()
        return self

    def _read(self, screen: int) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                if select.select([screen], [], [], 0.02)[0]:
                    self._seen.append(os.read(screen, 65536))

    def raw(self) -> str:
        """Everything that came to the terminal so far, colours included."""
        return b"".join(self._seen).decode(errors="replace")

    def log(self) -> str:
        """What the developer reads."""
        return _STYLE.sub("", self.raw()).replace("\r\n", "\n")

    def mark(self) -> int:
        """How much they have read by now."""
        return len(self.log())

    def wait_for(self, words: str, *, since: int = 0, times: int = 1) -> str:
        """What came since the mark, once these words stand in it so often."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.log()[since:].count(words) >= times or self.process.poll() is not None, words, 30.0)
        found = self.log()[since:]
        assert found.count(words) >= times, f"{words!r} is not in:\n{found}"
        return found

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def hang_up(self) -> None:
        """The terminal's window is closed."""
        self._closing.set()  # a terminal that somebody reads does not close
        self._reader.join()
        os.close(self._screen)
        self._screen = -1

    def end(self) -> None:
        super().end()
        if self._screen >= 0:
            self.hang_up()


@contextlib.contextmanager
def app_on(server: Server, triggers: str, **settings: str) -> Iterator[Developer]:
    """A folder with an app on a fresh database of ``server``, for `dev`, which is not started yet."""
    database = server.create_database(TEMPLATE)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        folder = Path(parent) / "app"
        port = write_app(folder, triggers, **settings)
        developer = Developer(folder, port, server.url(database))
        try:
            yield developer
        finally:
            if hasattr(developer, "process"):
                developer.end()
    server.drop_database(database)
