"""What handlers log: on its way into the database, and out of it.

Each name is imported when it is first asked for: who needs an identifier of a trace needs no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuit_script.lazy import names_of

if TYPE_CHECKING:
    from circuit_script.telemetry.alerts import Alert, acknowledge, alerts_of, silence
    from circuit_script.telemetry.alerts.monitor import CircuitMonitor
    from circuit_script.telemetry.lines import LEVELS, Cursor, LogLine, LogPage, LogQuery
    from circuit_script.telemetry.reader import LogReader
    from circuit_script.telemetry.writer import LogWriter, configure_logging

_HOMES = {
    "LEVELS": "lines",
    "Alert": "alerts",
    "CircuitMonitor": "alerts.monitor",
    "Cursor": "lines",
    "LogLine": "lines",
    "LogPage": "lines",
    "LogQuery": "lines",
    "LogReader": "reader",
    "LogWriter": "writer",
    "acknowledge": "alerts",
    "alerts_of": "alerts",
    "configure_logging": "writer",
    "silence": "alerts",
}

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

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)
