"""What the monitor sees in one look. Whoever owns a table reads the figures from it; a rule only reads them here.

A figure that is None could not be read: the alerts of its rules stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from circuit_script.telemetry.alerts.alert import Severity


@dataclass(frozen=True, slots=True)
class Rate:
    """A handler's executions of the last minutes: of one tenant, or for None of all. ``slow`` took longer than the
    bound of latency."""

    handler: str
    tenant: str | None
    n: int
    failed: int
    slow: int


@dataclass(frozen=True, slots=True)
class Letters:
    """Open dead letters of a handler (of effects: of a connector) and a tenant."""

    handler: str
    tenant: str
    n: int
    reason: str
    effects: bool = False


@dataclass(frozen=True, slots=True)
class Doubts:
    """Effects in doubt of a connector's operation and a tenant."""

    connector: str
    operation: str
    tenant: str
    n: int


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What is spent and reserved of a budget. ``scope`` is as of `governor.spending.Account`; nano-dollars."""

    scope: str
    tenant: str
    handler: str
    used: int
    ceiling: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Down:
    """A vendor whose circuit is open: nothing is sent to it for now."""

    connector: str
    target: str
    tenant: str
    waiting: int
    reason: str


@dataclass(frozen=True, slots=True)
class Aged:
    """Events of a handler and a tenant that could run and wait: how many, and the seconds of the oldest."""

    handler: str
    tenant: str
    n: int
    age: float


@dataclass(frozen=True, slots=True)
class HotLead:
    """A lead that is hot since then, and that nobody has taken."""

    tenant: str
    lead: str
    grade: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """How an objective was kept by a handler ('' where it is about deliveries): of each window, by its seconds, how
    many there were and how many of them were bad."""

    slo: str
    handler: str
    windows: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Mute:
    """A channel that cannot be told, how often it was tried in a row, and what came of it."""

    channel: str
    failures: int
    failure: str


@dataclass(frozen=True, slots=True)
class Unread:
    """Figures that could not be read for a while, and why."""

    what: str
    failure: str


class Finding(Protocol):
    """What the guardian found."""

    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> Severity: ...
    @property
    def what(self) -> str: ...
    @property
    def next(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that rules judge, at one moment."""

    at: datetime
    rates: Sequence[Rate] | None = None
    counted: Sequence[Counted] | None = None
    letters: Sequence[Letters] | None = None
    doubts: Sequence[Doubts] | None = None
    budgets: Sequence[BudgetUse] | None = None
    down: Sequence[Down] | None = None
    aged: Sequence[Aged] | None = None
    leads: Sequence[HotLead] | None = None
    findings: Sequence[Finding] | None = None
    mute: Sequence[Mute] = field(default_factory=tuple)
    unread: Sequence[Unread] = field(default_factory=tuple)
