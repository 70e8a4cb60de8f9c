"""How much of each limit an execution has used."""

from __future__ import annotations

import time

import msgspec

from circuit_script.execution.session import Session


class Meter(msgspec.Struct, frozen=True):
    """One limit: how much is ``used``, the ``ceiling``, and what is ``left``; times in seconds, sizes in bytes."""

    used: float
    ceiling: float

    @property
    def left(self) -> float:
        return max(0.0, self.ceiling - self.used)


class Meters:
    """The limits of the execution: ``context.limits.callouts.left``.

    Times are as of now; the rest is as of the broker's latest answer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cpu = time.process_time()

    def _counted(self, name: str) -> Meter:
        return Meter(self._session.used.get(name, 0), self._session.run.limits[name])

    def _per_record(self, name: str) -> Meter:
        meter = self._counted(name)
        return Meter(meter.used, meter.ceiling * max(1, len(self._session.run.records)))

    @property
    def wall_time(self) -> Meter:
        """Seconds since the handler was called."""
        return Meter(time.monotonic() - self._session.started, self._session.run.limits["wall_time"])

    @property
    def cpu_time(self) -> Meter:
        """Seconds of computing."""
        return Meter(time.process_time() - self._cpu, self._session.run.limits["cpu_time"])

    @property
    def memory(self) -> Meter:
        """Bytes, as the platform measured them last."""
        return self._counted("memory")

    @property
    def callouts(self) -> Meter:
        """Calls to the outside."""
        return self._counted("callouts")

    @property
    def callout_bytes(self) -> Meter:
        """The ceiling of one body, sent or received; ``used`` is always 0."""
        return self._counted("callout_bytes")

    @property
    def db_queries(self) -> Meter:
        """Reads of the CRM: ``CircuitDB.query``, for each page of it, and ``CircuitDB.get``."""
        return self._counted("db_queries")

    @property
    def db_rows(self) -> Meter:
        """Records that these reads returned."""
        return self._counted("db_rows")

    @property
    def dml_statements(self) -> Meter:
        """Calls of ``CircuitDB.insert``, ``update``, ``upsert`` and ``delete``."""
        return self._counted("dml_statements")

    @property
    def dml_rows(self) -> Meter:
        """Rows that these calls wrote."""
        return self._counted("dml_rows")

    @property
    def messages(self) -> Meter:
        """Messages to people or addresses; the limit counts for each record of the batch."""
        return self._per_record("messages")

    @property
    def llm_calls(self) -> Meter:
        """Calls of models."""
        return self._counted("llm_calls")

    @property
    def llm_tokens(self) -> Meter:
        """Tokens of models, prompt and answer; a call that is under way counts with the most that it may use."""
        return self._counted("llm_tokens")

    @property
    def llm_cost(self) -> Meter:
        """US dollars for models; a call that is under way counts with the most that it may cost."""
        return self._counted("llm_cost")

    @property
    def jobs(self) -> Meter:
        """Jobs that were enqueued; the limit counts for each record of the batch."""
        return self._per_record("jobs")

    @property
    def depth(self) -> Meter:
        """How many executions led to this one, each by an effect of the one before; 0 for what came from outside."""
        return self._counted("depth")

    @property
    def log_bytes(self) -> Meter:
        """Bytes of log lines and of what is printed."""
        return self._counted("log_bytes")
