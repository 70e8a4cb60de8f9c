"""Service level objectives: what each is of, and how fast its error budget burns.

A budget that burns 14.4 times too fast for an hour has lost 2 % of a month's, and is told at once; six times too fast
for six hours 5 %; as fast as it is given for three days 10 %. A short window beside the long one ends the alert soon
after its cause has ended (after "Alerting on SLOs" of Google's SRE workbook).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from circuit_script.settings_see import SloSettings
from circuit_script.telemetry.alerts.alert import Severity

SLOW_SHARE = 0.05  # of executions may be slower than the 95th percentile's bound
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True, slots=True)
class Window:
    """A pair of windows in seconds, and the burn rate over both from which it counts. Fewer than ``least`` bad ones in
    the long window are no evidence: of two executions one that failed would burn a month's budget."""

    long: int
    short: int
    rate: float
    severity: Severity
    least: int


WINDOWS = (
    Window(HOUR, 5 * MINUTE, 14.4, "critical", 5),
    Window(6 * HOUR, 30 * MINUTE, 6.0, "warning", 5),
    Window(72 * HOUR, 6 * HOUR, 1.0, "notice", 5),
)
SPANS = tuple(sorted({span for each in WINDOWS for span in (each.long, each.short)}))
BY_HOUR = 6 * HOUR  # longer windows are added up from hours


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise of an SLO. ``p95`` in seconds: an execution is bad that took longer; without it one that failed.
    ``deliveries``: it is about deliveries that we refused. ``budget`` is the share that may be bad."""

    name: str
    handlers: tuple[str, ...]
    budget: float
    p95: float | None = None
    deliveries: bool = False

    @property
    def said(self) -> str:
        if self.deliveries:
            return f"{100 * (1 - self.budget):.6g} % of deliveries are taken"
        if self.p95 is not None:
            return f"95 % of executions take at most {self.p95:g} s"
        return f"at most {100 * self.budget:.6g} % of executions fail"

    def covers(self, handler: str) -> bool:
        return any(fnmatchcase(handler, pattern) for pattern in self.handlers)


@dataclass(frozen=True, slots=True)
class Burning:
    """A budget that burns too fast: how much too fast over the long window, of which so many were bad."""

    window: Window
    rate: float
    total: int
    bad: int


def objectives(slos: Mapping[str, SloSettings]) -> list[Objective]:
    """The promises of all SLOs. One that says several has one of each."""
    return [each for name, slo in slos.items() for each in _promises(name, slo)]


def _promises(name: str, slo: SloSettings) -> Iterator[Objective]:
    several = sum(each is not None for each in (slo.p95, slo.errors, slo.availability)) > 1
    if slo.p95 is not None:
        yield Objective(f"{name}.p95" if several else name, slo.handlers, SLOW_SHARE, p95=slo.p95)
    if slo.errors is not None:
        yield Objective(f"{name}.errors" if several else name, slo.handlers, slo.errors)
    if slo.availability is not None:
        yield Objective(f"{name}.availability" if several else name, (), 1 - slo.availability, deliveries=True)


def burning(budget: float, windows: Mapping[int, tuple[int, int]]) -> Burning | None:
    """The worst pair of windows over both of which the budget burns too fast; None when none does."""
    return next(_burning(budget, windows), None)


def _burning(budget: float, windows: Mapping[int, tuple[int, int]]) -> Iterator[Burning]:
    for window in WINDOWS:
        total, bad = windows.get(window.long, (0, 0))
        long = rate_of(budget, total, bad)
        if bad >= window.least and min(long, rate_of(budget, *windows.get(window.short, (0, 0)))) >= window.rate:
            yield Burning(window, long, total, bad)


def rate_of(budget: float, total: int, bad: int) -> float:
    """How many times faster than given the budget is used."""
    return bad / total / budget if total else 0.0
