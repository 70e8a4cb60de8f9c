"""Coroutines that nobody awaited, as the child notices them while a handler runs.

One of the platform's own (``CircuitDB.update(…)``) was to write or to ask: without it the execution has not succeeded.
Of any other nobody knows what it was for, so it is an error in the log.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from circuit_script.execution.authoring import calls, context, database, queries
from circuit_script.execution.session import Session, current_record, whose

MOST = 20  # places that are told of one execution

_OURS = frozenset(str(module.__file__) for module in (calls, context, database, queries))
_NAMES = {"Context": "context"}  # as an author writes them
_HTTP = "circuit_script.execution.authoring.http_client"  # whose methods are httpx's


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


_collecting = False


def heed() -> None:
    """Notice each coroutine of this thread that is dropped, and where it was made.

    Python asks `warnings` for a function of this name. A warning would be lost to the author's filters, and names the
    line that drops the coroutine, which is the platform's when it was kept in a variable. To know where each was made
    costs a quarter of a microsecond.
    """
    sys.set_coroutine_origin_tracking_depth(1)
    warnings._warn_unawaited_coroutine = _notice  # type: ignore[attr-defined]
    queries.on_dropped(_note)


def share() -> None:
    """Several executions run in this process: what the garbage collector frees may be anybody's, and concerns none."""

    def notice(phase: str, _: object) -> None:
        global _collecting
        _collecting = phase == "start"

    gc.callbacks.append(notice)


def found(session: Session) -> list[Dropped]:
    """What the execution has dropped so far, a place at a time."""
    return list(session.dropped_coroutines)


def _notice(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Python is about to free a coroutine that has not begun. This may happen between any two steps of this process, so
    it is only kept in mind."""
    origin = coroutine.cr_origin  # type: ignore[attr-defined]
    if origin:
        file, line = origin[0][:2]
    else:  # in another thread
        frame = sys._getframe(1)
        file, line = frame.f_code.co_filename, frame.f_lineno
    owner, dot, name = coroutine.__qualname__.rpartition(".")  # type: ignore[attr-defined]
    http = _is_http(coroutine)
    call = f"{'http' if http else _NAMES.get(owner, owner)}{dot}{name}".replace("<locals>.", "")
    ours = http or coroutine.cr_code.co_filename in _OURS  # type: ignore[attr-defined]
    _note(file, line, call, ours)


def _note(file: str, line: int, call: str, ours: bool = True) -> None:
    """Keep in mind what was made there and never awaited: a coroutine, or a query, which is no coroutine until then."""
    session = whose()
    if session is not None and not _collecting and len(session.dropped_coroutines) < MOST:
        session.dropped_coroutines[Dropped(file, line, call, ours, current_record.get())] = None


def _is_http(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Whether it is a method of the platform's own client."""
    frame = coroutine.cr_frame  # type: ignore[attr-defined]
    return frame is not None and type(frame.f_locals.get("self")).__module__ == _HTTP
