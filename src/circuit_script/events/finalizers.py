"""The finalizer of a job is an effect of its end: committed with it, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from circuit_script.clock import uuid7
from circuit_script.effects.settle import Settled, Settlement, plain
from circuit_script.effects.unit import Send
from circuit_script.execution.outcome import JOB, JOBS, HandlerSpec

FINALIZE = "finalize"  # the operation of the connector of jobs
ENDED = frozenset({"succeeded", "dead", "cancelled"})

Finalizers = Mapping[int, str]  # the name of its finalizer, by a job's handler


def finalizers_of(handlers: Mapping[int, HandlerSpec]) -> Finalizers:
    """The finalizers of a release."""
    return {id_: spec.job.finalizer for id_, spec in handlers.items() if spec.job and spec.job.finalizer}


def finalized(settlement: Settlement, finalizers: Finalizers) -> Settlement:
    """The settlement with the finalizers of the jobs that it ends."""
    name = finalizers.get(settlement.handler) if settlement.object == JOB else None
    if name is None:
        return settlement
    return replace(settlement, sends=[*settlement.sends, *_of(settlement, name)])


def _of(settlement: Settlement, name: str) -> Iterator[tuple[Send, int, int]]:
    depth = max(0, int(settlement.usage.get("depth", settlement.depth)) - 1)
    for place, row in enumerate(settlement.rows):
        if row.status in ENDED:
            payload = told_of(row, settlement.event, settlement.execution, depth)
            yield Send(uuid7(), JOBS, FINALIZE, name, payload, place), row.lane, row.order_hash


def told_of(row: Settled, job: str, execution: UUID, depth: int) -> dict[str, Any]:
    """What a finalizer learns of its job."""
    return {
        "delivery": str(row.delivery),
        "depth": depth,
        "id": row.record,
        "name": job,
        "status": row.status,
        "reason": plain(row.reason),
        "attempt": row.attempts,
        "execution": str(execution),
    }
