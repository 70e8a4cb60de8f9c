"""Who looks over a worker's shoulder: hears each log line and each end of an execution as it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from circuit_script.db.pool import Pool
from circuit_script.effects.homed import Home
from circuit_script.effects.settle import Settlement, Settler

LogLine = Callable[[UUID, str, str, dict[str, Any]], None]


class Tap(Protocol):
    """Must not raise, and must not wait for long: executions wait for it."""

    def line(self, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        """A handler has logged this."""

    def settled(self, settlement: Settlement, handler: str) -> None:
        """What became of an execution is committed."""


def tapped(log_line: LogLine, tap: Tap | None) -> LogLine:
    """``log_line``, heard by ``tap`` too."""
    if tap is None:
        return log_line

    def both(execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        log_line(execution, handler, tenant, line)
        tap.line(execution, handler, tenant, line)

    return both


class TappedSettler(Settler):
    """A settler whose commits ``tap`` hears of. ``name_of`` gives a handler's name by its id."""

    def __init__(
        self,
        pool: Pool,
        worker: UUID,
        tap: Tap,
        name_of: Callable[[int], str],
        redact: Callable[[str], str] = str,
        *,
        home: Home | None = None,
    ) -> None:
        super().__init__(pool, worker, redact, home=home)
        self._tap = tap
        self._name_of = name_of

    async def settle(self, settlement: Settlement) -> None:
        await super().settle(settlement)
        self._tap.settled(settlement, self._name_of(settlement.handler))
