"""Author's log lines: a bounded writer that can stall or fail without slowing an execution."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import structlog

from circuit_script.db.pool import Pool

# Not COPY: PostgreSQL refuses it on a table with row security.
WRITE = """
INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record, release)
SELECT l.at, l.level, l.message, l.context::jsonb, l.execution, l.handler, l.tenant, l.record, l.release
FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::text[], %s::text[], %s::text[],
            %s::bigint[])
     AS l (at, level, message, context, execution, handler, tenant, record, release)
"""
MAX_MESSAGE = 20_000
MAX_LEVEL = 20
FLUSH = 0.2
STALL = 5.0  # seconds that one write may take before its lines are given up

log = structlog.get_logger()
_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure_logging(role: str) -> None:
    """The platform's own lines: JSON on standard error, with the role."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(role=role)


class LogWriter:
    """Lines of executions on their way to ``circuit.circuit_logs``; at most ``bound`` wait in memory."""

    def __init__(self, pool: Pool, release: int, bound: int = 20_000) -> None:
        self._pool = pool
        self._release = release
        self._bound = bound
        self._lines: deque[tuple[Any, ...]] = deque()
        self._some = asyncio.Event()
        self._stopping = False
        self.dropped = 0

    def add(self, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        """Take a line; never waits. Over the bound it is dropped and counted."""
        self._take(self._release, execution, handler, tenant, line)

    def of_release(self, release: int) -> Callable[[UUID, str, str, dict[str, Any]], None]:
        """``add`` for the executions of another release than the writer's own."""
        return partial(self._take, release)

    def _take(self, release: int, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        if len(self._lines) >= self._bound:
            self.dropped += 1
            return
        record = line.get("record")
        self._lines.append((
            _moment(line.get("at")),
            _clean(line.get("level") or "info")[:MAX_LEVEL],
            _clean(line.get("message") or "")[:MAX_MESSAGE],
            _context(line.get("context")),
            execution,
            handler,
            tenant,
            _clean(record) if record is not None else None,
            release,
        ))  # fmt: skip
        self._some.set()

    def stop(self) -> None:
        self._stopping = True
        self._some.set()

    async def run(self) -> None:
        """Write until stopped, and then what is left."""
        while not self._stopping or self._lines:
            await self._some.wait()
            self._some.clear()
            if not self._stopping:
                await asyncio.sleep(FLUSH)
            await self._flush()

    async def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        try:
            async with asyncio.timeout(STALL), self._pool.connection() as connection:
                await connection.execute(WRITE, [list(column) for column in zip(*lines, strict=True)])
        except (psycopg.Error, OSError) as error:
            self.dropped += len(lines)
            log.warning("logs.dropped", lines=len(lines), error=str(error))


def _moment(at: Any) -> datetime:
    try:
        return datetime.fromtimestamp(float(at or time.time()), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.now(UTC)


def _context(context: Any) -> str | None:
    if not context:
        return None
    try:
        return _clean(_encode(context).decode())
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _clean(_encode({"repr": _clean(repr(context))}).decode())


def _clean(value: Any) -> str:
    """Text that PostgreSQL stores: without NUL, also where JSON has escaped it, and without lone surrogates."""
    text = str(value).replace("\0", "\ufffd").replace("\\u0000", "\\ufffd")
    return text.encode("utf-8", "replace").decode()
