"""Where the traces of a worker's executions go."""

from __future__ import annotations

from collections.abc import Callable

from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.telemetry.otlp import OtlpExport
from circuit_script.telemetry.trace_writer import TraceWriter


def make_traces(settings: Settings, pool: Pool, redact: Callable[[str], str] = str) -> TraceWriter | None:
    """The writer of traces, with what exports them; None where circuit.toml wants none.

    ``redact`` is what each text goes through first. Raises StartError where they are to be exported and the extra for
    that is not installed.
    """
    wanted = settings.traces
    if not wanted.enabled:
        return None
    export = OtlpExport(wanted.otlp_url, wanted.otlp_headers, wanted.service) if wanted.otlp_url else None
    return TraceWriter(pool, per_second=wanted.per_second, propagates=wanted.propagate, redact=redact, export=export)
