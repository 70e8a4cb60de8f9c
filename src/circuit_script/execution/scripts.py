"""Runs an existing script within a handler, as ``python script.py`` would."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ScriptFailed(Exception):
    """The script ended with an exit code that is not 0."""


def run_script(path: str | os.PathLike[str], *arguments: str) -> None:
    """Run the Python file at ``path`` as ``__main__`` with these command-line arguments.

    What it prints goes to the log of the execution; its requests, time and memory count against the handler's limits.
    Ending by itself, ``sys.exit()`` and ``sys.exit(0)`` are success. Raises ScriptFailed for every other exit, and what
    the script raises. It runs in the handler's process, so that it belongs in a plain ``def``.
    """
    script = Path(path).resolve()
    if not script.is_file():
        raise FileNotFoundError(f"There is no script {script}.")
    with _as_main(script, arguments):
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
