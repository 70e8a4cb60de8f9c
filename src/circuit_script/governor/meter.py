"""The count of one execution against its limits, kept on the parent's side."""

from __future__ import annotations

from circuit_script.governor.limits import PER_RECORD, LimitExceeded, Limits, Usage


class Meter:
    """Counts what one execution uses. ``crossed`` is the first limit that it crossed, as (name, used, ceiling)."""

    __slots__ = ("_limits", "_records", "crossed", "usage")

    def __init__(self, limits: Limits, records: int) -> None:
        self.usage = Usage()
        self.crossed: tuple[str, float, float] | None = None
        self._limits = limits
        self._records = max(1, records)

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
            raise LimitExceeded(*self.crossed)
