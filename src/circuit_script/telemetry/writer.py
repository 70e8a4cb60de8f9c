"""Author's log lines: a bounded writer that can stall or fail without slowing an execution."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
import structlog

from circuit_script.clock import uuid7
from circuit_script.db.binary_arrays import Packed, bigints, jsonbs, repeated_texts, repeated_uuids, texts, timestamps
from circuit_script.db.pool import Pool
from circuit_script.telemetry.commits import insert
from circuit_script.telemetry.printed import PrintedLines
from circuit_script.telemetry.redact import Redactor

# Not COPY: PostgreSQL refuses it on a table with row security.
WRITE = """
WITH written AS (
    INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant, record, release, trace,
                                      "user")
    SELECT unnest(%s::timestamptz[]), unnest(%s::text[]), unnest(%s::text[]), unnest(%s::jsonb[]), unnest(%s::uuid[]),
           unnest(%s::text[]), unnest(%s::text[]), unnest(%s::text[]), unnest(%s::bigint[]), unnest(%s::text[]),
           unnest(%s::text[])
) SELECT pg_current_xact_id()::text
"""
_COLUMNS: Sequence[Callable[[Any], Packed]] = (
    timestamps, repeated_texts, repeated_texts, jsonbs, repeated_uuids, repeated_texts, repeated_texts, texts, bigints,
    repeated_texts, repeated_texts,
)  # fmt: skip
MAX_MESSAGE = 20_000
MAX_LEVEL = 20
MAX_USER = 200
MAX_RECORD = 400
MAX_BYTES = 64_000_000  # of all that waits
GROUP = 5_000  # lines of one statement,
GROUP_BYTES = 250_000  # if they are short: the words of a megabyte take PostgreSQL seconds
FLUSH = 0.2
STALL = 5.0  # seconds that one write may take before its lines are given up
AWAY = 30.0  # seconds for which lines are kept while the database cannot be reached
AGAIN = 0.5
DROPPED = "circuit.log"  # the handler of lines that speak of lines
MOST_TENANTS = 1000  # of whose dropped lines is counted apart

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


class Line(NamedTuple):
    """One line as it is stored; ``context`` is JSON."""

    at: datetime
    level: str
    message: str
    context: bytes | None
    execution: UUID
    handler: str
    tenant: str
    record: str | None
    release: int
    trace: str | None
    user: str | None

    @property
    def size(self) -> int:
        return len(self.message) + (len(self.context) if self.context is not None else 0)

    def as_json(self) -> bytes:
        """The line for a collector of logs, ended by a line break."""
        at, level, message, context, execution, handler, tenant, record, release, trace, user = self
        shown = None if context is None else msgspec.Raw(context)
        of = trace or execution.hex
        return _encode(_Shown(at, level, message, execution, handler, tenant, release, of, shown, record, user)) + b"\n"


class _Shown(msgspec.Struct, omit_defaults=True):
    """A line without what it does not say."""

    at: datetime
    level: str
    message: str
    execution: UUID
    handler: str
    tenant: str
    release: int
    trace: str
    context: msgspec.Raw | None = None
    record: str | None = None
    user: str | None = None


class LogWriter:
    """Lines of executions on their way to ``circuit.circuit_logs`` and, with ``printed``, to standard output. At most
    ``bound`` wait in memory; what is over is dropped, counted, and told in a line of its own. Levels that are
    ``unkept`` are printed only."""

    def __init__(
        self,
        pool: Pool,
        release: int,
        bound: int = 20_000,
        *,
        redactor: Redactor | None = None,
        printed: PrintedLines | None = None,
        unkept: Container[str] = (),
    ) -> None:
        self._pool = pool
        self._release = release
        self._bound = bound
        self._redactor = redactor or Redactor()
        self._printed = printed
        self._unkept = unkept
        self._lines: deque[Line] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._stopping = False
        self._untold: Counter[str] = Counter()  # lines that were dropped, by tenant
        self.dropped = 0
        self.written = 0

    def add(self, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        """Take a line; never waits. Over the bound it is dropped and counted."""
        self._take(self._release, execution, handler, tenant, line)

    def of_release(self, release: int) -> Callable[[UUID, str, str, dict[str, Any]], None]:
        """``add`` for the executions of another release than the writer's own."""
        return partial(self._take, release)

    def _take(self, release: int, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        if len(self._lines) >= self._bound or self._bytes > MAX_BYTES:
            self._drop([tenant])
            return
        kept = (level := _clean(line.get("level") or "info")[:MAX_LEVEL]) not in self._unkept
        if not kept and self._printed is None:
            return
        record, trace, context = line.get("record"), line.get("trace"), line.get("context")
        taken = Line(
            _moment(line.get("at")),
            level,
            self._redactor.text(_clean(line.get("message") or "")[: 2 * MAX_MESSAGE])[:MAX_MESSAGE],
            self._context(context) if context else None,
            execution,
            handler,
            tenant,
            _clean(record)[:MAX_RECORD] if record is not None else None,
            release,
            _clean(trace) if trace is not None else None,
            self._user(context) if context else None,
        )
        if self._printed is not None:
            self._printed.add(taken.as_json)
        if kept:
            self._lines.append(taken)
            self._bytes += taken.size
            self._some.set()

    def stop(self) -> None:
        self._stopping = True
        self._some.set()

    async def run(self) -> None:
        """Write until stopped, and then what is left."""
        while not self._stopping or self._lines or self._untold:
            await self._some.wait()
            self._some.clear()
            if not self._stopping:
                await asyncio.sleep(FLUSH)
            while self._lines or self._untold:
                if not await self._flush():
                    break
            if self._untold and not self._stopping:
                self._some.set()
                await asyncio.sleep(AGAIN)
            elif self._stopping:
                break
        if self._lines:
            log.warning("logs.dropped", lines=len(self._lines), error="the worker has stopped")
            self._drop([line.tenant for line in self._lines])
            self._lines.clear()
        if self._printed is not None:
            await asyncio.to_thread(self._printed.stop)

    async def _flush(self) -> bool:
        """Write a group; False when its lines had to be dropped."""
        lines = self._group()
        told = self._untold
        self._untold = Counter()
        try:
            await self._write([*lines, *(self._about(tenant, count) for tenant, count in told.items())])
        except Exception as error:  # whatever it is: these lines are counted, and the next ones are written
            log.warning("logs.dropped", lines=len(lines), error=str(error) or repr(error))
            self._untold.update(told)  # more may have been dropped meanwhile
            self._drop([line.tenant for line in lines])
            return False
        self.written += len(lines)
        return True

    def _group(self) -> list[Line]:
        lines: list[Line] = []
        size = 0
        while self._lines and len(lines) < GROUP and size < GROUP_BYTES:
            lines.append(line := self._lines.popleft())
            size += line.size
        self._bytes = self._bytes - size if self._lines else 0
        return lines

    async def _write(self, lines: Sequence[Line]) -> None:
        """Once and only once, also where the connection is lost with the answer. Waits for a database that is away."""
        ends = time.monotonic() + AWAY
        columns = [pack(column) for pack, column in zip(_COLUMNS, zip(*lines, strict=True), strict=True)]
        while True:
            try:
                return await insert(self._pool, WRITE, columns, STALL)
            except (psycopg.Error, OSError) as error:
                if self._stopping or not _is_away(error) or time.monotonic() > ends:
                    raise
            await asyncio.sleep(AGAIN)

    def _drop(self, tenants: Sequence[str]) -> None:
        self.dropped += len(tenants)
        for tenant in tenants:
            if tenant in self._untold or len(self._untold) < MOST_TENANTS:
                self._untold[tenant] += 1

    def _about(self, tenant: str, count: int) -> Line:
        said = f"lines of this log were dropped, as they could not be written fast enough: {count}"
        context = _encode({"dropped": count})
        return Line(
            datetime.now(UTC), "warning", said, context, uuid7(), DROPPED, tenant, None, self._release, None, None
        )

    def _context(self, context: Any) -> bytes:
        kept = self._redactor.value(context)
        try:
            try:
                return _without_nul(_encode(kept))
            except UnicodeEncodeError:
                return _without_nul(_encode(_storable(kept)))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return _without_nul(_encode({"repr": _clean(repr(kept))}))

    def _user(self, context: Any) -> str | None:
        """The field of that name, if it names somebody."""
        user = context.get("user") if isinstance(context, dict) else None
        return self._redactor.text(_clean(user))[:MAX_USER] if isinstance(user, str | int) and user != "" else None


def _is_away(error: psycopg.Error | OSError) -> bool:
    """Whether the server could not be reached at all, rather than did not take the lines."""
    if isinstance(error, TimeoutError) or not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


def _moment(at: Any) -> datetime:
    try:
        return datetime.fromtimestamp(float(at or time.time()), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.now(UTC)


def _storable(value: Any) -> Any:
    """The same with texts that can be encoded."""
    if isinstance(value, dict):
        return {_clean(key): _storable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return _clean(value) if isinstance(value, str) else value


def _without_nul(said: bytes) -> bytes:
    """JSON that PostgreSQL stores."""
    return said.replace(b"\\u0000", b"\\ufffd") if b"\\u0000" in said else said


def _clean(value: Any) -> str:
    """Text that PostgreSQL stores: without NUL, also where JSON has escaped it, and without lone surrogates."""
    text = str(value)
    if "\0" in text or "\\u0000" in text:
        text = text.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
