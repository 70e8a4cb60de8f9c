"""A batch's trace: which one it belongs to by what its events came with, and what is handed on when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from circuit_script.events.batch import Item
from circuit_script.events.conclude import Batch
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded, Work
from circuit_script.telemetry.spans import ERROR, OK, Arrival, Ended, Recorder
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.telemetry.w3c import TraceContext, read_traceparent

TOLD = 5  # deliveries of a batch, the oldest


def contexts_of(items: Sequence[Item]) -> list[TraceContext]:
    """The traces that the events of a batch came with."""
    found = (read_traceparent(item.trace) for item in items if item.trace is not None)
    return [each for each in found if each is not None]


def only(contexts: Sequence[TraceContext]) -> UUID | None:
    """The trace that all of them belong to, if there is one."""
    traces = {each.trace for each in contexts}
    return traces.pop() if len(traces) == 1 else None


def begun(writer: TraceWriter | None, work: Work, contexts: Sequence[TraceContext], loading: float) -> Recorder | None:
    """What the spans of the batch are written to; None where nobody wants them. ``loading`` are the seconds since it
    was chosen to run."""
    if writer is None:
        return None
    recorder = writer.recorder(work.execution, contexts)
    recorder.before("dispatch", loading)
    return recorder


def finished(writer: TraceWriter, recorder: Recorder, batch: Batch, outcome: Outcome) -> None:
    """Hand on the trace of a batch that has ended so, if it is wanted."""
    status, reason = _end(outcome, len(batch.items))
    if not writer.wants(status):
        return
    writer.add(
        Ended(
            recorder=recorder,
            tenant=batch.work.tenant,
            handler=batch.work.handler,
            status=status,
            reason=reason,
            release=batch.terms.release,
            arrivals=[_arrival(item) for item in batch.items[:TOLD]],
            usage=outcome.usage.as_dict(),
        )
    )


def _end(outcome: Outcome, records: int) -> tuple[str, str | None]:
    match outcome:
        case Succeeded(errors=errors) if not errors:
            return OK, None
        case Succeeded(errors=errors):
            return ERROR, f"{len(errors)} of {records} records: {next(iter(errors.values()))}"
        case Failed(reason=reason):
            return ERROR, reason
        case Breached() as breached:
            return f"limit {breached.limit}", breached.reason


def _arrival(item: Item) -> Arrival:
    row, meta = item.row, item.meta
    return Arrival(row.delivery, float(meta["received_at"]), str(meta["source"]), f"{row.object}.{row.event}")


def with_trace(line: dict[str, Any], trace: UUID | None) -> dict[str, Any]:
    """A log line with the trace that it belongs to, None for its execution's own, whatever the child says."""
    line["trace"] = None if trace is None else trace.hex
    return line
