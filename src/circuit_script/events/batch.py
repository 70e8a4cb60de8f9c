"""From queue rows to what a handler is given: records, before-images, and which of them are echoes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from circuit_script.db.binary_arrays import bigints, smallints, texts, uuids
from circuit_script.db.pool import Pool
from circuit_script.effects.echoes import is_birth, is_echo
from circuit_script.effects.homed import LOCAL, Home
from circuit_script.effects.twins import NO_TWINS, Twins, by_both, by_key, named
from circuit_script.errors import CircuitError
from circuit_script.events.backlog import Queued
from circuit_script.events.reconcile.late import late_places
from circuit_script.events.sources import Source
from circuit_script.events.sources.circuit import Circuit
from circuit_script.execution.outcome import JOB, Fields
from circuit_script.judgment.verdict import Verdict

LOAD = """
SELECT q.id IS NOT NULL, d.source, d.body, d.received_at, d.vendor_id, r.data, r.before, r.written, r.seq, r.deleted,
       r.depth, r.xmin::text::bigint, d.headers ->> 'traceparent'
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::smallint[])
     WITH ORDINALITY AS b (delivery, tenant, object, record, id, handler, place)
LEFT JOIN circuit.queue q ON q.id = b.id AND q.handler = b.handler
LEFT JOIN circuit.deliveries d ON d.id = b.delivery
LEFT JOIN circuit.records r ON r.tenant = b.tenant AND r.object = b.object AND r.id = b.record
ORDER BY b.place
"""

# The record as its last delivery before this event brought it.
EARLIER = """
SELECT w.place, d.source, d.body, e.ordinal
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
     WITH ORDINALITY AS w (tenant, object, record, id, place)
CROSS JOIN LATERAL (
    SELECT e.delivery, e.ordinal FROM circuit.events e
    WHERE e.tenant = w.tenant AND e.record = w.record AND e.object = w.object AND e.id < w.id
    ORDER BY e.id DESC LIMIT 1) e
JOIN circuit.deliveries d ON d.id = e.delivery
"""

MAX_BATCHES = 64
Found = tuple[Any, ...]

TwinsOf = Callable[[str, str], Awaitable[Twins]]
"""Of an object of a tenant: the keys of the fields that its vendor's webhooks call by ids, as far as they are known."""

# Records that are being made outside: their vendor may tell of them before it has answered. And what is known by now of
# those that it tells of: one may have been made since they were looked up. What is in doubt for long explains no event:
# to hide somebody else's loses it.
BEING_MADE = """
SELECT r.id, r.written, r.depth FROM circuit.records r
WHERE r.tenant = %(tenant)s AND r.object = %(object)s AND r.id = ANY(%(records)s) AND NOT r.deleted
UNION ALL
(SELECT NULL, e.payload -> 'fields', e.depth FROM circuit.effects e
WHERE e.status = 'pending' AND e.needs IS NULL AND e.left_at IS NOT NULL AND e.tenant = %(tenant)s
AND e.connector = %(connector)s AND e.operation IN ('insert', 'upsert') AND e.target = %(object)s
UNION ALL
SELECT NULL, e.payload -> 'fields', e.depth FROM circuit.effects e
WHERE e.status = 'in_doubt' AND e.was IS NOT NULL AND e.tenant = %(tenant)s AND e.connector = %(connector)s
AND e.operation IN ('insert', 'upsert') AND e.target = %(object)s
AND e.settled_at > to_timestamp(%(received)s) - interval '1 hour'
LIMIT 1000)
"""

