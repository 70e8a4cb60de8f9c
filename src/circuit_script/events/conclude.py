"""From an execution and its outcome to what is settled of it: at a checkpoint, and at the end."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from circuit_script.clock import now, uuid7
from circuit_script.effects.settle import Arrived, Settled, Settlement
from circuit_script.effects.unit import Send, UnitOfWork, Write
from circuit_script.errors import VersionConflict
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item
from circuit_script.events.coalesce import brought_before, superseded
from circuit_script.events.taping import Tape
from circuit_script.events.verdicts import (
    NO_HINTS,
    WAITING,
    Finished,
    RecordEnd,
    RetryPolicy,
    Split,
    ended,
    ends_of,
    in_step,
    judge,
    settle_row,
    status_of,
    together,
)
from circuit_script.execution.outcome import Breached, Failed, Hint, Outcome, Succeeded, Work
from circuit_script.governor import Usage

MAX_DETAIL = 8000
MAX_BATCH = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """What every settlement of one dispatch of a batch has in common."""

    release: int
    epochs: Mapping[int, int]
    policy: RetryPolicy
    together: bool = False  # all of a batch or none

    def settlement(
        self,
        rows: Sequence[Queued],
        status: str,
        settled: Sequence[Settled],
        *,
        execution: UUID | None = None,
        reason: str | None = None,
    ) -> Settlement:
        """A settlement of these rows, without effects."""
        head = rows[0]
        return Settlement(
            execution=execution or uuid7(),
            tenant=head.tenant,
            release=self.release,
            handler=head.handler,
            object=head.object,
            event=head.event,
            records=len(rows),
            status=status,
            started_at=now(),
            usage={},
            reason=reason,
            epochs={row.lane: self.epochs[row.lane] for row in rows},
            rows=settled,
        )


@dataclass(slots=True)
class Batch:
    """A batch that runs as one execution. Of the first ``settled`` records the outcome is committed: checkpoints move
    it forward, and ``rows`` and ``verdict`` speak of the rest."""

    work: Work
    items: Sequence[Item]
    unit: UnitOfWork
    terms: Terms
    usage: Usage = field(default_factory=Usage)  # so far
    put_off: Collection[float] = ()  # seconds for which the platform has put something off, so far
    settled: int = 0
    failures: list[RecordEnd] = field(default_factory=list)  # of the settled records
    waiting: list[Queued] = field(default_factory=list)  # those of them that are tried again
    trace: UUID | None = None  # that it goes on with, where it is not its own
    tape: Tape | None = None  # of what it reads, where that is recorded

    @property
    def rows(self) -> list[Queued]:
        """The rows that have no outcome yet."""
        return [item.row for item in self.items[self.settled :]]

    def verdict(self, outcome: Outcome, *, trust: bool) -> Finished | Split:
        """What the outcome means for the rest; indices count from its first record."""
        size = len(self.items) - self.settled
        rest = _of_the_rest(outcome, self.settled)
        if self.terms.together:
            return together(rest, size, [row.record for row in self.rows], self.put_off)
        # After a settled failure nothing is won by a split: what belongs to nobody is lost already.
        unattributed = self.unit.unattributed and not self.failures
        return judge(rest, size, unattributed=unattributed, trust=trust, put_off=self.put_off)

    def checkpoint(
        self,
        upto: int,
        errors: Mapping[int, str],
        decided: Mapping[int, float | None],
        hints: Mapping[int, Hint] = NO_HINTS,
    ) -> tuple[Settlement, Mapping[int, RecordEnd]]:
        """The settlement of the records up to ``upto`` that have none yet, and who of them failed (from the first of
        them on). The execution goes on: its status is partial."""
        first, items = self.settled, self.items[self.settled : upto + 1]
        size = len(items)
        ends = ends_of(
            _shifted(errors, first, size),
            _shifted(decided, first, size),
            self.put_off,
            _shifted(hints, first, size),
        )
        writes, sends = self.unit.departing(upto, {place + first for place in ends})
        failures = [*self.failures, *ends.values()]
        last = upto + 1 == len(self.items)  # then the process may die: nothing is left that would run again
        base = self._of(items, status_of(failures, len(self.items)) if last else "partial", ends)
        usage = replace(self.usage, wall_time=max(0.0, time.time() - self.work.started_at))
        settlement = replace(
            base,
            reason=_first(failures),
            usage=usage.as_dict(),
            writes=writes,
            sends=_placed(sends, [item.row for item in items], first, base.place),
            local=uuid7(),
        )
        return settlement, ends

    def concluded(self, outcome: Outcome, verdict: Finished | Split) -> Settlement:
        """The settlement of the rest, which is the end of the execution."""
        finished = isinstance(verdict, Finished)
        ends = verdict.failures if isinstance(verdict, Finished) else {}
        items = self.items[self.settled :]
        failures = [*self.failures, *ends.values()]
        status, whole = ended(outcome, failures, len(self.items))
        base = self._of(items if finished else (), status if finished else verdict.status, ends)
        writes: Sequence[Write] = ()
        sends: Sequence[Send] = ()
        if finished:
            writes, sends = self.unit.surviving({place + self.settled for place in ends}, whole=whole)
        return replace(
            base,
            epochs=self._epochs(items),
            reason=outcome.reason if isinstance(outcome, Failed | Breached) else _first(failures),
            detail=outcome.detail[-MAX_DETAIL:] or None if isinstance(outcome, Failed | Breached) else None,
            usage=outcome.usage.as_dict(),
            writes=writes,
            sends=_placed(sends, [item.row for item in items], self.settled, base.place),
        )

    def conflicting(self, conflict: VersionConflict) -> dict[int, str]:
        """The places of the records of which a write was for another version than the stored one, with the reason: all
        that have no outcome yet, where it belongs to nobody."""
        changed = set(conflict.records)
        asking = [each for each in self.unit.writes if each.if_version is not None]
        owners = {each.owner for each in asking if (each.object, each.id) in changed}
        everybody = range(self.settled, len(self.items))
        places = everybody if None in owners else sorted(each for each in owners if each is not None)
        return dict.fromkeys(places, conflict.reason)

    def lost(self, outcome: Outcome, verdict: Finished | Split) -> int:
        """How many effects that belong to nobody are lost for good, as a record did not succeed that a checkpoint has
        settled: those who run again never make them for the whole batch."""
        if isinstance(verdict, Split) or not isinstance(outcome, Succeeded) or not self.failures:
            return 0
        return self.unit.orphans

    def _of(self, items: Sequence[Item], status: str, ends: Mapping[int, RecordEnd]) -> Settlement:
        moment = now()
        head, last = self.items[0].row, self.items[-1].row
        settled = [settle_row(item.row, ends.get(n), self.terms.policy, moment) for n, item in enumerate(items)]
        if self.terms.together:
            settled = in_step(settled)
        brought = (
            brought_before(item) if row.status in WAITING else arrived_of(item)
            for row, item in zip(settled, items, strict=True)
        )
        return Settlement(
            execution=self.work.execution,
            tenant=head.tenant,
            release=self.terms.release,
            handler=head.handler,
            object=head.object,
            event=head.event,
            records=len(self.items),
            status=status,
            started_at=datetime.fromtimestamp(self.work.started_at, UTC),
            usage={},
            epochs=self._epochs(items),
            rows=[*settled, *superseded([item.row for item in items], moment)],
            arrived=[each for each in brought if each is not None],
            place=(last.lane, last.order_hash),
            depth=self.work.depth,
            trace=self.trace,
        )

    def _epochs(self, items: Sequence[Item]) -> Mapping[int, int]:
        return {item.row.lane: self.terms.epochs[item.row.lane] for item in items}


def lost_line(effects: int) -> dict[str, Any]:
    """The line of an execution's log that says what ``Batch.lost`` counts."""
    because = "a record that a checkpoint has settled did not succeed"
    return {
        "level": "warning",
        "message": f"what belongs to no record does not leave (writes and messages: {effects}): {because}",
    }


