"""Rows that no webhook has told of become deliveries of the platform, each state of a record once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import structlog
from psycopg import DataError

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Fields
from circuit_script.db.pool import Pool
from circuit_script.effects.order import order_hash
from circuit_script.errors import IntakeRefused
from circuit_script.events.ledger import Connection, LedgerRow, take_in
from circuit_script.events.reconcile.known import Known, Verdict, judge, known_of, moment_of
from circuit_script.events.sources import EventDraft
from circuit_script.events.sources.circuit import Circuit
from circuit_script.events.sources.source import Record, identifier, order_key, storable
from circuit_script.failpoints import areach

ACCOUNT = "reconcile"
BULK = 50  # deliveries in one transaction, for which intake waits
MAX_ROW = 1024 * 1024  # bytes
EVENTS = {Verdict.NEW: "afterInsert", Verdict.CHANGED: "afterUpdate"}

# take_in's: no webhook comes in between what is known and what is made of it. Who stands still with it is cut off.
LOCK = "SELECT set_config('idle_in_transaction_session_timeout', '5000', true), pg_advisory_xact_lock(7207418001)"
RING = "NOTIFY circuit_queue"
NOTE = """
INSERT INTO circuit.reconciled (tenant, object, record, delivery, field, changed)
SELECT %s, %s, n.record, n.delivery, %s, n.changed
FROM unnest(%s::text[], %s::uuid[], %s::text[]) AS n (record, delivery, changed)
"""

log = structlog.get_logger()
_encode = msgspec.json.Encoder(enc_hook=str).encode


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are from; ``stamp`` is the field that says when they were changed, ``twins`` as in `differs`."""

    tenant: str
    connector: str
    object: str
    stamp: str
    twins: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Fed:
    """What became of rows: how many were taken in, by event; and those that are to be read again, by their ids."""

    found: dict[str, int] = field(default_factory=dict)
    oldest: datetime | None = None
    again: list[Fields] = field(default_factory=list)

    def add(self, event: str, changed: datetime | None) -> None:
        self.found[event] = self.found.get(event, 0) + 1
        if changed is not None:
            self.oldest = changed if self.oldest is None else min(self.oldest, changed)

    def join(self, other: Fed) -> None:
        for event, count in other.found.items():
            self.found[event] = self.found.get(event, 0) + count
        moments = [each for each in (self.oldest, other.oldest) if each is not None]
        self.oldest = min(moments, default=None)
        self.again += other.again


async def feed(
    database: Pool, place: Place, rows: Sequence[Fields], read_at: datetime, *, sure: bool = False, dry: bool = False
) -> Fed:
    """Take in what is not known of these rows, which the vendor was asked for at ``read_at``. One that PostgreSQL
    refuses is left out and told. Raises psycopg.Error for anything else."""
    fed = Fed()
    usable = _usable(place, rows)
    for start in range(0, len(usable), BULK):
        chunk = usable[start : start + BULK]
        try:
            fed.join(await _feed(database, place, chunk, read_at, sure, dry))
        except DataError:  # one of them; nothing of the chunk was taken in
            for row in chunk:
                try:
                    fed.join(await _feed(database, place, [row], read_at, sure, dry))
                except DataError as error:
                    _left_out(place, error)
    return fed


async def _feed(database: Pool, place: Place, chunk: Sequence[Fields], read_at: datetime, sure: bool, dry: bool) -> Fed:
    fed = Fed()
    async with database.connection() as connection:
        verdicts, _ = await _judged(connection, place, chunk, read_at, sure)
    fed.again += [row for row, verdict in zip(chunk, verdicts, strict=True) if verdict is Verdict.AGAIN]
    news = [row for row, verdict in zip(chunk, verdicts, strict=True) if verdict in EVENTS]
    if dry:
        for row, verdict in zip(chunk, verdicts, strict=True):
            if verdict in EVENTS:
                fed.add(EVENTS[verdict], moment_of(row.get(place.stamp)))
    elif news:
        await areach("reconcile.before")
        async with database.connection() as connection, connection.transaction():
            await connection.execute(LOCK)
            await _take_in(connection, place, news, read_at, sure, fed)
        await areach("reconcile.fed")
    return fed


async def _take_in(
    connection: Connection, place: Place, rows: Sequence[Fields], read_at: datetime, sure: bool, fed: Fed
) -> None:
    """What is news of these rows still, now that nothing else comes in."""
    verdicts, known = await _judged(connection, place, rows, read_at, sure)
    made: list[tuple[str, LedgerRow, str]] = []
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict is Verdict.AGAIN:
            fed.again.append(row)
        elif verdict in EVENTS:
            made.append((EVENTS[verdict], _row(place, row, EVENTS[verdict], known[row["id"]]), row[place.stamp]))
    if not made:
        return
    taken = await take_in(connection, [row for _, row, _ in made])
    fresh = [(event, row, changed) for event, row, changed in made if row.id not in taken.duplicates]
    names = [row.events[0].record for _, row, _ in fresh]
    values = [place.tenant, place.object, place.stamp, names, [row.id for _, row, _ in fresh], [at for *_, at in fresh]]
    await connection.execute(NOTE, values)
    if taken.asleep:
        await connection.execute(RING)
    for event, _, changed in fresh:
        fed.add(event, moment_of(changed))


async def _judged(
    connection: Connection, place: Place, rows: Sequence[Fields], read_at: datetime, sure: bool
) -> tuple[list[Verdict], Mapping[str, Known]]:
    moments = {row["id"]: moment_of(row[place.stamp]) or read_at for row in rows}
    known = await known_of(connection, place.tenant, place.connector, place.object, moments, read_at)
    return [judge(row, known[row["id"]], place.stamp, read_at, sure=sure, twins=place.twins) for row in rows], known


def _left_out(place: Place, error: Exception) -> None:
    log.warning("reconcile.row", tenant=place.tenant, connector=place.connector, object=place.object,
                error=str(error)[:200], next="it is left out")  # fmt: skip


def _usable(place: Place, rows: Sequence[Fields]) -> list[Fields]:
    """Rows with an id and a stamp, made of what can be stored; of one record the last. Others are left out and told."""
    found: dict[str, Fields] = {}
    for row in rows:
        try:
            id_ = identifier(row.get("id"))
            body = _encode(row)
            if not id_ or len(body) > MAX_ROW or moment_of(row.get(place.stamp)) is None:
                raise ValueError("it has no id, no moment of its change, or is too large")
            read: Record = storable(msgspec.json.decode(body), body)
        except (ValueError, TypeError, RecursionError, IntakeRefused) as error:
            _left_out(place, error)
            continue
        found[id_] = {**read, "id": id_}
    return list(found.values())


def _row(place: Place, row: Fields, event: str, known: Known) -> LedgerRow:
    """The delivery. It is known by the record and its state; a state that comes back after a webhook said otherwise is
    another one."""
    fields = {name: value for name, value in row.items() if name not in known.writing}
    draft = EventDraft(place.object, event, row["id"], order_key(place.object, row["id"], fields))
    return LedgerRow(
        id=uuid7(),
        source=Circuit.name,
        account=ACCOUNT,
        tenant=place.tenant,
        vendor_id=f"{place.tenant}/{place.connector}/{place.object}/{row['id']}/{row[place.stamp]}/{known.last}",
        record_key=None,
        headers=b"{}",
        body=_encode({"type": f"{place.object}.{event}", "by": place.connector, "data": fields}),
        events=(draft,),
        order_hashes=(order_hash(place.tenant, draft.order_key),),
    )
