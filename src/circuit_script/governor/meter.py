"""The count of one execution against its limits, kept on the parent's side."""

from __future__ import annotations

from circuit_script.governor.cycles import REPEATS, Cycles
from circuit_script.governor.limits import PER_RECORD, Crossed, LimitExceeded, Limits, LoopFound, Usage, breach_of


class Meter:
    """Counts what one execution uses. ``crossed`` is the first limit that it crossed."""

    __slots__ = ("_cycles", "_limits", "_records", "_repeats", "crossed", "usage")

    def __init__(self, limits: Limits, records: int, repeats: int = REPEATS) -> None:
        self.usage = Usage()
        self.crossed: Crossed | None = None
        self._limits = limits
        self._records = max(1, records)
        self._repeats = repeats
        self._cycles: Cycles | None = None

    @property
    def cycles(self) -> Cycles:
        """The calls that come round; who makes calls uses ``note`` and ``answered`` of this meter."""
        if self._cycles is None:
            self._cycles = Cycles(self._repeats, self._records)
        return self._cycles

    def note(
        self, fingerprint: bytes, what: str, *, cost: float = 0.0, owner: int | None = None, vote: bool = False
    ) -> None:
        """Say that a call is about to leave (`Cycles.note`). Raises LoopFound, and for ever after."""
        try:
            self.cycles.note(fingerprint, what, cost=cost, owner=owner, vote=vote)
        except LoopFound as found:
            raise self.exceeded(found) from None

    def answered(self, fingerprint: bytes, reply: bytes | None, *, owner: int | None = None) -> None:
        """Say what a call was answered that was noted (`Cycles.answered`)."""
        if self._cycles is not None:
            self._cycles.answered(fingerprint, reply, owner=owner)

    def told(self, conversation: bytes, length: int, answer: bytes, what: str, *, owner: int | None = None) -> None:
        """Say what a model has said (`Cycles.told`). Raises LoopFound, and for ever after."""
        try:
            self.cycles.told(conversation, length, answer, what, owner=owner)
        except LoopFound as found:
            raise self.exceeded(found) from None

    def changed(self, written: bytes) -> None:
        """Say that something was written or sent (`Cycles.changed`)."""
        if self._cycles is not None:
            self._cycles.changed(written)

    def ceiling(self, limit: str) -> float:
        """The limit of the whole execution: some are per record of its batch."""
        found: float = getattr(self._limits, limit)
        return found * self._records if limit in PER_RECORD else found

    def spend(self, limit: str, amount: float = 1) -> None:
        """Count it. Raises LimitExceeded, also for what can no longer be prevented: then the use is over the limit."""
        used = getattr(self.usage, limit) + amount
        setattr(self.usage, limit, used)
        self.hold(limit, used, self.ceiling(limit))

    def give_back(self, limit: str, amount: float) -> None:
        """Take back what was reserved and not used."""
        setattr(self.usage, limit, max(0, getattr(self.usage, limit) - amount))

    def hold(self, limit: str, used: float, ceiling: float) -> None:
        """Raises LimitExceeded when ``used`` is over ``ceiling``."""
        if used > ceiling:
            raise self.exceeded(LimitExceeded(limit, used, ceiling))

    def exceeded(self, breach: LimitExceeded) -> LimitExceeded:
        """Remember the first breach. Returns the one to raise now."""
        self.crossed = self.crossed or breach.crossed
        return breach

    def go_on(self) -> None:
        """Raises LimitExceeded again, for ever after the first."""
        if self.crossed is not None:
            raise breach_of(*self.crossed)
