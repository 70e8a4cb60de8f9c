"""What a run tells of itself: who said what was acknowledged, what the vendor saw. No code of the platform is used."""

from __future__ import annotations

from dataclasses import dataclass, field

HANDLERS = ("at_once", "one_by_one")
JOBS = ("follow", "ended")  # one that a handler enqueues, and its finalizer


@dataclass(frozen=True, slots=True)
class Acked:
    """One delivery that got a 2xx. ``rank`` orders those of one record; equal ranks were sent at the same time.
    ``follows``: one of its handlers enqueues a job."""

    mark: str
    tenant: str
    record: str
    rank: int
    id: str
    follows: bool = False

    @property
    def callers(self) -> tuple[str, ...]:
        """Who is to call the vendor for it, and to leave a row in the CRM, each once."""
        return HANDLERS + JOBS if self.follows else HANDLERS


@dataclass(frozen=True, slots=True)
class Seen:
    """One request at the vendor that it did, in the order in which it did them."""

    mark: str
    handler: str
    key: str
    tenant: str
    record: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the platform's database says of one mark: events in the ledger, and by handler how often it succeeded
    or ended otherwise, and how many rows it has left in the CRM."""

    events: int
    succeeded: dict[str, int]
    ended: dict[str, list[str]]
    rows: dict[str, int]
    id: str


@dataclass(slots=True)
class Findings:
    """What is wrong, in words; empty when nothing is."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.strange)

    def add(self, others: Findings) -> None:
        self.lost += others.lost
        self.doubled += others.doubled
        self.disordered += others.disordered
        self.strange += others.strange

    def lines(self) -> list[str]:
        return [
            f"{kind}: {each}"
            for kind in ("lost", "doubled", "disordered", "strange")
            for each in getattr(self, kind)[:20]
        ]
