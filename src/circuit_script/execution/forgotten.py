"""Coroutines that nobody awaited, as the child notices them while a handler runs.

One of the platform's own (``CircuitDB.update(…)``) was to write or to ask: without it the execution has not succeeded.
Of any other nobody knows what it was for, so it is an error in the log.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from circuit_script.execution import calls, context, database
from circuit_script.execution.session import current_record

MOST = 20  # places that are told of one execution

_OURS = frozenset(str(module.__file__) for module in (calls, context, database))
_NAMES = {"Http": "http", "Context": "context"}  # as an author writes them


@dataclass(frozen=True, slots=True)
class Dropped:
    """Where a coroutine was made that was never awaited. ``record`` is the place of the record in whose block it was
    dropped; ``ours`` says that the platform would have run it."""

    file: str
    line: int
    call: str
    ours: bool
    record: int | None = None

    @property
    def wrong(self) -> str:
        return f"{self.file}:{self.line}: {self.call}(…) was never awaited: it did nothing. Write `await` before it."


_dropped: dict[Dropped, None] = {}


def heed() -> None:
    """Notice each coroutine of this thread that is dropped, and where it was made.

    Python asks `warnings` for a function of this name. A warning would be lost to the author's filters, and names the
    line that drops the coroutine, which is the platform's when it was kept in a variable. To know where each was made
    costs a quarter of a microsecond.
    """
    sys.set_coroutine_origin_tracking_depth(1)
    warnings._warn_unawaited_coroutine = _notice  # type: ignore[attr-defined]


def begin() -> None:
    """A new execution: what was dropped before does not concern it."""
    _dropped.clear()


def found() -> list[Dropped]:
    """What has been dropped since the execution began, a place at a time."""
    return list(_dropped)


def _notice(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Python is about to free a coroutine that has not begun. This may happen between any two steps of this process, so
    it is only kept in mind."""
    if len(_dropped) >= MOST:
        return
    origin = coroutine.cr_origin  # type: ignore[attr-defined]
    if origin:
        file, line = origin[0][:2]
    else:  # in another thread
        frame = sys._getframe(1)
        file, line = frame.f_code.co_filename, frame.f_lineno
    owner, dot, name = coroutine.__qualname__.rpartition(".")  # type: ignore[attr-defined]
    call = f"{_NAMES.get(owner, owner)}{dot}{name}".replace("<locals>.", "")
    ours = coroutine.cr_code.co_filename in _OURS  # type: ignore[attr-defined]
    _dropped[Dropped(file, line, call, ours, current_record.get())] = None
