"""Traces on their way into the database: a bounded writer that can stall or fail without slowing an execution."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

import msgspec
import psycopg
import structlog

from circuit_script.db.pool import Pool
from circuit_script.telemetry.at_most import AtMost
from circuit_script.telemetry.flushing import Flushing
from circuit_script.telemetry.otlp import Made, Step, effect_step
from circuit_script.telemetry.spans import OK, Ended, Recorder
from circuit_script.telemetry.w3c import TraceContext

# Not COPY: PostgreSQL refuses it on a table with row security. A commit whose answer was lost is repeated.
WRITE = """
INSERT INTO circuit.traces (execution, tenant, trace, parent, links, spans)
SELECT t.execution, t.tenant, t.trace, t.parent, t.links::uuid[], t.spans::jsonb
FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::text[], %s::text[])
     AS t (execution, tenant, trace, parent, links, spans)
ON CONFLICT (execution) DO NOTHING
"""
PATIENCE = "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '4s', true)"
STALL = 5.0  # seconds that one write may take before its traces are given up
GROUP, GROUP_SPANS = 200, 5_000  # traces and their spans in one statement, at about that
TRIES = 2
BOUND, BOUND_SPANS = 5_000, 50_000  # traces that wait, and their spans
REMEMBERED = 20_000  # executions whose effects belong to a trace that was kept
MAX_TEXT = 500  # characters of one attribute
LONGEST = 4_000  # that are looked through for what is secret, before it is cut

log = structlog.get_logger()
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Export(Protocol):
    """Where traces go beside the database. Neither may wait."""

    def ended(self, ended: Ended) -> None: ...

    def delivered(self, step: Step) -> None: ...

    def stop(self) -> None: ...


class TraceWriter:
    """Takes what executions leave behind. Of those that succeeded it keeps ``per_second``, of the others all; at most
    ``bound`` wait in memory, with `BOUND_SPANS` spans; what is over is dropped and counted."""

    def __init__(
        self,
        pool: Pool,
        *,
        per_second: float = 20.0,
        propagates: bool = True,
        redact: Callable[[str], str] = str,
        export: Export | None = None,
        bound: int = BOUND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._propagates = propagates
        self._redact = redact
        self._export = export
        self._bound = bound
        self._chosen = AtMost(per_second, max(1.0, per_second) if per_second else 0.0, clock)
        self._waiting: deque[Ended] = deque()
        self._spans = 0  # of those that wait
        self._kept: OrderedDict[UUID, None] = OrderedDict()
        self._flushing = Flushing(self._waiting, self._flush)
        self.dropped = 0
        self.written = 0
        self.sampled_out = 0

    def recorder(self, execution: UUID, contexts: Sequence[TraceContext] = ()) -> Recorder:
        """What an execution that begins writes its spans to."""
        return Recorder(execution, contexts, propagates=self._propagates)

    def wants(self, status: str) -> bool:
        """Whether the trace of an execution that ended so is to be kept."""
        if status != OK or self._chosen.may():
            return True
        self.sampled_out += 1
        return False

    def add(self, ended: Ended) -> None:
        """Take a trace that is to be kept; never waits."""
        if len(self._waiting) >= self._bound or self._spans >= BOUND_SPANS:
            self.dropped += 1
            return
        self._spans += ended.spans
        self._kept[ended.execution] = None
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        self._waiting.append(ended)
        self._flushing.wake()

    def keeps(self, execution: UUID) -> bool:
        """Whether this execution's trace was kept, as far as this worker remembers."""
        return execution in self._kept

    def delivered(self, made: Made, name: str, status: str, began_ns: int, **said: Any) -> None:
        """Export how a request for an effect went, if the trace of who made it was kept; never waits."""
        if self._export is not None and made.execution in self._kept:
            clean = {key: self._text(value) if isinstance(value, str) else value for key, value in said.items()}
            self._export.delivered(effect_step(made, name, began_ns, status, **clean))

    def stop(self) -> None:
        self._flushing.stop()

    async def run(self) -> None:
        """Write until stopped, and then what is left."""
        await self._flushing.run()
        if self._export is not None:
            await asyncio.to_thread(self._export.stop)

    async def _flush(self) -> None:
        rows = await self._take()
        if not rows:
            return
        for attempt in range(TRIES):
            try:
                async with asyncio.timeout(STALL), self._pool.connection() as connection, connection.transaction():
                    await connection.execute(PATIENCE)
                    await connection.execute(WRITE, [list(column) for column in zip(*rows, strict=True)])
            except Exception as error:  # whatever it is: executions do not end for their traces
                if attempt + 1 < TRIES and isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
                    continue  # the connection was lost, perhaps with the answer
                self.dropped += len(rows)
                log.warning("traces.dropped", traces=len(rows), error=str(error))
            else:
                self.written += len(rows)
            return

    async def _take(self) -> list[tuple[Any, ...]]:
        """The next ones, without what must not leave; the road is not held up by what there is to look through."""
        rows: list[tuple[Any, ...]] = []
        spans = 0
        while self._waiting and len(rows) < GROUP and spans < GROUP_SPANS:
            each = self._waiting.popleft()
            spans += each.spans
            self._spans = max(0, self._spans - each.spans) if self._waiting else 0
            try:
                clean = self._cleaned(each)
                if self._export is not None:
                    self._export.ended(clean)
                rows.append(_row(clean))
            except Exception as error:  # whatever it is: the others are kept
                self.dropped += 1
                log.warning("traces.dropped", traces=1, error=repr(error))
            await asyncio.sleep(0)
        return rows

    def _cleaned(self, ended: Ended) -> Ended:
        """Without what is secret or personal, for every place that the trace goes to."""
        for mark in ended.recorder.marks:
            for name, value in mark.attributes.items():
                if isinstance(value, str):
                    mark.attributes[name] = self._text(value)
        return ended if not ended.reason else replace(ended, reason=self._text(ended.reason))

    def _text(self, said: str) -> str:
        return self._redact(_storable(said[:LONGEST]))[:MAX_TEXT]


def _row(ended: Ended) -> tuple[Any, ...]:
    recorder = ended.recorder
    spans = [mark.row() for mark in recorder.marks]
    if recorder.left_out and spans:
        spans[-1][-1] = {**spans[-1][-1], "left_out": recorder.left_out}
    return (
        recorder.execution,
        ended.tenant,
        recorder.trace,
        recorder.context.parent if recorder.context is not None else None,
        "{" + ",".join(map(str, recorder.links)) + "}" if recorder.links else None,
        _encode(spans).decode(),
    )


def _storable(text: str) -> str:
    """Text that PostgreSQL takes as JSON: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
