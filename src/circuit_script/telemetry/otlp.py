"""Traces to whoever speaks OTLP over HTTP: encoded and sent by a thread of its own, behind a bounded queue.

A receiver that is slow, away or mad costs its own traces and nothing else: what does not fit into the queue is dropped
and counted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from circuit_script.clock import time_of
from circuit_script.errors import StartError
from circuit_script.telemetry.spans import CONSUMER, INTERNAL, OK, PRODUCER, SERVER, Arrival, Ended, Mark
from circuit_script.telemetry.w3c import span_id

BOUND, BOUND_SPANS = 2_000, 50_000  # executions and deliveries that wait, and their spans
BULK = 512  # spans of one request
LINGER = 1.0  # seconds that spans wait for others to be sent with
TIMEOUT = 10.0  # seconds of one request with its repetitions
PATIENCE = 3.0  # seconds that who stops waits for what is left
SILENCE = 60.0  # seconds between two warnings
INTAKE, QUEUE = -1, -2
# The names that others know, by ours; the rest is called circuit.*.
NAMES = {
    "url": "url.full", "method": "http.request.method", "host": "server.address", "port": "server.port",
    "provider": "gen_ai.provider.name", "model": "gen_ai.response.model", "tokens_in": "gen_ai.usage.input_tokens",
    "tokens_out": "gen_ai.usage.output_tokens", "object": "db.collection.name", "error": "error.type",
}  # fmt: skip

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """One span as it leaves. Moments are nanoseconds since 1970."""

    trace: UUID
    id: str
    parent: str | None
    name: str
    kind: str
    began: int
    ended: int
    status: str
    attributes: Mapping[str, Any]
    links: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """An effect, by whom it was made, the trace that it belongs to, and how often it was tried before."""

    effect: UUID
    execution: UUID
    trace: UUID
    attempts: int = 0


class OtlpExport:
    """Sends what ended to ``url``. Raises StartError where what is needed for it is not installed."""

    def __init__(self, url: str, headers: Mapping[str, str], service: str, *, bound: int = BOUND) -> None:
        self._send, self._shut = _sender(url, headers, service)
        self._waiting: queue.Queue[Ended | Step | None] = queue.Queue(bound)
        self._warned = 0.0
        self._put = self._got = 0  # spans, so far: the one is written by who hands them on, the other by the thread
        self.dropped = 0
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="traces to OTLP", daemon=True)
        self._thread.start()

    def ended(self, ended: Ended) -> None:
        """Take an execution's trace; never waits."""
        self._take(ended)

    def delivered(self, step: Step) -> None:
        """Take one span of its own; never waits."""
        self._take(step)

    def stop(self) -> None:
        """Send what is left, for some seconds."""
        ends = time.monotonic() + PATIENCE
        try:
            self._waiting.put(None, timeout=PATIENCE)
        except queue.Full:
            self.dropped += self._waiting.qsize()
        self._thread.join(max(0.0, ends - time.monotonic()))
        self._shut()

    def _take(self, what: Ended | Step) -> None:
        if self._put - self._got >= BOUND_SPANS:
            self.dropped += 1
            return
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            self.dropped += 1
        else:
            self._put += _size(what)

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            steps: list[Step] = []
            ends = float("inf")
            while len(steps) < BULK and goes_on:
                try:
                    taken = self._waiting.get(timeout=None if not steps else max(0.0, ends - time.monotonic()))
                except queue.Empty:
                    break
                goes_on = taken is not None
                if not steps:
                    ends = time.monotonic() + LINGER
                if taken is not None:
                    self._got += _size(taken)
                    steps += self._steps(taken)
            if steps:
                self._leave(steps)

    def _steps(self, taken: Ended | Step) -> list[Step]:
        if isinstance(taken, Step):
            return [taken]
        try:
            return list(steps_of(taken))
        except Exception as error:  # whatever it is: the thread lives for the next ones
            self.dropped += 1
            log.warning("traces.otlp", execution=str(taken.execution), error=repr(error), next="its trace is dropped")
            return []

    def _leave(self, steps: Sequence[Step]) -> None:
        try:
            sent = self._send(steps)
        except Exception as error:  # whatever it is, the next ones are tried
            sent = False
            said = f"{type(error).__name__}: {error}"
        else:
            said = "it was refused, or nobody answered"
        if sent:
            self.sent += len(steps)
            return
        self.dropped += len(steps)
        if time.monotonic() - self._warned > SILENCE or not self._warned:
            self._warned = time.monotonic()
            log.warning("traces.otlp", spans=len(steps), error=said, next="these are dropped, later ones are tried")


def _size(what: Ended | Step) -> int:
    return what.spans if isinstance(what, Ended) else 1


