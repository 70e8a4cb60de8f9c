"""From an outcome to what becomes of each row of its batch: succeed, retry, die, or be isolated."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from circuit_script.clock import time_of
from circuit_script.effects.settle import Settled
from circuit_script.events.backlog import Queued
from circuit_script.execution.outcome import JOB, NO_HINT, Breached, Failed, Hint, Outcome, Succeeded
from circuit_script.execution.retries import UNFIT, Retries
from circuit_script.execution.timing import HORIZON, duration_shown
from circuit_script.governor import LOOP

LONGEST_BACKOFF = 3600.0
MOST_DOUBLED = 30
LONGEST_WAIT = timedelta(days=35)  # of an event for money or a quota: longer than any month
WAITING = frozenset({"retry", "deferred"})  # what becomes of a row that stays in the queue
NO_HINTS: Mapping[int, Hint] = {}
HOPELESS = frozenset({LOOP, "depth"})  # breaches after which nothing is tried again


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``attempts`` in all; delays double from ``backoff`` seconds; ``hold`` is how long a retry holds its key. What
    raises a class in ``permanent``, by name, is tried no more."""

    attempts: int
    backoff: float
    hold: float
    permanent: frozenset[str] = frozenset()

    def of(self, retries: Retries | None) -> RetryPolicy:
        """This policy, with what a trigger says of its own."""
        if retries is None:
            return self
        return RetryPolicy(
            self.attempts if retries.attempts is None else retries.attempts,
            self.backoff if retries.backoff is None else retries.backoff,
            self.hold if retries.hold is None else retries.hold,
            frozenset(retries.permanent),
        )

    def delay(self, attempt: int, least: float = 0.0) -> float:
        """Seconds before the attempt after ``attempt``: any up to the doubled step (full jitter), and at least those
        that a vendor asked for, spread over one ``backoff``."""
        step = min(max(LONGEST_BACKOFF, self.backoff), self.backoff * 2.0 ** min(attempt - 1, MOST_DOUBLED))
        delay = random.uniform(0.0, step)  # spreads load, guards nothing
        return max(delay, least + random.uniform(0.0, min(self.backoff, least))) if least else delay

    def gives_up(self, hint: Hint) -> bool:
        """Whether a failure by such an exception is tried no more; a class may be named without its module."""
        return UNFIT in hint.kinds or any(
            kind in self.permanent or kind.rpartition(".")[2] in self.permanent for kind in hint.kinds
        )


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """How a record ended that did not succeed. ``after`` are the seconds until its next attempt, where the author
    wants others than the policy; a ``cancelled`` one has none, nor has a ``final`` one, which is a dead letter. A
    ``deferred`` one waits for money or a quota, which is no failure: it does not count as an attempt. ``hint`` is what
    its exception says."""

    reason: str
    after: float | None = None
    cancelled: bool = False
    final: bool = False
    deferred: bool = False
    hint: Hint = NO_HINT


@dataclass(frozen=True, slots=True)
class Finished:
    """Every row has its end: failures map the index of a row that did not succeed to how it ended."""

    status: str
    failures: Mapping[int, RecordEnd]


@dataclass(frozen=True, slots=True)
class Split:
    """Nothing of this execution counts; its rows run again, apart."""

    status: str
    parts: Sequence[Sequence[int]]


def judge(
    outcome: Outcome, size: int, *, unattributed: bool, trust: bool = True, put_off: Collection[float] = ()
) -> Finished | Split:
    """What an outcome means for a batch of ``size`` records.

    ``unattributed`` effects leave only if every record succeeded, so with them a partial success is split; say False
    when they are lost anyhow. Without ``trust`` in suspects (they have been wrong or many already) a batch is halved. A
    ``size`` of 0 is what checkpoints have left of a batch. ``put_off`` is as in ``ends_of``.
    """
    match outcome:
        case Succeeded(errors=errors) if not errors:
            return Finished("succeeded", {})
        case Succeeded(errors=errors) if unattributed and len(errors) < size:
            return Split("partial", apart(errors, size))
        case Succeeded(errors=errors, decided=decided, hints=hints):
            ends = ends_of(errors, decided, put_off, hints)
            return Finished(status_of(ends.values(), size), ends)
        case Failed(disturbed=True) if size:
            return Split("failed", [range(size)])
        case Failed(reason=reason, hint=hint) if size <= 1:
            return Finished("failed", dict.fromkeys(range(size), RecordEnd(reason, hint=hint)))
        case Breached() if size <= 1:
            # Who went round in circles would do so again, and pay for it.
            end = RecordEnd(outcome.reason, final=outcome.limit in HOPELESS)
            return Finished("breached", dict.fromkeys(range(size), end))
        case Failed(suspect=suspect):
            return Split("failed", isolate(suspect if trust else None, size))
        case Breached(suspect=suspect):
            return Split("breached", isolate(suspect if trust else None, size))


def ends_of(
    errors: Mapping[int, str],
    decided: Mapping[int, float | None],
    put_off: Collection[float] = (),
    hints: Mapping[int, Hint] = NO_HINTS,
) -> dict[int, RecordEnd]:
    """Errors with what was decided of them: seconds until the next attempt, None for never. ``put_off`` are the seconds
    for which the platform itself put something off in this execution: who waits exactly so long waits for that."""
    ends = {}
    for place, reason in errors.items():
        after = decided.get(place)
        ends[place] = RecordEnd(
            reason,
            after,
            place in decided and after is None,
            deferred=after in put_off,
            hint=hints.get(place, NO_HINT),
        )
    return ends


