"""What a handler is given: its records, and where it stands."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextvars import Token
from functools import cached_property
from types import TracebackType
from typing import Any, SupportsIndex, cast, overload
from uuid import UUID

import msgspec

from circuit_script.execution.protocol import NOBODY
from circuit_script.execution.session import Session, active, clean, current_record

MAX_REASON = 2000


class Record(dict[str, Any]):
    """One record: a dict of its fields. ``place`` is its position in the batch."""

    __slots__ = ("place",)
    place: int

    @property
    def id(self) -> Any:
        """The record's id at its vendor."""
        return self.get("id")


class Records(list[Record]):
    """The records of a batch. Who iterates it, or takes one out, tells the parent which record is being worked on."""

    __slots__ = ("_word",)

    def __init__(self, rows: list[dict[str, Any]], word: memoryview) -> None:
        super().__init__(map(Record, rows))
        for place, record in enumerate(super().__iter__()):
            record.place = place
        self._word = word

    def __iter__(self) -> Iterator[Record]:
        word = self._word
        for record in super().__iter__():
            word[0] = record.place
            yield record
        word[0] = NOBODY

    @overload
    def __getitem__(self, key: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> list[Record]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Record | list[Record]:
        found = super().__getitem__(key)
        if isinstance(found, Record):
            self._word[0] = found.place
        return found


class Meter(msgspec.Struct, frozen=True):
    """One limit: how much is used and how much there may be."""

    used: float
    ceiling: float

    @property
    def left(self) -> float:
        return max(0.0, self.ceiling - self.used)


class Meters:
    """The limits of the execution, as attributes: ``context.limits.callouts.left``.

    Counts are as of the broker's latest answer; times are as of now.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cpu = time.process_time()

    def __getattr__(self, name: str) -> Meter:
        ceiling = self._session.run.limits.get(name)
        if ceiling is None:
            raise AttributeError(f"there is no limit {name!r}: there are {', '.join(self._session.run.limits)}.")
        if name == "wall_time":
            return Meter(time.monotonic() - self._session.started, ceiling)
        if name == "cpu_time":
            return Meter(time.process_time() - self._cpu, ceiling)
        return Meter(self._session.used.get(name, 0), ceiling)


class Context:
    """One call of a handler: a batch of records of one object, one event name and one tenant."""

    def __init__(self, session: Session, word: memoryview) -> None:
        run = session.run
        self.object = run.object
        self.event_name = run.event
        self.tenant = run.tenant
        self.started_at = run.started_at
        self.new_records = Records(run.records, word)
        self.limits = Meters(session)
        self.errors: dict[int, str] = {}
        self._run = run
        self._word = word
        self._session = session
        session.context = self

    @property
    def execution_id(self) -> UUID:
        """The id of this execution."""
        return UUID(self._run.execution)

    @cached_property
    def old_records(self) -> list[Record | None]:
        """The last seen state of each record before this event, None where there is none. Parallel to new_records."""
        rows = msgspec.msgpack.decode(self._run.old, type=list[dict[str, Any] | None])
        return [None if row is None else _placed(row, place) for place, row in enumerate(rows)]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The events as they arrived. Parallel to new_records."""
        return msgspec.msgpack.decode(self._run.events, type=list[dict[str, Any]])

    @property
    def event(self) -> dict[str, Any]:
        """The event, when the batch has exactly one. Raises ValueError otherwise."""
        if len(self.events) != 1:
            raise ValueError(f"This batch has {len(self.events)} events: use context.events.")
        return self.events[0]

    def changed(self, record: Record, field: str) -> bool:
        """Whether the field differs from the last seen state; True for a record that nobody has seen before."""
        old = self.old_records[self._place(record)]
        return old is None or old.get(field) != record.get(field)

    def record(self, record: Record) -> RecordScope:
        """``async with context.record(r):`` makes what is done inside r's own.

        An exception inside fails this record only; its effects do not leave, and the code after the block goes on.
        """
        return RecordScope(self, self._place(record), self._word, self._session)

    def add_error(self, record: Record, reason: object) -> None:
        """Let this record fail with a reason; the others go on."""
        self.errors.setdefault(self._place(record), clean(str(reason))[:MAX_REASON])

    def _place(self, record: Record) -> int:
        place = getattr(record, "place", None)
        if place is None:
            raise TypeError("This is not one of context.new_records (a copy of a record loses its place in the batch).")
        return cast(int, place)


class RecordScope:
    """A block that belongs to one record; ``with`` serves handlers that are plain functions."""

    def __init__(self, context: Context, place: int, word: memoryview, session: Session) -> None:
        self._context = context
        self._place = place
        self._word = word
        self._session = session
        self._before = NOBODY
        self._token: Token[int | None] | None = None

    def __enter__(self) -> Record:
        self._before = self._word[0]
        self._word[0] = self._place
        self._token = current_record.set(self._place)
        return list.__getitem__(self._context.new_records, self._place)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None and not isinstance(error, Exception):
            return False
        if error is not None:
            reason = reason_of(error)
            self._context.errors.setdefault(self._place, reason)
            detail: Mapping[str, Any] = {"traceback": "".join(traceback.format_exception(error, limit=-8))[-4000:]}
            self._session.log({"level": "error", "message": reason, "context": detail})
        if self._token is not None:
            current_record.reset(self._token)
        self._word[0] = self._before
        return error is not None

    async def __aenter__(self) -> Record:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)


def reason_of(error: BaseException) -> str:
    """An exception in one bounded line, also when its own __str__ fails."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__} (its message cannot be shown)"
    return clean(text).removesuffix(": ")[:MAX_REASON]


def _placed(row: dict[str, Any], place: int) -> Record:
    record = Record(row)
    record.place = place
    return record


def current_context() -> Context | None:
    """The context of the running handler; None outside of one."""
    running = active()
    return cast(Context, running.context) if running is not None else None
