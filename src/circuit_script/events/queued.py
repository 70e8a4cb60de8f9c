"""A row of the queue in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from circuit_script.execution.outcome import HandlerSpec

GroupKey = tuple[str, int, str, str, int, float, bool, int | None]
ChainKey = tuple[int, str, int]

UPDATE = "afterUpdate"
UNKNOWN = 0  # the release of a replay of which nothing is known any more: it never runs in the live one


@dataclass(slots=True, eq=False)
class Queued:
    """One event for one handler, as it stands in the queue."""

    id: int
    handler: int
    lane: int
    attempts: int
    ordinal: int
    order_hash: int
    delivery: UUID
    not_before: datetime | None
    held_until: datetime | None
    tenant: str
    object: str
    event: str
    record: str
    depth: int = 0
    past: int | None = None  # the id with which it arrived, of what was put back on the queue
    replay: UUID | None = None
    release: int | None = None  # the recorded release through which it is replayed; None for the live one
    recovered: bool = False
    journal: dict[bytes, bytes] = field(default_factory=dict)
    since: float = 0.0
    running: bool = False
    lost: int = 0
    splits: int = 0
    delayed: bool = False
    uncounted: bool = False
    bundle: float = 0.0  # those of a batch that is all or none, and is tried again, have the same
    absorbed: list[Queued] = field(default_factory=list)  # older updates of the record, for which it stands
    before: dict[str, Any] | None = None  # the record before the first of them, once they have left
    alone: bool = False  # it runs in a child of its own, also where its handler lets several share one

    @property
    def arrived(self) -> int:
        """The id with which its event arrived."""
        return self.id if self.past is None else self.past

    @property
    def may_coalesce(self) -> bool:
        """What a person has put back on the queue runs by itself."""
        return self.event == UPDATE and self.past is None

    @property
    def chain(self) -> ChainKey:
        return self.handler, self.tenant, self.order_hash

    @property
    def group(self) -> GroupKey:
        """What is replayed takes turns with what arrives: of a slow handler a replay may bring much at once."""
        replayed = self.replay is not None
        return self.tenant, self.handler, self.object, self.event, self.depth, self.bundle, replayed, self.release


@lru_cache(maxsize=256)
def unknown_handler(_: int, release: int | None) -> HandlerSpec:
    """A handler of a release that is not there to ask: without a name."""
    return HandlerSpec(name="", routes=(), release=release)


@dataclass(frozen=True, slots=True)
class Pace:
    """When a batch closes: at ``size`` rows, or when its oldest row has waited ``linger`` seconds."""

    size: int
    linger: float
