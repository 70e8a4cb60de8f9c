"""What handlers log: on its way into the database, and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circuit_script.telemetry.alerts import Alert, acknowledge, alerts_of, silence
from circuit_script.telemetry.lines import LEVELS, Cursor, LogLine, LogPage, LogQuery
from circuit_script.telemetry.reader import LogReader
from circuit_script.telemetry.writer import LogWriter, configure_logging

if TYPE_CHECKING:
    from circuit_script.telemetry.alerts.monitor import CircuitMonitor

__all__ = [
    "LEVELS",
    "Alert",
    "CircuitMonitor",
    "Cursor",
    "LogLine",
    "LogPage",
    "LogQuery",
    "LogReader",
    "LogWriter",
    "acknowledge",
    "alerts_of",
    "configure_logging",
    "silence",
]


def __getattr__(name: str) -> Any:
    """The monitor is a worker's alone: nobody else pays for its import."""
    if name == "CircuitMonitor":
        from circuit_script.telemetry.alerts.monitor import CircuitMonitor

        return CircuitMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
