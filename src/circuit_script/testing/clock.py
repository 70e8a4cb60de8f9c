"""The clock of a test: it stands still until the test moves it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from circuit_script.errors import TrialRefused
from circuit_script.testing.runs import Run
from circuit_script.wiring.trial_jobs import TrialJobs


class Clock:
    """Says when delayed jobs and schedules are due. Handlers see it as ``context.started_at``; Python's own clocks go
    on as they do."""

    def __init__(self, jobs: TrialJobs, advance: Callable[[float | str | timedelta], Run]) -> None:
        self._jobs = jobs
        self._advance = advance

    @property
    def now(self) -> datetime:
        """What it shows, in UTC."""
        return self._jobs.now

    def set(self, moment: datetime) -> None:
        """Show this moment, without running anything. Raises TrialRefused for one without a time zone."""
        if moment.tzinfo is None:
            raise TrialRefused(f"{moment!r} has no time zone.", cure="Give it one: datetime(…, tzinfo=UTC).")
        self._jobs.move(moment.astimezone(UTC))

    def advance(self, duration: float | str | timedelta) -> Run:
        """Move it on by seconds, a timedelta, or text like "90s", "2h", "1d", and run what becomes due: delayed jobs,
        and schedules as often as they fire."""
        __tracebackhide__ = True
        return self._advance(duration)