def decided_of(ends: Mapping[int, RecordEnd]) -> dict[int, float | None]:
    """The seconds until the next attempt of those for which they were decided, None for never."""
    return {place: end.after for place, end in ends.items() if end.cancelled or end.after is not None}


def ended(outcome: Outcome, failures: Collection[RecordEnd], size: int) -> tuple[str, bool]:
    """The status of an execution over ``size`` records, of which ``failures`` did not succeed; and whether it is whole,
    so that also what belongs to none of them leaves."""
    match outcome:
        case Succeeded():
            return status_of(failures, size), not failures
        case Failed():
            return "failed", False
        case Breached():
            return "breached", False


def status_of(failures: Collection[RecordEnd], size: int) -> str:
    """How an execution over ``size`` records ended that returned."""
    if not failures:
        return "succeeded"
    if all(end.deferred for end in failures):
        return "deferred"
    if len(failures) < size:
        return "partial"
    return "cancelled" if all(end.cancelled for end in failures) else "failed"


def together(outcome: Outcome, size: int, records: Sequence[str], put_off: Collection[float] = ()) -> Finished | Split:
    """What an outcome means for a batch that is all or none: as its first culprit ends, so does every record of it."""
    match outcome:
        case Failed(disturbed=True) if size:
            return Split("failed", [range(size)])
        case Failed(suspect=suspect) | Breached(suspect=suspect):
            alone = judge(replace(outcome, suspect=None), 1, unattributed=False)
            assert isinstance(alone, Finished)
            status, culprit, end = alone.status, suspect, alone.failures[0]
        case Succeeded(errors=errors) if not errors:
            return Finished("succeeded", {})
        case Succeeded(errors=errors, decided=decided, hints=hints):
            ends = ends_of(errors, decided, put_off, hints)
            # A decision stands for the whole batch only when nobody failed without one.
            culprit = min(ends, key=lambda place: (ends[place].cancelled, ends[place].deferred, place))
            end = ends[culprit]
            status = status_of([end] * size, size)
    if culprit is None:
        return Finished(status, dict.fromkeys(range(size), end))
    others = replace(end, reason=f"{end.reason} (record {records[culprit]} of its batch, which is all or none)")
    return Finished(status, {place: end if place == culprit else others for place in range(size)})


def apart(errors: Collection[int], size: int) -> list[list[int]]:
    """Each failed record alone, the others together."""
    rest = [place for place in range(size) if place not in errors]
    return [*([place] for place in errors), *([rest] if rest else [])]


def isolate(suspect: int | None, size: int) -> list[list[int]]:
    """The suspect alone first, then the others; halves when nobody is suspected."""
    if suspect is not None and 0 <= suspect < size:
        return [[suspect], [place for place in range(size) if place != suspect]]
    middle = size // 2
    return [list(range(middle)), list(range(middle, size))]


def settle_row(row: Queued, failure: RecordEnd | None, policy: RetryPolicy, now: datetime) -> Settled:
    """The row's end, or its next attempt."""
    attempts = row.attempts + 1
    match failure:
        case None:
            status = "succeeded"
        case RecordEnd(cancelled=True):
            status = "cancelled"
        case RecordEnd(deferred=True):  # it has not had its attempt, however often it comes back
            status, attempts = "deferred" if now - time_of(row.delivery) < LONGEST_WAIT else "dead", row.attempts
        case _:
            hopeless = failure.final or policy.gives_up(failure.hint)
            status = "dead" if hopeless or attempts >= policy.attempts else "retry"
    settled = Settled(
        id=row.id,
        handler=row.handler,
        lane=row.lane,
        delivery=row.delivery,
        ordinal=row.ordinal,
        tenant=row.tenant,
        record=row.record,
        status=status,
        attempts=attempts,
        order_hash=row.order_hash,
        reason=failure.reason if failure is not None else None,
    )
    if failure is None or status not in WAITING:
        return settled
    delay = policy.delay(attempts, failure.hint.after) if failure.after is None else failure.after
    return replace(
        settled,
        not_before=now + timedelta(seconds=delay),
        held_until=row.held_until or now + timedelta(seconds=policy.hold),
    )


def in_step(settled: Sequence[Settled]) -> list[Settled]:
    """Rows of a batch that is all or none, which come back at one moment."""
    waits = [row.not_before for row in settled if row.not_before is not None]
    return [replace(row, not_before=max(waits)) if row.not_before is not None else row for row in settled]


def too_old(row: Queued, max_age: float | None, moment: datetime) -> str | None:
    """Why an event is not run any more; None for one that is young enough, or that a person has put back."""
    if max_age is None or row.past is not None:
        return None
    since = time_of(row.delivery)
    if row.object == JOB and row.not_before is not None:  # it came for a later moment, at most so much earlier
        since = max(since, min(row.not_before, since + HORIZON))
    age = (moment - since).total_seconds()
    if age <= max_age:
        return None
    return f"it is too old: {duration_shown(int(age))} since it arrived, and max_age is {duration_shown(max_age)}"
