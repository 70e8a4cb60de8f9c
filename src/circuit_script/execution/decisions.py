"""Retry and Cancel: what an author decides about a record, or about the whole batch, instead of a failure."""

from __future__ import annotations

from collections.abc import ValuesView
from datetime import timedelta
from typing import Any

from circuit_script.execution.outcome import LONGEST_RETRY


class Decision(Exception):
    """Retry or Cancel. ``after`` is in seconds; None is never."""

    after: float | None = None
    reason: str = ""


def decision_of(answer: object) -> Decision | None:
    """The decision that a handler returned, if it is one; the class Cancel counts as ``Cancel()``.

    Raises TypeError for what looks like one and would be lost: the class Retry, and decisions in a list.
    """
    if answer is None or isinstance(answer, Decision):
        return answer
    if isinstance(answer, type) and issubclass(answer, Decision):
        if issubclass(answer, Cancel):
            return answer()
        raise TypeError("Retry was returned without a time: write `return Retry(after=60)`.")
    several = answer.values() if isinstance(answer, dict) else answer
    if isinstance(several, (list, tuple, set, frozenset, ValuesView)) and any(map(_is_decision, several)):
        raise TypeError(
            f"a {type(answer).__name__} with Retry or Cancel in it was returned, which decides nothing: return one for "
            "the whole batch, or give each to `context.add_error(record, …)`."
        )
    return None


def _is_decision(one: object) -> bool:
    return isinstance(one, Decision) or (isinstance(one, type) and issubclass(one, Decision))


class Retry(Decision):
    """Try this again ``after`` so many seconds (a number or a timedelta, at most 30 days) instead of the usual delay.

    Return it from a handler or raise it there: it is for the whole batch. Raise it in ``context.record(r)`` or give it
    to ``context.add_error(r, Retry(after=30))``: it is for that record. What the record wrote does not leave. It
    counts as an attempt; when all are used up, the event becomes a dead letter with this reason.

    Raises ValueError for a time that is negative, longer than 30 days, or no number.
    """

    def __init__(self, after: float | timedelta, reason: str = "") -> None:
        seconds: Any = after.total_seconds() if isinstance(after, timedelta) else after
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_RETRY:
            raise ValueError(f"Retry(after={after!r}): give seconds from 0 to {LONGEST_RETRY:,} (30 days).")
        self.after: float = float(seconds)
        self.reason = str(reason) or f"the handler asked to be called again after {seconds:g} s"
        super().__init__(self.reason)


class Cancel(Decision):
    """Never try this again: it is done, without success and without a dead letter.

    Returned, raised and given to ``context.add_error`` like Retry. What the record wrote does not leave; its outcome
    is ``cancelled``, with this reason.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = str(reason) or "the handler cancelled it"
        super().__init__(self.reason)
