"""Runs an existing script within a handler, as ``python script.py`` would."""

from __future__ import annotations

import os
import runpy
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Thread

from circuit_script.execution.authoring.log import Printed, finish_lines

CHUNK = 64 * 1024


class ScriptFailed(Exception):
    """The script ended with an exit code that is not 0."""


def run_script(path: str | os.PathLike[str], *arguments: str) -> None:
    """Run the Python file at ``path`` as ``__main__`` with these command-line arguments.

    What it and the programs that it starts print goes to the log of the execution; its requests, time and memory count
    against the handler's limits.
    Ending by itself, ``sys.exit()`` and ``sys.exit(0)`` are success. Raises ScriptFailed for every other exit, and what
    the script raises. It runs in the handler's process, so that it belongs in a plain ``def``.
    """
    script = Path(path).resolve()
    if not script.is_file():
        raise FileNotFoundError(f"There is no script {script}.")
    with _as_main(script, arguments), _Heard(1, "info"), _Heard(2, "warning"):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as left:
            if left.code not in (None, 0):
                said = f"with {left.code}" if isinstance(left.code, int) else f"saying: {left.code}"
                raise ScriptFailed(f"{script.name} exited {said}") from None


@contextmanager
def _as_main(script: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    """The interpreter as a script expects it: its arguments, and its own folder first among those to import from."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    try:
        yield
    finally:
        sys.argv = argv
        sys.path[:] = path


class _Heard:
    """Meanwhile a standard stream of this process, as programs inherit it, is a pipe whose lines become log lines."""

    def __init__(self, descriptor: int, level: str) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()
        self._lines = Printed.stream(level)

    def __enter__(self) -> None:
        self._before = os.dup(self._descriptor)
        self._heard, said = os.pipe()
        self._over, self._end = os.pipe()
        os.set_blocking(self._heard, False)
        self._thread = Thread(target=copy_context().run, args=(self._listen,), daemon=True)
        self._thread.start()  # first: with nobody to listen, who speaks would wait for ever
        os.dup2(said, self._descriptor)
        os.close(said)

    def __exit__(self, *_: object) -> None:
        """A program that goes on without the script is not waited for, and what it still says goes nowhere."""
        os.dup2(self._before, self._descriptor)
        if os.getpid() == self._process:  # not one that the script has forked, which may end the same way
            os.write(self._end, b".")  # to close it says nothing while such a one has it open, too
        self._thread.join()
        for each in (self._before, self._heard, self._over, self._end):
            os.close(each)

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        over = closed = False
        while not over:
            over = self._over in dict(poll.poll())
            if not closed and (closed := self._pass_on()):
                poll.unregister(self._heard)
        finish_lines(self._lines)

    def _pass_on(self) -> bool:
        """Pass on what is there, no more than a pipe holds: one that never stops must not keep us. Whether nobody can
        write any more: the script has closed its own, too."""
        try:
            chunk = os.read(self._heard, CHUNK)
        except BlockingIOError:
            return False
        self._lines.buffer.write(chunk)
        self._lines.buffer.flush()
        return not chunk
