"""Imports an app once more to say where it takes its time and what it leaves behind, by file and line.

``python -m circuit_script.cli.import_probe FOLDER APP SECONDS``: a process of its own, without credentials. It ends
with a JSON list of sentences, when the app is imported or its time is up, and is asked of refused apps only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from circuit_script.errors import AppError
from circuit_script.execution.authoring.importing import import_app

EVERY = 0.02  # seconds between looks at where the import is
SLOW = 1.0  # seconds on one line that are worth a word
SHOWN = 3
FORKS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"})


class _Enough(BaseException):
    """Its time is up."""


def main(folder: Path, app: str, patience: float) -> list[str]:
    """The app's lines that start threads or processes, open sockets, or take long, as sentences. Never raises
    AppError."""
    where = _within(folder)
    spent: Counter[str] = Counter()
    found: dict[str, None] = {}
    ends = time.monotonic() + patience

    def look(_: int, frame: FrameType | None) -> None:
        if line := where(frame):
            spent[line] += 1
        if time.monotonic() > ends:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise _Enough

    def hear(event: str, _: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and (line := where(sys._getframe(1))):
            found[f"{line} opens a socket"] = None
        if event in FORKS and (line := where(sys._getframe(1))):
            found[f"{line} starts a process"] = None

    def start(self: threading.Thread) -> None:
        if line := where(sys._getframe(1)):
            found[f"{line} starts a thread"] = None
        begin(self)

    begin, threading.Thread.start = threading.Thread.start, start  # type: ignore[method-assign]  # no event tells it
    sys.addaudithook(hear)
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    with suppress(AppError, _Enough):
        import_app(folder, app)
    signal.setitimer(signal.ITIMER_REAL, 0)
    slow = [(line, EVERY * n) for line, n in spent.most_common(SHOWN) if EVERY * n >= SLOW]
    return [*(f"{line} takes {seconds:.1f} s" for line, seconds in slow), *list(found)[:SHOWN]]


def _within(folder: Path) -> Callable[[FrameType | None], str | None]:
    def where(frame: FrameType | None) -> str | None:
        """The deepest of the author's lines in this stack."""
        for each, line in traceback.walk_stack(frame):
            path = Path(each.f_code.co_filename)
            if path.is_relative_to(folder) and "site-packages" not in path.parts:
                return f"{path.relative_to(folder)}:{line}"
        return None

    return where


if __name__ == "__main__":
    said = sys.stdout
    sys.stdout = sys.stderr  # what the app prints
    sentences = main(Path(sys.argv[1]).resolve(), sys.argv[2], float(sys.argv[3]))
    print(json.dumps(sentences), file=said, flush=True)
    os._exit(0)  # threads of the app may never end
