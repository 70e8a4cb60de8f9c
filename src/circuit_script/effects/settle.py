"""Settles executions: outcome, usage and effects in one transaction, several executions in one commit."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from circuit_script.connectors.connector import Fields
from circuit_script.db.binary_arrays import Packed, bigints, booleans, jsonbs, smallints, texts, timestamps, uuids
from circuit_script.db.pool import Pool
from circuit_script.effects import answered
from circuit_script.effects.conditions import CHANGED, Conditions, conflict_of
from circuit_script.effects.homed import LOCAL, Home, Homed, Made
from circuit_script.effects.stored import as_json
from circuit_script.effects.stored import plain as plain
from circuit_script.effects.unit import Send, Write
from circuit_script.errors import Fenced
from circuit_script.execution.outcome import JOB, JOBS
from circuit_script.failpoints import areach

MAX_EXECUTIONS = 32
FENCED = "CS001"
OF_THE_ROWS = ("21", "22", "23", "54")  # SQLSTATE classes: cardinality, data, integrity, too large

_EXECUTIONS = (uuids, texts, bigints, smallints, texts, texts, smallints, texts, texts, texts, timestamps, jsonbs)
_ROWS = (bigints, smallints, uuids, smallints, uuids, texts, texts, texts, texts, smallints, timestamps, timestamps)
_RECORDS = (texts, texts, texts, jsonbs, jsonbs, bigints, booleans, smallints)
_INSERTED = (texts, texts, texts)
_EFFECTS = (
    uuids, texts, uuids, bigints, smallints, bigints, texts, texts, texts, texts, jsonbs, texts, smallints,
)  # fmt: skip
_PARAMETERS = 3 + sum(map(len, (_EXECUTIONS, _ROWS, _RECORDS, _INSERTED, _EFFECTS)))
# Numbered placeholders, for a raw cursor: rewriting so many named ones cost a tenth of the worker's time for endpoints.
SETTLE = f"circuit.settle({', '.join(f'${n}' for n in range(1, _PARAMETERS + 1))})"
# SQLSTATEs: the result does not count, or did before.
OF_THE_CALLER = (FENCED, answered.TAKEN, answered.COMMITTED, CHANGED)


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of one queue row. ``status`` is succeeded, retry, deferred, dead, cancelled or echo."""

    id: int
    handler: int
    lane: int
    delivery: UUID
    ordinal: int
    tenant: str
    record: str
    status: str
    attempts: int
    order_hash: int
    reason: str | None = None
    not_before: datetime | None = None
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """The state that an event brought for its record; ``seq`` is the event's id."""

    object: str
    id: str
    fields: Fields
    seq: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """One execution with all that its end means.

    ``place`` is the lane and order of its effects where it has no rows; ``call`` is the request that it answers;
    ``local`` is the id of the effect that tells what it wrote, where that is not the only one of its execution;
    ``depth`` is the execution's, and so that of all it causes; ``trace`` is the one that its effects go on with, None
    for the execution's own.
    """

    execution: UUID
    tenant: str
    release: int
    handler: int
    object: str
    event: str
    records: int
    status: str
    started_at: datetime
    usage: Mapping[str, float]
    reason: str | None = None
    detail: str | None = None
    epochs: Mapping[int, int] = field(default_factory=dict)
    rows: Sequence[Settled] = ()
    arrived: Sequence[Arrived] = ()
    writes: Sequence[Write] = ()
    sends: Sequence[tuple[Send, int, int]] = ()
    place: tuple[int, int] = (0, 0)
    call: answered.Call | None = None
    local: UUID | None = None
    depth: int = 1
    trace: UUID | None = None

    def touched(self) -> set[tuple[str, str, str]]:
        """Keys of the CRM records that this settlement changes."""
        changed: Iterable[Arrived | Write] = (*self.arrived, *self.writes)
        return {(self.tenant, each.object, each.id) for each in changed}


RecordKey = tuple[str, str, str]


@dataclass(slots=True)
class _Row:
    data: Fields
    written: Fields
    seq: int = 0
    gone: bool = False
    depth: int = 0