def steps_of(ended: Ended) -> Iterator[Step]:
    """The spans of an execution: how its events came, what it did, and itself."""
    recorder, execution = ended.recorder, ended.recorder.execution
    outside = recorder.context.parent if recorder.context is not None else None
    began = recorder.began_ns
    ready = began + 1000 * min([0, *(mark.began for mark in recorder.marks)])
    for nth, arrival in enumerate(ended.arrivals):
        yield from _arrived(ended, nth, arrival, outside, ready)
    root = span_id(execution)
    parent = span_id(execution, INTAKE) if ended.arrivals else outside
    about: dict[str, Any] = {
        "handler": ended.handler,
        "tenant": ended.tenant,
        "execution": str(execution),
        "release": ended.release,
    }
    about |= {name: value for name, value in ended.usage.items() if value and name != "wall_time"}
    if ended.reason:
        about["error"] = ended.reason
    yield Step(recorder.trace, root, parent, ended.handler, CONSUMER, began, ended.ended_ns, ended.status, about,
               recorder.links)  # fmt: skip
    for mark in recorder.marks:
        yield _marked(recorder.trace, execution, root, began, mark)


def _marked(trace: UUID, execution: UUID, root: str, began: int, mark: Mark) -> Step:
    start = began + mark.began * 1000  # what is still noted of a stream must not change what is being sent
    return Step(trace, span_id(execution, mark.number), root, mark.name, mark.kind, start, start + mark.duration * 1000,
                mark.status, dict(mark.attributes))  # fmt: skip


def _arrived(ended: Ended, nth: int, arrival: Arrival, outside: str | None, ready: int) -> Iterator[Step]:
    trace, execution = ended.recorder.trace, ended.recorder.execution
    about = {"delivery": str(arrival.delivery), "source": arrival.source, "tenant": ended.tenant}
    taken = int(arrival.received_at * 1e9)
    first = span_id(execution, INTAKE + QUEUE * nth)
    if arrival.source == "endpoint":
        yield Step(trace, first, outside, "request", SERVER, taken, ended.ended_ns, ended.status, about)
        return
    came = min(int(time_of(arrival.delivery).timestamp() * 1e9), taken)
    yield Step(trace, first, outside, f"intake {arrival.name}".rstrip(), SERVER, came, taken, OK, about)
    queued = span_id(execution, QUEUE + QUEUE * nth)
    yield Step(trace, queued, first, "queue", INTERNAL, taken, max(taken, ready), OK, {})


def effect_step(made: Made, name: str, began: int, status: str, **said: Any) -> Step:
    """A request by which an effect was delivered, or not."""
    about = {"effect": str(made.effect), **said}
    parent = span_id(made.execution)
    return Step(
        made.trace, span_id(made.effect, made.attempts), parent, name, PRODUCER, began, time.time_ns(), status, about
    )


def _sender(
    url: str, headers: Mapping[str, str], service: str
) -> tuple[Callable[[Sequence[Step]], bool], Callable[[], None]]:
    """What sends spans by OpenTelemetry's own exporter, and what shuts it."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import SpanExportResult
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
    except ImportError:
        raise StartError(
            "[traces] otlp_url is set, and what speaks OTLP is not installed.",
            cure="pip install 'circuit-script[otel]'",
        ) from None
    exporter = OTLPSpanExporter(endpoint=url, headers=dict(headers), timeout=TIMEOUT)
    resource, scope = Resource({"service.name": service}), InstrumentationScope("circuit_script")

    def context(trace: UUID, span: str) -> SpanContext:
        return SpanContext(trace.int, int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def readable(step: Step) -> ReadableSpan:
        status = Status(StatusCode.OK) if step.status == OK else Status(StatusCode.ERROR, step.status)
        return ReadableSpan(
            name=step.name,
            context=context(step.trace, step.id),
            parent=None if step.parent is None else context(step.trace, step.parent),
            resource=resource,
            attributes=_named(step.attributes),
            links=[Link(context(each, span_id(each))) for each in step.links],
            kind=SpanKind[step.kind.upper()],
            instrumentation_scope=scope,
            status=status,
            start_time=step.began,
            end_time=max(step.began, step.ended),
        )

    def send(steps: Sequence[Step]) -> bool:
        return exporter.export([readable(each) for each in steps]) is SpanExportResult.SUCCESS

    return send, exporter.shutdown


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of OpenTelemetry's conventions, where they have one; only values that it knows."""
    found = {}
    for name, value in attributes.items():
        if value is None:
            continue
        known = NAMES.get(name, f"circuit.{name}")
        if name == "status":
            known = "http.response.status_code"
        found[known] = value if isinstance(value, (str, bool, int, float)) else str(value)
    return found
