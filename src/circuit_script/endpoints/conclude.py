"""From a verdict to what is told and what is committed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from circuit_script.endpoints.idempotency import PASSING
from circuit_script.endpoints.protocol import Answer
from circuit_script.endpoints.reply import Reply, problem
from circuit_script.errors import BudgetExceeded, VersionConflict
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.governor import LOOPS

FAILED = "The endpoint failed; its log says why."
NO_ANSWER = "the handler gave no answer"
HUNG_UP = "the caller hung up"
LOST = "The process that should have answered was lost: nothing was committed."
OUT_OF_MONEY = f"{BudgetExceeded.__name__}: "  # so begins the reason of who let it through
NO_MONEY = "The budget for model calls is used up: nothing was committed. Try again when it resets."
DATABASE = "The database went away meanwhile: nothing was committed."
VENDOR = "The CRM that the records are in could not be asked: nothing was committed."
WITH_KEY = "A streamed answer cannot be repeated, so this endpoint takes no Idempotency-Key. Nothing was committed."


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of one call. ``status``, ``reason`` and ``detail`` are the execution's; only with ``effects`` they leave.

    One that is ``lost`` is not recorded: the platform failed, not the handler.
    """

    status: str
    answer: Answer
    effects: bool = False
    reason: str | None = None
    detail: str | None = None
    lost: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether its Idempotency-Key gets this answer again."""
        return self.effects or (self.status == "succeeded" and self.answer.status not in PASSING)


def conclude(
    outcome: Outcome | None,
    reply: Reply,
    execution: str,
    *,
    deadline: float | None,
    away: Literal["database", "vendor"] | None,
    deferred: float | None = None,
) -> Conclusion:
    """What an outcome means. None: nothing was heard in time. ``deadline`` is given when it bounded the time;
    ``deferred`` are the seconds after which there is money again, where a call of a model was put off: that is the
    answer where the execution ended by it, and not by something else."""
    if reply.hung_up:
        return Conclusion("failed", Answer(499, [], b""), reason=HUNG_UP)
    if reply.unrepeatable:
        return Conclusion("failed", problem(400, WITH_KEY, "idempotency-streamed"), reason="it streamed its answer")
    match outcome:
        case None:
            limit = "deadline" if deadline is not None else "wall_time"
            return _breached(limit, f"limit {limit} exceeded", execution)
        case Failed(blameless=True) | Failed(disturbed=True):
            return _lost(LOST, "lost", execution)
        case Failed() if away == "database":
            return _lost(DATABASE, "database-unavailable", execution)
        case Failed() if away == "vendor":
            return _lost(VENDOR, "vendor-unavailable", execution)
        case Breached(limit="wall_time") if deadline is not None:
            where = f", at {outcome.where}" if outcome.where else ""
            reason = f"deadline exceeded: {outcome.used:.2f} s of {deadline:.2f} s{where}"
            return _breached("deadline", reason, execution, outcome.detail)
        case Breached(limit=limit):
            return _breached(limit, outcome.reason, execution, outcome.detail)
        case Failed(reason=reason) if deferred is not None and reason.startswith(OUT_OF_MONEY):
            return _deferred(deferred, reason, execution)
        case Failed(reason=reason, detail=detail):
            return _failed(reason, detail, execution)
        case Succeeded():
            return _answered(reply, execution, outcome.discard)


def _answered(reply: Reply, execution: str, discard: bool) -> Conclusion:
    wrong = NO_ANSWER if reply.head is None else reply.refused
    if wrong:
        return _failed(wrong, "", execution)
    answer = reply.whole()
    if answer.status < 400 and not discard:
        return Conclusion("succeeded", answer, effects=True)
    status = "succeeded" if answer.status < 500 else "failed"
    return Conclusion(status, answer, reason=f"it answered {answer.status}, so its effects were discarded")


def _deferred(seconds: float, reason: str, execution: str) -> Conclusion:
    """There was no money for a model call, and the policy is to defer: whoever called may try again."""
    answer = problem(429, NO_MONEY, "budget", execution=execution, retry_after=math.ceil(seconds))
    return Conclusion("failed", answer, reason=reason)


def _failed(reason: str, detail: str, execution: str) -> Conclusion:
    return Conclusion("failed", problem(500, FAILED, "failed", execution=execution), reason=reason, detail=detail)


def refused_by_database(why: str, execution: str) -> Conclusion:
    """The database does not take what the handler wrote: that is the handler's failure."""
    return _failed(f"the database refused the outcome: {why}", "", execution)


def changed_since(conflict: VersionConflict, execution: str) -> Conclusion:
    """A record was changed that the handler was to find as it had read it: whoever called may try again."""
    answer = problem(409, f"{conflict} Nothing was committed.", "version-conflict", execution=execution)
    return Conclusion("failed", answer, reason=conflict.reason)


def _breached(limit: str, reason: str, execution: str, detail: str = "") -> Conclusion:
    late = limit in ("deadline", "wall_time")
    words = "The endpoint did not answer in its time." if late else f"The endpoint crossed its limit {limit}."
    words = "The endpoint went round in circles." if limit in LOOPS else words
    answer = problem(504 if late else 500, f"{words} Nothing was committed.", limit, execution=execution)
    return Conclusion("breached", answer, reason=reason, detail=detail)


def _lost(words: str, reason: str, execution: str) -> Conclusion:
    answer = problem(503, words, reason, execution=execution, retry_after=1)
    return Conclusion("failed", answer, reason=reason, lost=True)
