"""Jobs of a trial: what handlers enqueue waits here in the place of the queue, and schedules fire by a clock that
stands still until it is moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from circuit_script.clock import now, uuid7
from circuit_script.errors import TrialRefused
from circuit_script.execution.outcome import JOB, JOBS, HandlerSpec
from circuit_script.execution.timing import Schedule, WrongTime, seconds_of
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult

MOST = 1_000  # jobs in one go
DEFAULT = "default"
ENDS = {"succeeded": "succeeded", "cancelled": "cancelled"}  # for a finalizer; else nothing is tried again here: dead


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that was enqueued and has not run. ``due`` is None for at once; ``said`` is what more ``context.job`` says;
    ``unique`` the key under which there is one."""

    name: str
    arguments: Mapping[str, Any]
    tenant: str = DEFAULT
    due: datetime | None = None
    unique: str | None = None
    id: str = field(default_factory=lambda: str(uuid7()))
    said: Mapping[str, Any] = field(default_factory=dict)


class TrialJobs:
    """Runs jobs of a trial's app by hand. ``now`` is what the clock shows; ``tenants`` are those that there are."""

    def __init__(self, trial: Trial, tenants: Sequence[str]) -> None:
        self.now = now()
        self.waiting: list[Waiting] = []
        self._trial = trial
        self._tenants = tenants

    def move(self, moment: datetime) -> None:
        """Let the clock show this; handlers find it as late as that."""
        self.now = moment
        self._trial.ahead = (moment - now()).total_seconds()

    def take(self, results: Sequence[TrialResult]) -> None:
        """Let what these have enqueued wait."""
        for result in results:
            for sent in result.sends:
                if sent.connector == JOBS:
                    self._put(sent.target, sent.payload, result.tenant, sent.id)

    def _put(self, name: str, asked: Mapping[str, Any], tenant: str, id_: str) -> None:
        key = asked.get("unique")
        if key is not None and any(
            (each.name, each.tenant, each.unique) == (name, tenant, key) for each in self.waiting
        ):
            return
        due = asked.get("due")
        at = None if due is None else self.now + (datetime.fromtimestamp(due, UTC) - now())
        said = {"enqueued_by": asked.get("by"), "execution": asked.get("execution")}
        self.waiting.append(Waiting(name, asked.get("arguments") or {}, tenant, at, key, id_, said))

    async def run(self, job: Waiting) -> list[TrialResult]:
        """Run this job, and its finalizer if it has one. Raises TrialRefused for what is no job."""
        spec = self._spec_of(job.name)
        said = {
            "id": job.id,
            "name": spec.name,
            **{name: value for name, value in job.said.items() if value is not None},
        }
        record = {"id": job.id, "arguments": dict(job.arguments), "job": said}
        result = await self._trial.run(spec.name, record, object=JOB, event=spec.name, tenant=job.tenant)
        self.take([result])
        if spec.job is None or spec.job.finalizer is None:
            return [result]
        ended = {"status": ENDS.get(result.status, "dead"), "reason": result.reason or None}
        about = {**said, **ended, "execution": str(result.execution)}
        return [result, *await self.run(Waiting(spec.job.finalizer, job.arguments, job.tenant, said=about))]

    async def run_waiting(self, jobs: Sequence[Waiting] | None = None, *, early: bool = False) -> list[TrialResult]:
        """Run those of the waiting ``jobs`` (all of them, where none are given) that are due, and what they enqueue;
        with ``early`` also what is due later."""
        left_out = [] if jobs is None else [each for each in self.waiting if each not in jobs]
        results: list[TrialResult] = []
        while ready := [each for each in self.waiting if each not in left_out and (early or self._is_due(each))]:
            _check(len(results), ready[0].name)
            self.waiting.remove(ready[0])
            results += await self.run(ready[0])
        return results

    async def advance(self, duration: Any) -> list[TrialResult]:
        """Move the clock by seconds, a timedelta or "2h", and run each job and each firing of a schedule that becomes
        due, in the order of their moments. Raises TrialRefused for what is no duration."""
        try:
            until = self.now + timedelta(seconds=seconds_of(duration, "the time to advance by"))
        except (WrongTime, OverflowError) as error:
            raise TrialRefused(str(error)) from None
        results = await self.run_waiting()
        while (moment := self._next_moment()) is not None and moment <= until:
            fired = self._fired(moment)
            self.move(max(self.now, moment))
            self.waiting += fired
            results += await self.run_waiting()
            _check(len(results), "what is due")
        self.move(until)
        return results

    def _next_moment(self) -> datetime | None:
        """The next one after now at which anything happens."""
        due = [each.due for each in self.waiting if each.due is not None]
        firings = [schedule.next_after(self.now) for _, schedule in self._schedules()]
        return min((each for each in (*due, *firings) if each is not None), default=None)

    def _fired(self, moment: datetime) -> list[Waiting]:
        """What schedules enqueue at this moment, for each of their tenants."""
        return [
            Waiting(spec.name, {}, tenant, said={"enqueued_by": "schedule", "scheduled_for": moment.isoformat()})
            for spec, schedule in self._schedules()
            if schedule.next_after(self.now) == moment
            for tenant in (self._tenants if schedule.tenants is None else schedule.tenants)
        ]

    def _schedules(self) -> Iterator[tuple[HandlerSpec, Schedule]]:
        for spec in self._trial.handlers:
            if spec.job is not None and spec.job.schedule is not None:
                yield spec, spec.job.schedule

    def _spec_of(self, name: str) -> HandlerSpec:
        spec = self._trial.find(name)
        if spec.job is None:
            kind = "a trigger" if spec.endpoint is None else "an endpoint"
            raise TrialRefused(f"{spec.name} is {kind}, not a job.", cure="Put @queueable() or @scheduled(…) above it.")
        return spec

    def _is_due(self, job: Waiting) -> bool:
        return job.due is None or job.due <= self.now


def _check(ran: int, what: str) -> None:
    if ran >= MOST:
        raise TrialRefused(
            f"{MOST:,} jobs have run, and {what} goes on.", cure="Advance by less, or let a job not enqueue itself."
        )
