"""One call on its way: what an execution is made of it, and what its end means for ledger, effects and key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.effects import answered
from circuit_script.effects.settle import Settlement, plain
from circuit_script.effects.unit import UnitOfWork
from circuit_script.endpoints.conclude import Conclusion
from circuit_script.endpoints.protocol import Call, Offer
from circuit_script.endpoints.reply import Caller
from circuit_script.endpoints.routes import Routes
from circuit_script.events.intake import order_hash
from circuit_script.events.taping import Tape
from circuit_script.execution.outcome import HandlerSpec, Outcome, Work
from circuit_script.governor import Usage
from circuit_script.telemetry.spans import OK, Arrival, Ended, Recorder
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.telemetry.w3c import HEADER, TraceContext, read_traceparent

LANES = 64
MAX_EVENT = 500  # characters of method and path
MAX_DETAIL = 8000  # characters of a traceback
MAX_HEADER = 1000  # characters of one header's value that the ledger keeps
KEPT = frozenset({"accept", "content-encoding", "content-type", "idempotency-key", HEADER, "user-agent"})
SHORTEST = 0.05  # seconds that an execution is given at least


LogLine = Callable[[UUID, str, str, dict[str, Any]], None]


class Children(Protocol):
    """The processes that execute."""

    async def run(self, work: Work, broker: Any, *, express: bool) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """One release with its children; ``ids`` are its handlers' by name."""

    release: int
    ids: Mapping[str, int]
    offers: Mapping[str, Offer]
    specs: Mapping[str, HandlerSpec]
    routes: Routes
    children: Children
    log_line: LogLine
    running: set[asyncio.Task[Any]] = field(default_factory=set)


@dataclass(slots=True)
class Run:
    """One call on its way. ``ends`` is its deadline on the monotonic clock."""

    call: Call
    caller: Caller
    serving: Serving
    spec: HandlerSpec
    ends: float
    began: float
    execution: UUID = field(default_factory=uuid7)
    delivery: UUID = field(default_factory=uuid7)
    key: str | None = None
    context: TraceContext | None = None
    recorder: Recorder | None = None
    tape: Tape | None = None  # of what it reads, where that is recorded

    def __post_init__(self) -> None:
        said = [value for name, value in self.call.request.headers if name == HEADER]
        self.context = read_traceparent(said[0]) if len(said) == 1 else None

    @property
    def trace(self) -> str | None:
        """Its caller's trace; None where that said none, and it has its own."""
        return None if self.context is None else self.context.trace.hex

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()


def work_of(run: Run, *, alone: bool = False) -> Work:
    """The call as an execution's work, in a child of its own if it is to run ``alone``."""
    request, limits = run.call.request, run.spec.limits
    return Work(
        execution=run.execution,
        handler=run.spec.name,
        tenant=run.call.tenant,
        object="",
        event=f"{request.method} {request.path}"[:MAX_EVENT],
        records=(),
        old=(),
        events=(),
        limits=limits.lowered(wall_time=max(SHORTEST, min(limits.wall_time, run.left))),
        started_at=time.time(),
        share_child=run.spec.share_child,
        concurrency=1 if alone else run.spec.concurrency,
        egress=run.spec.egress,
        budget=run.spec.budget,
        at_ceiling=run.spec.at_ceiling,
        allow_irreversible=run.spec.allow_irreversible,
        request=request,
    )


def settlement_of(run: Run, work: Work, unit: UnitOfWork, conclusion: Conclusion, usage: Usage) -> Settlement:
    hashed = order_hash(run.call.tenant, str(run.execution))
    place = (hashed % LANES, hashed)
    return Settlement(
        execution=run.execution,
        tenant=run.call.tenant,
        release=run.serving.release,
        handler=run.serving.ids[run.spec.name],
        object="",
        event=work.event,
        records=0,
        status=conclusion.status,
        started_at=datetime.fromtimestamp(work.started_at, UTC),
        usage=usage.as_dict(),
        reason=conclusion.reason,
        detail=conclusion.detail[-MAX_DETAIL:] if conclusion.detail else None,
        writes=unit.writes if conclusion.effects else (),
        sends=[(send, *place) for send in unit.sends] if conclusion.effects else (),
        place=place,
        call=_call(run, conclusion),
        trace=None if run.context is None else run.context.trace,
    )


def hand_on(writer: TraceWriter, run: Run, recorder: Recorder, conclusion: Conclusion, usage: Usage) -> None:
    """Hand on the trace of a call that was answered so, if it is wanted."""
    status = OK if conclusion.status == "succeeded" else conclusion.status
    if not writer.wants(status):
        return
    arrived = time.time() - (time.monotonic() - run.began)
    writer.add(
        Ended(
            recorder=recorder,
            tenant=run.call.tenant,
            handler=run.spec.name,
            status=status,
            reason=conclusion.reason,
            release=run.serving.release,
            arrivals=[Arrival(run.delivery, arrived, "endpoint")],
            usage=usage.as_dict(),
        )
    )


def _call(run: Run, conclusion: Conclusion) -> answered.Call:
    """What the ledger keeps: the body as it came, and of the headers what says how to read it."""
    request = run.call.request
    kept = {name: value[:MAX_HEADER] for name, value in request.headers if name in KEPT}
    kept |= {":method": request.method, ":path": request.path, ":query": request.query}
    key = None
    if run.key is not None:
        answer = conclusion.answer if conclusion.repeatable else None
        key = answered.KeyHeld(run.spec.name, run.key)
        if answer is not None:
            headers = [(name, value) for name, value in answer.headers if name != "set-cookie"]  # it names a session
            key = replace(key, status=answer.status, headers=msgspec.json.encode(headers), body=answer.body)
    return answered.Call(
        delivery=run.delivery,
        endpoint=run.spec.name,
        headers=_storable(kept),
        body=request.body,
        status="succeeded" if conclusion.status == "succeeded" else "failed",
        reason=plain(conclusion.reason),
        key=key,
    )


def _storable(headers: Mapping[str, str]) -> bytes:
    return msgspec.json.encode({name: plain(value) for name, value in headers.items()})
