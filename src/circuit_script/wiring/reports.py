"""Failed executions on their way to Sentry: heard where their end is committed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from circuit_script.effects.settle import Settlement
from circuit_script.telemetry.sentry import Failure, Sentry
from circuit_script.wiring.tap import Tap

TOLD = frozenset({"failed", "breached", "partial"})
FAILED = frozenset({"retry", "dead", "failed"})


class SentryTap:
    """Tells Sentry of executions that failed, and ``inner`` of everything."""

    def __init__(self, sentry: Sentry, inner: Tap | None) -> None:
        self._sentry = sentry
        self._inner = inner

    def line(self, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        if self._inner is not None:
            self._inner.line(execution, handler, tenant, line)

    def settled(self, settlement: Settlement, handler: str) -> None:
        if self._inner is not None:
            self._inner.settled(settlement, handler)
        reason = _reason_of(settlement)
        if reason is not None:
            self._sentry.failed(
                Failure(
                    execution=str(settlement.execution),
                    handler=handler,
                    tenant=settlement.tenant,
                    release=settlement.release,
                    status=settlement.status,
                    reason=reason,
                    detail=settlement.detail or "",
                    object=settlement.object,
                    event=settlement.event,
                    records=settlement.records,
                )
            )


def reported(sentry: Sentry | None, tap: Tap | None) -> Tap | None:
    """``tap``, and Sentry, if there is one."""
    return tap if sentry is None else SentryTap(sentry, tap)


def _reason_of(settlement: Settlement) -> str | None:
    """Why it failed, or the first of its records that did; None where nothing failed."""
    if settlement.status not in TOLD:
        return None
    failed = (row.reason for row in settlement.rows if row.status in FAILED and row.reason)
    return settlement.reason or next(failed, None if settlement.status == "partial" else settlement.status)
