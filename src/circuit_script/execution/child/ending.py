"""What a child says of how a run ended."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import suppress

from circuit_script.execution import whereabouts
from circuit_script.execution.authoring.context import reason_of
from circuit_script.execution.authoring.log import finish_lines
from circuit_script.execution.child import forgotten
from circuit_script.execution.protocol import NOBODY, WHOLE, Result, pack
from circuit_script.execution.retries import kinds_of, retry_after
from circuit_script.execution.session import Session, clean
from circuit_script.governor import LimitExceeded

MAX_DETAIL = 8000


def success(refused: str | None, errors: dict[int, str], session: Session) -> Result:
    """The handler came back. ``refused`` is why nothing that an endpoint wrote must count."""
    if refused is not None:
        return Result("refused", reason=refused)
    if (lost := _lost(errors, session)) is not None:
        return Result("raised", errors, lost)
    return Result("returned", errors)


def failure(error: BaseException, errors: dict[int, str], word: int) -> Result:
    """The handler raised; ``word`` is the place of the record that it worked on."""
    if isinstance(error, (LimitExceeded, MemoryError)):
        _tell_line(error)
    match error:
        case LimitExceeded():
            kind = "limit"
        case MemoryError():
            kind = "memory"
        case Exception() | asyncio.CancelledError():
            kind = "raised"
        case _:
            kind = "left"
    try:
        detail = clean("".join(traceback.format_exception(error, limit=-10)))[-MAX_DETAIL:]
    except Exception:
        detail = ""
    hint = kinds_of(error), retry_after(error)
    return Result(kind, errors, reason_of(error), detail, None if word == NOBODY else word, hints={WHOLE: hint})


def _tell_line(error: LimitExceeded | MemoryError) -> None:
    """Say which line of the author's crossed the limit, unless that is known."""
    with suppress(Exception):
        if isinstance(error, MemoryError) or not error.where:
            whereabouts.tell(whereabouts.line_of_error(error))


def packed_result(result: Result) -> bytearray:
    """The result as a frame, whatever an author has put into it."""
    try:
        return pack(result)
    except Exception as error:  # an author reached into context.errors
        why = f"the errors of the batch cannot be sent: {reason_of(error)}"
        return pack(Result("raised", {}, why, unclean=True, run=result.run))


def _lost(errors: dict[int, str], session: Session) -> str | None:
    """Why a handler that returned has not succeeded: it never awaited one of the platform's coroutines.

    One that was dropped in the block of a record that failed, or where all did, may be what the failure left behind.
    """
    dropped = forgotten.found(session)
    if not dropped or (session.run.records and len(errors) >= len(session.run.records)):
        return None
    found = (each for each in dropped if each.ours and each.record not in errors)
    return next((each.wrong for each in found), None)


def flush(session: Session) -> None:
    """Send what the run has printed and not yet ended with a line break, and what it has forgotten."""
    finish_lines(sys.stdout)
    finish_lines(sys.stderr)
    for each in forgotten.found(session):
        session.log({"level": "error", "message": f"{each.wrong} More: circuit-script explain not-awaited"})
    if session.dropped:
        lost = f"{session.dropped:,} bytes of output went over log_bytes and were dropped"
        session.reopen_log(len(lost) + 100)
        session.log({"level": "warning", "message": lost})