def arrived_of(item: Item) -> Arrived:
    """The state that an event brought for its record."""
    row = item.row
    return Arrived(row.object, row.record, item.incoming, row.arrived, row.event == "afterDelete")


def _of_the_rest(outcome: Outcome, settled: int) -> Outcome:
    """The outcome without the records that are settled: what was said of them since does not count."""
    if not settled:
        return outcome
    match outcome:
        case Succeeded(errors=errors, decided=decided):
            return replace(
                outcome,
                errors=_shifted(errors, settled),
                decided=_shifted(decided, settled),
                hints=_shifted(outcome.hints, settled),
            )
        case Failed(suspect=suspect) | Breached(suspect=suspect):
            return replace(outcome, suspect=suspect - settled if suspect is not None and suspect >= settled else None)


def _shifted(places: Mapping[int, T], first: int, size: int = MAX_BATCH) -> dict[int, T]:
    """What is said of ``size`` records from ``first`` on, by their place among these."""
    return {place - first: said for place, said in places.items() if first <= place < first + size}


def _placed(
    sends: Sequence[Send], rows: Sequence[Queued], first: int, otherwise: tuple[int, int]
) -> list[tuple[Send, int, int]]:
    """Sends with lane and order of their record, whose place counts among ``rows`` from here on."""
    placed = []
    for send in sends:
        place = None if send.owner is None else send.owner - first
        row = rows[place or 0] if rows else None
        lane, order = (row.lane, row.order_hash) if row is not None else otherwise
        placed.append((replace(send, owner=place) if first else send, lane, order))
    return placed


def _first(failures: Sequence[RecordEnd]) -> str | None:
    return failures[0].reason if failures else None