JOURNAL = "SELECT event, handler, key, reply FROM circuit.journal WHERE event = ANY(%s::bigint[])"


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a batch. ``incoming`` is what the vendor sent, ``record`` that laid over what is stored; ``depth``
    is how many executions, one causing the next, led to its event; ``older`` are the updates that it stands for, the
    first one first; ``trace`` is the ``traceparent`` that it came with; ``twins`` are the keys of fields that it
    calls by ids: ``incoming`` has them under their keys, ``record`` and ``old`` under both; ``verdicts`` is what was
    found in its texts, by their place (see ``screening``)."""

    row: Queued
    incoming: Fields
    record: Fields
    old: Fields | None
    meta: Fields
    echo: bool
    depth: int = 0
    older: tuple[Item, ...] = ()
    trace: str | None = None
    twins: Twins = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


class RowsLeft(Exception):
    """Rows are in the queue no more: they were cancelled, or somebody else has settled them."""


class _Readable(Protocol):
    @staticmethod
    def records(body: bytes) -> list[dict[str, Any]]: ...


class Loader:
    """Reads what batches need: one statement for all batches that wait, and a second one only for records with a
    rarer history. ``queued`` says that rows must stand in the queue still, ``home`` where objects live; None: here.
    ``twins`` is asked for what lives outside."""

    def __init__(
        self,
        pool: Pool,
        sources: Mapping[str, Source],
        *,
        queued: bool = True,
        home: Home | None = None,
        twins: TwinsOf | None = None,
    ) -> None:
        self._pool = pool
        self._queued = queued
        self._home = home
        self._twins = twins
        self._sources: Mapping[str, _Readable] = {**sources, Circuit.name: Circuit()}
        self._waiting: list[tuple[Sequence[Queued], asyncio.Future[list[Found]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def load(self, rows: Sequence[Queued]) -> tuple[list[Item], dict[int, str]]:
        """The items, or else the places of rows that cannot be read, each with its reason.

        Raises RowsLeft where one has left the queue meanwhile: what is cancelled does not start.
        """
        twins = await self._twins_of(rows[0])
        found = await self._find(rows)
        if self._queued and not all(each[0] for each in found):
            raise RowsLeft
        items: list[Item] = []
        unreadable: dict[int, str] = {}
        for place, (row, each) in enumerate(zip(rows, found, strict=True)):
            try:
                items.append(self._item(row, twins, *each[1:]))
            except (LookupError, TypeError, ValueError, CircuitError) as error:
                unreadable[place] = f"its delivery cannot be read: {type(error).__name__}: {error}"
        if unreadable:
            return [], unreadable
        if any(row.attempts or row.recovered or row.past is not None for row in rows):
            await self._recall(rows)
        untold = [place for place, each in enumerate(items) if each.old is None and _has_past(each.row)]
        if untold:
            await self._from_ledger(items, untold)
        if self._home is not None and self._is_outside(rows[0]):
            if rows[0].event == "afterInsert":
                await self._births(items)
            for place in await late_places(self._pool, items):
                items[place] = _late(items[place])
        return items, {}

    def _is_outside(self, row: Queued) -> bool:
        return self._home is not None and self._home(row.tenant, row.object) != LOCAL

    async def _twins_of(self, row: Queued) -> Twins:
        if self._twins is None or not self._is_outside(row):
            return NO_TWINS
        return await self._twins(row.tenant, row.object)

    async def _births(self, items: list[Item]) -> None:
        """Take for echoes also records of which we do not know yet that we have made them."""
        unknown = [place for place, each in enumerate(items) if not each.echo and each.meta["version"] == 0]
        if not unknown or self._home is None:
            return
        row = items[0].row
        wanted = {
            "tenant": row.tenant,
            "connector": self._home(row.tenant, row.object),
            "object": row.object,
            "records": [items[place].row.record for place in unknown],
            "received": min(items[place].meta["received_at"] for place in unknown),
        }
        async with self._pool.connection() as connection:
            found = await (await connection.execute(BEING_MADE.encode(), wanted)).fetchall()
        for place in unknown:
            item = items[place]
            likely = [(fields, depth) for id_, fields, depth in found if fields and id_ in (None, item.row.record)]
            depths = [depth for fields, depth in likely if is_birth(item.incoming, {}, by_key(fields, item.twins)[0])]
            if depths:
                depth = max(item.depth, *depths)
                items[place] = replace(item, echo=True, depth=depth, meta={**item.meta, "depth": depth})

    async def _find(self, rows: Sequence[Queued]) -> list[Found]:
        future: asyncio.Future[list[Found]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._find_all())
        return await future

    async def _find_all(self) -> None:
        """What is asked for while a statement is under way shares the next one."""
        while self._waiting:
            asked, self._waiting = self._waiting[:MAX_BATCHES], self._waiting[MAX_BATCHES:]
            rows = [row for each, _ in asked for row in each]
            try:
                found = await self._read(rows)
            except Exception as error:  # who waits must hear of it
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for each, future in asked:
                if not future.done():
                    future.set_result(found[start : start + len(each)])
                start += len(each)

    async def _read(self, rows: Sequence[Queued]) -> list[Found]:
        values = (
            uuids([row.delivery for row in rows]),
            texts([row.tenant for row in rows]),
            texts([row.object for row in rows]),
            texts([row.record for row in rows]),
            bigints([row.id for row in rows]),
            smallints([row.handler for row in rows]),
        )
        async with self._pool.connection() as connection:
            return await (await connection.execute(LOAD, values, binary=True)).fetchall()

    async def _from_ledger(self, items: list[Item], places: Sequence[int]) -> None:
        rows = [items[place].row for place in places]
        wanted = (
            [row.tenant for row in rows],
            [row.object for row in rows],
            [row.record for row in rows],
            [row.arrived for row in rows],
        )
        async with self._pool.connection() as connection:
            found = await (await connection.execute(EARLIER, wanted)).fetchall()
        for nth, source, body, ordinal in found:
            place = places[nth - 1]
            with contextlib.suppress(LookupError, TypeError, ValueError, CircuitError):  # then nothing is known of it
                old = self._sources[source].records(bytes(body))[ordinal]
                old = by_both(old, items[place].twins)
                items[place] = replace(items[place], old={**old, "id": rows[nth - 1].record})

    async def _recall(self, rows: Sequence[Queued]) -> None:
        by_key = {(row.id, row.handler): row for row in rows}
        async with self._pool.connection() as connection:
            found = await (await connection.execute(JOURNAL, [[row.id for row in rows]])).fetchall()
        for event, handler, key, reply in found:
            row = by_key.get((event, handler))
            if row is not None:
                row.journal[bytes(key)] = bytes(reply)

    def _item(
        self,
        row: Queued,
        twins: Twins,
        source: str | None,
        body: bytes | None,
        received_at: datetime | None,
        vendor_id: str | None,
        data: Fields | None,
        before: Fields | None,
        written: Mapping[str, Any] | None,
        seq: int | None,
        deleted: bool | None,
        written_at: int | None,
        version: int | None,
        trace: str | None,
    ) -> Item:
        if source is None or body is None or received_at is None:
            raise LookupError("it is no longer in the ledger")
        if row.object == JOB and source != Circuit.name:
            raise LookupError("jobs come from the platform only")
        incoming = self._sources[source].records(bytes(body))[row.ordinal]
        incoming["id"] = row.record  # where only the settings of its time could tell
        stored = data if data is not None and not deleted else None
        if row.past is not None and deleted and row.event != "afterDelete":
            raise LookupError("its record was deleted since")
        old = _old(data if seq == row.arrived else stored, before, seq or 0, row)
        told = named(incoming, stored, written or {}, twins)
        incoming, stored, ours = told.incoming, told.stored, told.written
        echo = False
        if row.event == "afterUpdate":
            # Another handler may have settled this very event: then what was stored before it decides, as it did there.
            earlier = told if (seq or 0) < row.arrived else named(told.incoming, old, written or {}, told.twins)
            if stored is not None and earlier.stored is not None and earlier.sure:
                echo = is_echo(earlier.incoming, earlier.stored, earlier.written, earlier.twins)
        elif self._is_outside(row) and row.event == "afterInsert":
            was_there = (seq or 0) < row.arrived or ((seq or 0) == row.arrived and before is not None)
            echo = was_there and stored is not None and is_birth(incoming, stored, ours)
        elif self._is_outside(row) and row.event == "afterDelete":
            echo = (seq or 0) < row.arrived and bool(deleted)
        depth = max(row.depth, written_at or 0) if echo else row.depth
        return Item(
            row=row,
            incoming=told.keep,
            record=by_both(_current(row, stored or {}, incoming, seq or 0), told.twins),
            old={**by_both(old, told.twins), "id": row.record} if old is not None else None,
            meta={
                **_meta(row, source, vendor_id, received_at, depth, incoming),
                "version": 0 if stored is None else version,
            },
            echo=echo,
            depth=depth,
            trace=trace if row.object != JOB else _trace_of_job(incoming),
            twins=told.twins,
        )


def _late(item: Item) -> Item:
    """The same as one that says nothing: what it says was found by reconciliation, and its record shows it."""
    id_ = {"id": item.row.record}
    return replace(item, echo=True, incoming=id_, record={**(item.old or item.record), **id_})


def _current(row: Queued, stored: Fields, incoming: Fields, seq: int) -> Fields:
    """What is stored with what arrived laid over it; of an event put back, what has changed since stays."""
    if row.past is not None and seq >= row.arrived:
        return {**incoming, **stored, "id": incoming["id"]}
    return {**stored, **incoming}


def _trace_of_job(incoming: Fields) -> str | None:
    """The ``traceparent`` of the effect by which a job was enqueued."""
    said = incoming.get("job")
    trace = said.get("traceparent") if isinstance(said, dict) else None
    return trace if isinstance(trace, str) else None


def _has_past(row: Queued) -> bool:
    """Whether the ledger may know an earlier state of its record."""
    return row.event != "afterInsert" and row.object != JOB


def _meta(
    row: Queued, source: str, vendor_id: str | None, received_at: datetime, depth: int, incoming: Fields
) -> Fields:
    again = (
        {} if row.past is None else {"original": incoming, "replay": None if row.replay is None else str(row.replay)}
    )
    return {
        "id": row.arrived,
        "delivery": str(row.delivery),
        "source": source,
        "vendor_id": vendor_id,
        "received_at": received_at.timestamp(),
        "attempt": row.attempts + 1,
        "depth": depth,
        **again,
    }


def _old(stored: Fields | None, before: Fields | None, seq: int, row: Queued) -> Fields | None:
    """The record as it was before this event (decided by the id of the event that the stored row shows)."""
    if row.event == "afterInsert" or stored is None:
        return None
    if seq < row.arrived:
        return stored
    if seq == row.arrived:
        return {**stored, **before} if before is not None else None
    return None
