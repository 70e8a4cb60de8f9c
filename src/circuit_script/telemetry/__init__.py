"""What handlers log: on its way into the database, and out of it."""

from circuit_script.telemetry.reader import LEVELS, LogLine, LogQuery, LogReader
from circuit_script.telemetry.writer import LogWriter, configure_logging

__all__ = ["LEVELS", "LogLine", "LogQuery", "LogReader", "LogWriter", "configure_logging"]
