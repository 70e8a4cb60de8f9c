"""What an execution is given and how it can end: frozen values that both sides share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit_script.governor import Limits, Usage, amount

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler as the app declares it. ``routes`` are (object, event) pairs."""

    name: str
    routes: tuple[tuple[str, str], ...]
    batch_size: int = 200
    limits: Limits = field(default_factory=Limits)
    share_child: bool = False
    echoes: bool = False
    file: str = ""
    line: int = 0
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """One batch for one call of one handler, of one tenant. ``records``, ``old`` and ``events`` are parallel."""

    execution: UUID
    handler: str
    tenant: str
    object: str
    event: str
    records: Sequence[Fields]
    old: Sequence[Fields | None]
    events: Sequence[Fields]
    limits: Limits
    started_at: float = 0.0
    share_child: bool = False


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned. ``errors`` maps the index of a failed record to its reason."""

    usage: Usage
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, left its process, or crashed it. ``suspect`` is the index of the record it worked on.

    ``blameless`` says that the platform ended it, so that it does not count as an attempt.
    """

    reason: str
    usage: Usage
    detail: str = ""
    suspect: int | None = None
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class Breached:
    """A limit was crossed; the parent's verdict."""

    limit: str
    used: float
    ceiling: float
    usage: Usage
    suspect: int | None = None

    @property
    def reason(self) -> str:
        return f"limit {self.limit} exceeded: {amount(self.limit, self.used)} of {amount(self.limit, self.ceiling)}"


Outcome = Succeeded | Failed | Breached