class Settler:
    """Commits settlements for one worker. What arrives while a commit is under way shares the next one. ``home`` says
    where objects live; None: all of them here."""

    def __init__(
        self, pool: Pool, worker: UUID, redact: Callable[[str], str] = str, *, home: Home | None = None
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._redact = redact
        self._home = home
        self._waiting: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    def leaves(self, settlement: Settlement) -> bool:
        """Whether it has something for the courier."""
        if settlement.sends or self._home is None:
            return bool(settlement.sends)
        return any(self._home(settlement.tenant, each.object) != LOCAL for each in settlement.writes)

    async def settle(self, settlement: Settlement) -> None:
        """Return once the settlement is committed.

        Raises Fenced when it does not count, VersionConflict when a record was changed that it was to find as it was
        read, and psycopg.Error when the database could not say.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((_redacted(settlement, self._redact), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            await future
        except asyncio.CancelledError:  # nobody waits for it any more: unless it is on its way, it stays undone
            self._waiting[:] = [waiting for waiting in self._waiting if waiting[1] is not future]
            raise

    async def _run(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                await self._commit([settlement for settlement, _ in group])
            except (psycopg.Error, OSError) as error:
                await self._one_by_one(group, error)
            except Exception as bug:  # who waits must hear of it: else its rows would wait for ever
                for _, future in group:
                    _resolve(future, bug)
            else:
                for _, future in group:
                    _resolve(future)

    def _next_group(self) -> list[tuple[Settlement, asyncio.Future[None]]]:
        """The longest prefix in which no record is touched twice (one statement changes a row once) and no
        lane has two epochs."""
        group: list[tuple[Settlement, asyncio.Future[None]]] = []
        touched: set[tuple[str, str, str]] = set()
        epochs: dict[int, int] = {}
        for waiting in self._waiting[:MAX_EXECUTIONS]:
            mine, held = waiting[0].touched(), waiting[0].epochs
            if touched & mine or any(epochs.get(lane, epoch) != epoch for lane, epoch in held.items()):
                break
            touched |= mine
            epochs |= held
            group.append(waiting)
        del self._waiting[: len(group)]
        return group

    async def _one_by_one(
        self, group: Sequence[tuple[Settlement, asyncio.Future[None]]], error: psycopg.Error | OSError
    ) -> None:
        """A group that failed as a whole is tried apart, so that one bad settlement fails alone."""
        for settlement, future in group:
            if len(group) == 1 or is_transient(error):
                _resolve(future, _translated(error))
                continue
            try:
                await self._commit([settlement])
            except (psycopg.Error, OSError) as single:
                _resolve(future, _translated(single))
            except Exception as bug:  # who waits must hear of it
                _resolve(future, bug)
            else:
                _resolve(future)

    async def _commit(self, settlements: Sequence[Settlement]) -> None:
        try:
            values = _parameters(self._worker, settlements, self._home)
            asked = _conditions(settlements, self._home)
            values += asked.values
        except (TypeError, ValueError, OverflowError, RecursionError, struct.error) as error:
            raise psycopg.DataError(f"it cannot be stored: {error}") from error
        await areach("settle.before")
        async with self._pool.connection() as connection:
            await psycopg.AsyncRawCursor(connection).execute(asked.statement, values)
        await areach("settle.committed")


def _redacted(settlement: Settlement, redact: Callable[[str], str]) -> Settlement:
    """Without what is secret or personal in the reasons of what failed."""
    if settlement.reason is None and settlement.detail is None and not any(row.reason for row in settlement.rows):
        return settlement

    def clean(said: str | None) -> str | None:
        return redact(said) if said else said

    rows = [replace(row, reason=clean(row.reason)) if row.reason else row for row in settlement.rows]
    return replace(settlement, reason=clean(settlement.reason), detail=clean(settlement.detail), rows=rows)


def _resolve(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _translated(error: psycopg.Error | OSError) -> Exception | None:
    if not isinstance(error, psycopg.Error) or error.sqlstate not in OF_THE_CALLER:
        return error
    if error.sqlstate == CHANGED:
        return conflict_of(error.diag.message_detail)
    return None if error.sqlstate == answered.COMMITTED else Fenced(str(error.diag.message_primary or ""))


def is_transient(error: psycopg.Error | OSError) -> bool:
    """True when the error speaks of the server or the connection, false when it speaks of what was written."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return not isinstance(error, psycopg.DataError)
    return error.sqlstate not in OF_THE_CALLER and not error.sqlstate.startswith(OF_THE_ROWS)


def _conditions(settlements: Sequence[Settlement], home: Home | None) -> Conditions:
    asked = Conditions(SETTLE, _PARAMETERS)
    asked.answers([(s.execution, s.tenant, s.handler, s.call) for s in settlements if s.call is not None])
    traced: list[tuple[UUID, UUID]] = []
    if home is not None:
        traced = _homes(asked, settlements, home)
    checked = [
        (s.tenant, each)
        for s in settlements
        for each in s.writes
        if each.if_version is not None and (home is None or home(s.tenant, each.object) == LOCAL)
    ]
    if checked:
        asked.checks(checked, [key for s in settlements for key in s.touched()])
    asked.refers([send for s in settlements for send, _, _ in s.sends])
    asked.traces(traced + [(send.id, s.trace) for s in settlements if s.trace is not None for send, _, _ in s.sends])
    return asked


def _homes(asked: Conditions, settlements: Sequence[Settlement], home: Home) -> list[tuple[UUID, UUID]]:
    """Ask for the writes of what lives outside; their effects of which another trace goes on, with that."""
    homed, traced = Homed(), []
    for each in settlements:
        seen = {(state.object, state.id): (state.fields, state.seq) for state in each.arrived if not state.deleted}
        lane = each.rows[0].lane if each.rows else each.place[0]
        made = Made(each.execution, each.tenant, each.release, lane, each.depth)
        ids = homed.writes(made, home, each.writes, seen)
        homed.sends([send for send, _, _ in each.sends])
        if each.trace is not None:
            traced += [(id_, each.trace) for id_ in ids]
    rows = [tuple(as_json(value) if isinstance(value, dict) else value for value in row) for row in homed.rows]
    asked.homes(homed, rows, [key for each in settlements for key in each.touched()])
    return traced


def _parameters(worker: UUID, settlements: Sequence[Settlement], home: Home | None) -> list[Any]:
    epochs = {lane: epoch for each in settlements for lane, epoch in each.epochs.items()}
    executions = [
        (s.execution, s.tenant, s.release, s.handler, s.object, s.event, s.records, s.status, plain(s.reason),
         plain(s.detail), s.started_at, as_json(s.usage))
        for s in settlements
    ]  # fmt: skip
    rows = [
        (r.id, r.handler, r.delivery, r.ordinal, s.execution, r.tenant, r.record, r.status, plain(r.reason),
         r.attempts, r.not_before, r.held_until)
        for s in settlements
        for r in s.rows
    ]  # fmt: skip
    kept, inserted = _records(settlements, home)
    effects = [
        (send.id, s.tenant, s.execution, s.release, lane, _order(send, order_hash), send.connector, send.operation,
         send.target, _owner(s, send), as_json(send.payload), "pending", s.depth)
        for s in settlements
        for send, lane, order_hash in s.sends
    ]  # fmt: skip
    effects += [each for s in settlements if (each := _local_effect(s, home)) is not None]
    return [
        worker, smallints(list(epochs)), bigints(list(epochs.values())),
        *_packed(executions, _EXECUTIONS), *_packed(rows, _ROWS), *_packed(kept, _RECORDS),
        *_packed(inserted, _INSERTED), *_packed(effects, _EFFECTS),
    ]  # fmt: skip


def _packed(rows: Sequence[tuple[Any, ...]], packers: Sequence[Callable[[list[Any]], Packed]]) -> list[Packed]:
    """A column at a time: one packed array per packer."""
    if not rows:
        return [pack([]) for pack in packers]
    return [pack(list(column)) for pack, column in zip(packers, zip(*rows, strict=True), strict=True)]


def _records(
    settlements: Sequence[Settlement], home: Home | None
) -> tuple[list[tuple[Any, ...]], list[tuple[str, str, str]]]:
    """One row per CRM record: what events brought (the latest over earlier ones), our writes over it in their order.
    And the keys that handlers inserted. A job is no record."""
    rows: dict[RecordKey, _Row] = {}
    inserted: dict[RecordKey, None] = {}
    for each in settlements:
        for state in sorted((one for one in each.arrived if one.object != JOB), key=lambda one: one.seq):
            row = rows.setdefault((each.tenant, state.object, state.id), _Row({}, {}))
            row.data.update((name, value) for name, value in state.fields.items() if name != "id")
            row.seq, row.gone = state.seq, state.deleted
        for write in each.writes:
            key = (each.tenant, write.object, write.id)
            row = rows.setdefault(key, _Row({}, {}))
            row.gone = write.op == "delete"
            if write.op in ("insert", "upsert") and not write.fresh:
                inserted[key] = None
            row.data.update(write.fields)
            # Of a record that only we know there is no echo.
            if not write.fresh or (home is not None and home(each.tenant, write.object) != LOCAL):
                row.written.update(write.fields)
                row.depth = each.depth
    kept = [(*key, as_json(row.data), as_json(row.written), row.seq, row.gone, row.depth) for key, row in rows.items()]
    return kept, list(inserted)


def _local_effect(settlement: Settlement, home: Home | None) -> tuple[Any, ...] | None:
    """One row a settlement for what it wrote to the built-in CRM: ids by operation, object and fields. The values
    stand in the records; nothing large is stored twice."""
    writes = settlement.writes
    if home is not None:
        writes = [each for each in writes if home(settlement.tenant, each.object) == LOCAL]
    if not writes:
        return None
    lane, order_hash = (row.lane, row.order_hash) if (row := next(iter(settlement.rows), None)) else settlement.place
    written: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for each in writes:
        written.setdefault((each.op, each.object, tuple(each.fields)), []).append(each.id)
    names = sorted({f"{op} {object_}" for op, object_, _ in written})
    payload = as_json([[*kind, ids] for kind, ids in written.items()])
    return (settlement.local or settlement.execution, settlement.tenant, settlement.execution, settlement.release,
            lane, order_hash, "local", ", ".join(names)[:200], "records", None, payload, "delivered",
            settlement.depth)  # fmt: skip


def _order(send: Send, order_hash: int) -> int:
    """A job waits for no other effect, and none waits for it: its order is its own."""
    return order_hash if send.connector != JOBS else order_of(send.id)


def order_of(job: UUID) -> int:
    """The order of the effect that makes a job."""
    return int.from_bytes(job.bytes[8:], "big", signed=True)


def _owner(settlement: Settlement, send: Send) -> str | None:
    if send.owner is None:
        return None
    # A trial has no rows in the queue; there each record that was given has arrived.
    return settlement.rows[send.owner].record if settlement.rows else settlement.arrived[send.owner].id
