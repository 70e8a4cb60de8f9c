"""What an execution asked of the world, and how long each thing took: kept in memory until it ends.

The road pays for this with every request of a handler, so a span is made of plain values, nothing is encoded before
somebody wants the trace, and no id is drawn: it follows from the execution's and from the span's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter_ns, time_ns
from typing import Any
from uuid import UUID

from circuit_script.telemetry.w3c import TraceContext, span_id, traceparent

MOST = 500  # spans of one execution; what is over is counted
MOST_LINKS = 200
OK, ERROR, REFUSED, CANCELLED = "ok", "error", "refused", "cancelled"
INTERNAL, CLIENT, SERVER, PRODUCER, CONSUMER = "internal", "client", "server", "producer", "consumer"


class Mark:
    """One span while it is recorded: what is done, when it began (µs after its execution) and how it went."""

    __slots__ = ("attributes", "began", "duration", "kind", "name", "number", "status", "zero")

    def __init__(
        self, number: int, name: str, kind: str, zero: int, attributes: dict[str, Any], began: int | None = None
    ) -> None:
        self.zero = zero
        self.number = number
        self.name = name
        self.kind = kind
        self.began = (perf_counter_ns() - zero) // 1000 if began is None else began
        self.duration = 0
        self.status = OK
        self.attributes = attributes

    def end(self) -> None:
        """It is over: now."""
        self.duration = (perf_counter_ns() - self.zero) // 1000 - self.began

    def row(self) -> list[Any]:
        """As it is stored."""
        return [self.number, self.name, self.kind, self.began, self.duration, self.status, self.attributes]


current: ContextVar[Mark | None] = ContextVar("current_span", default=None)


def note(**attributes: Any) -> None:
    """Say more of what is under way in this task, if anybody records it; it has lasted until now."""
    if (mark := current.get()) is not None:
        mark.attributes.update(attributes)
        mark.end()


class Recorder:
    """The spans of one execution. Its trace is its own id, unless what started it belongs to another one: then its
    parent is the span that sent it. Events of several traces are linked, and the trace is its own."""

    __slots__ = ("_zero", "began_ns", "context", "execution", "left_out", "links", "marks", "propagates", "trace")

    def __init__(self, execution: UUID, contexts: Sequence[TraceContext] = (), *, propagates: bool = True) -> None:
        own = {each.trace: each for each in contexts}
        self.context = contexts[0] if len(own) == 1 else None
        self.links: Sequence[UUID] = () if len(own) < 2 else tuple(own)[:MOST_LINKS]
        self.execution = execution
        self.trace = execution if self.context is None else self.context.trace
        self.propagates = propagates
        self.marks: list[Mark] = []
        self.left_out = 0
        self.began_ns = time_ns()
        self._zero = perf_counter_ns()

    def begin(self, name: str, kind: str, attributes: dict[str, Any]) -> Mark:
        """A span that begins now."""
        mark = Mark(len(self.marks) + 1, name, kind, self._zero, attributes)
        if len(self.marks) < MOST:
            self.marks.append(mark)
        else:
            self.left_out += 1
        return mark

    def before(self, name: str, seconds: float) -> None:
        """A span of what ended as the execution began."""
        micros = int(seconds * 1e6)
        mark = Mark(len(self.marks) + 1, name, INTERNAL, self._zero, {}, -micros)
        mark.duration = micros
        self.marks.append(mark)

    def header(self, mark: Mark) -> str | None:
        """The ``traceparent`` of a request that the span sends; None where requests carry none."""
        return traceparent(self.trace, span_id(self.execution, mark.number)) if self.propagates else None


@dataclass(frozen=True, slots=True)
class Arrival:
    """How an event came: its delivery, when that was committed (seconds since 1970), and from whom."""

    delivery: UUID
    received_at: float
    source: str
    name: str = ""  # "Contact.afterInsert"


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution that is over, with what was recorded of it. ``status`` is ``ok`` or why it is not."""

    recorder: Recorder
    tenant: str
    handler: str
    status: str
    reason: str | None = None
    release: int | None = None
    arrivals: Sequence[Arrival] = ()
    usage: Mapping[str, float] = field(default_factory=dict)
    ended_ns: int = field(default_factory=time_ns)

    @property
    def execution(self) -> UUID:
        return self.recorder.execution

    @property
    def spans(self) -> int:
        """How many there are beside its own."""
        return len(self.recorder.marks)
