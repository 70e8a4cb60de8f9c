"""Where the author's code is: the line of the app that crossed a limit, as the child sees it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from types import FrameType, TracebackType

FOREIGN = f"{os.sep}site-packages{os.sep}"  # an environment within the app's folder is not the author's
LONGEST = 200  # characters of a file's name

_folder = ""
_told: memoryview | None = None  # the shared memory


def know(folder: str) -> None:
    """The app's folder; until it is known, no line is the author's."""
    global _folder
    _folder = os.path.join(os.path.abspath(folder), "")


def tell_in(memory: memoryview) -> None:
    """Where the parent reads the line: a handler that swallows what it is told never sends it."""
    global _told
    _told = memory


def tell(line: str) -> None:
    """Say which line crossed the limit."""
    if _told is not None:
        text = line.encode("utf-8", "replace")[: len(_told)]
        _told[: len(text)] = text


def line_of_frame(frame: FrameType | None) -> str:
    """The innermost line of the app that leads to ``frame``, as "triggers/contact.py:12"; "" where there is none."""
    return _first((each.f_code.co_filename, number) for each, number in traceback.walk_stack(frame))


def line_of_traceback(found: TracebackType | None) -> str:
    """The innermost line of the app that an exception went through."""
    lines = [(each.f_code.co_filename, number) for each, number in traceback.walk_tb(found)]
    return _first(reversed(lines))


def line_of_error(error: BaseException) -> str:
    """The innermost line of the app that ``error`` went through, or those that it was raised from."""
    seen: set[int] = set()
    line = ""
    cause: BaseException | None = error
    while cause is not None and not line and id(cause) not in seen:
        seen.add(id(cause))
        line = line_of_traceback(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    return line


def _first(lines: Iterable[tuple[str, int | None]]) -> str:
    if not _folder:
        return ""
    for file, number in lines:
        if file.startswith(_folder) and FOREIGN not in file:
            return f"{file[len(_folder) :][-LONGEST:]}:{number}"
    return ""
