"""What of a trial is tried again, while its author lets something fail: as the road would, but at once.

A record that failed is tried again up to its handler's attempts; a batch that failed as a whole is taken apart; what
was not committed runs again and counts as no attempt. Replies of calls are kept from one try to the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from circuit_script.clock import uuid7
from circuit_script.effects.unit import Send, UnitOfWork, Write
from circuit_script.events.verdicts import HOPELESS, Finished, RetryPolicy, Split, judge, together
from circuit_script.execution.outcome import ALL_OR_NONE, NO_HINT, Breached, Failed, Outcome, Succeeded
from circuit_script.wiring.trial_batch import Attempt, Given, TrialBroker
from circuit_script.wiring.trial_faults import COMMIT, KINDS, WORKER, Faults
from circuit_script.wiring.trial_result import TrialBatch

MOST = 1_000  # executions of one batch


class KeptJournal:
    """Replies of the calls of one batch, over all tries. Those of a record outlive a worker, as the road stores them;
    those of the whole batch are there while it is taken apart, and neither for who is put off nor after a worker's
    end."""

    def __init__(self, given: Sequence[Given]) -> None:
        self._rows = [each.seq for each in given]
        self._kept: dict[tuple[int, bytes], bytes] = {}
        self._in_memory: dict[tuple[int, bytes], bytes] = {}

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        if owner is not None and not 0 <= owner < len(self._rows):
            return None
        for row in self._rows if owner is None else (self._rows[owner],):
            found = self._kept.get((row, key)) or self._in_memory.get((row, key))
            if found is not None:
                return found
        return None

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        if owner is None:
            self._in_memory |= {(row, key): reply for row in self._rows}
        else:
            self._kept[self._rows[owner], key] = reply

    def go_on(self, given: Sequence[Given]) -> None:
        """These run next."""
        self._rows = [each.seq for each in given]

    def put_off(self, given: Sequence[Given]) -> None:
        """These have failed, and run again later."""
        rows = {each.seq for each in given}
        self._in_memory = {at: reply for at, reply in self._in_memory.items() if at[0] not in rows}

    def lose(self) -> None:
        """The worker is gone."""
        self._in_memory.clear()


def parts_of(trying: Attempt, outcome: Outcome, put_off: Collection[float]) -> Sequence[Sequence[int]] | None:
    """The places that run again apart, so that nothing of this execution counts; None when it stands."""
    if trying.settled:
        return None
    if trying.spec.batch == ALL_OR_NONE:
        verdict = _together(trying, outcome, put_off)
    else:
        verdict = judge(outcome, len(trying.given), unattributed=trying.unit.unattributed, put_off=put_off)
    return verdict.parts if isinstance(verdict, Split) else None


def _together(trying: Attempt, outcome: Outcome, put_off: Collection[float]) -> Finished | Split:
    return together(outcome, len(trying.given), [each.id for each in trying.given], put_off)


def places_again(
    trying: Attempt, batch: TrialBatch, outcome: Outcome, put_off: Collection[float], policy: RetryPolicy
) -> list[int]:
    """The places of the records that failed and have another attempt, if there is one."""
    if isinstance(outcome, Breached) and outcome.limit in HOPELESS:
        return []
    hints = outcome.hints if isinstance(outcome, Succeeded) else {}
    if trying.spec.batch == ALL_OR_NONE:  # what its culprit says, all of it says
        verdict = _together(trying, outcome, put_off)
        hints = {place: end.hint for place, end in verdict.failures.items()} if isinstance(verdict, Finished) else {}
    found = []
    for place, each in enumerate(trying.given):
        hint = outcome.hint if isinstance(outcome, Failed) else hints.get(place, NO_HINT)
        stays = each.id in batch.decided and (batch.decided[each.id] is None or batch.decided[each.id] in put_off)
        if each.id in batch.errors and not stays and not policy.gives_up(hint):
            found.append(place)
    return found


def another(trying: Attempt, given: Sequence[Given], places: Sequence[int], number: int) -> Attempt:
    """These of its records once more, as they are now; ``number`` is which attempt it is."""
    work = trying.work
    again = replace(
        work,
        execution=uuid7(),
        records=[each.record for each in given],
        old=[each.old for each in given],
        events=[{**work.events[place], "attempt": number} for place in places],
        verdicts={new: work.verdicts[old] for new, old in enumerate(places) if old in work.verdicts},
    )
    contacts = [contact if isinstance(contact := each.incoming.get("contactId"), str) else None for each in given]
    unit = UnitOfWork(work.object, [each.id for each in given], contacts)
    return Attempt(trying.spec, again, given, unit, home=trying.home)


def concluded_of(batch: TrialBatch, again: Collection[str]) -> TrialBatch | None:
    """What stands of an execution of which these records are tried again; None when nothing does."""
    left = tuple(key for key in batch.records if key not in again)
    if not left:
        return None
    errors = {key: why for key, why in batch.errors.items() if key in left}
    status = "succeeded" if not errors else "partial" if len(errors) < len(left) else "failed"
    return replace(
        batch,
        records=left,
        status=status,
        reason=next(iter(errors.values()), ""),
        detail=batch.detail if errors else "",
        errors=errors,
        decided={key: after for key, after in batch.decided.items() if key in left},
        discarded=tuple(each for each in batch.discarded if each.record not in again),
        crashed=batch.crashed and bool(errors),
    )


@dataclass(frozen=True, slots=True)
class Again:
    """How one batch is tried again. ``run`` runs an attempt, ``commit`` stores what is left of it, ``as_now`` gives
    records as the CRM has them now, ``lose`` ends the children of a worker."""

    policy: RetryPolicy
    faults: Faults
    journal: KeptJournal
    run: Callable[[Attempt, KeptJournal, bool], Awaitable[tuple[Outcome, TrialBroker]]]
    commit: Callable[[Attempt, TrialBatch, Sequence[Write], Sequence[Send]], Awaitable[TrialBatch]]
    as_now: Callable[[str, str, Sequence[Given]], Awaitable[list[Given]]]
    lose: Callable[[], None]

    async def tries(self, first: Attempt) -> tuple[list[TrialBatch], list[TrialBatch]]:
        """The executions that stand, each record in one of them, and those that were tried again."""
        waiting = [(first, 1)]
        stands: list[TrialBatch] = []
        retried: list[TrialBatch] = []
        while waiting:
            trying, number = waiting.pop(0)
            self.journal.go_on(trying.given)
            batch, parts, counts = await self._once(trying)
            if not parts or (counts and number >= self.policy.attempts) or len(retried) >= MOST:
                stands.append(batch)
                continue
            retried.append(batch)
            again = {trying.given[place].id for part in parts for place in part}
            if (rest := concluded_of(batch, again)) is not None:
                stands.append(rest)
            for part in reversed(parts):
                before = [trying.given[place] for place in part]
                if counts:
                    self.journal.put_off(before)
                given = await self.as_now(trying.work.object, trying.work.tenant, before)
                waiting.insert(0, (another(trying, given, part, number + counts), number + counts))
        return stands, retried

    async def _once(self, trying: Attempt) -> tuple[TrialBatch, Sequence[Sequence[int]], int]:
        """How one try ended, the places that are tried again in parts, and whether that counts as an attempt."""
        outcome, broker = await self.run(trying, self.journal, True)
        if struck := self.faults.strikes(COMMIT, WORKER):
            if struck == WORKER:
                self.journal.lose()
                self.lose()
            outcome = Failed(KINDS[struck], outcome.usage)
        parts = None if struck else parts_of(trying, outcome, broker.put_off)
        batch, writes, sends = trying.concluded(outcome, broker.put_off)
        if parts is not None or (struck and not trying.settled):
            return batch, parts or [range(len(trying.given))], 0
        batch = await self.commit(trying, batch, writes, sends)
        places = places_again(trying, batch, outcome, broker.put_off, self.policy)
        return batch, [places] if places else [], 0 if struck else 1
