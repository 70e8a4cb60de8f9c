"""Recordings: what one live execution was given, has read and did, so that another release can be asked the same."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.connectors.connector import Stored
from circuit_script.db.pool import Connection
from circuit_script.errors import RecordingUnreadable
from circuit_script.execution.outcome import Fields, HttpRequest

FAST = 1  # zlib's level: they are kept for days, and many
LARGEST = 64 * 1024 * 1024  # bytes that a body may unpack to
DENSEST = 32  # to one: what would have to be compressed more is not tried
FORM = 1  # of what is packed: another is of another version of the platform

# What began before somebody of its tenant was forgotten, or while that was under way, may have read them.
STORE = """
INSERT INTO circuit.recordings (execution, release, tenant, handler, object, event, records, bytes, body)
SELECT r.* FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::integer[],
                       %s::integer[], %s::bytea[])
     AS r (execution, release, tenant, handler, object, event, records, bytes, body)
WHERE NOT EXISTS (
    SELECT FROM circuit.forgets f
    WHERE f.tenant = r.tenant AND circuit.uuid_floor(f.at + interval '1 minute') > r.execution)
ON CONFLICT (execution) DO NOTHING
"""
LOAD = "SELECT body FROM circuit.recordings WHERE execution = %s"


@dataclass(frozen=True, slots=True)
class Wrote:
    """A write of an execution that left. ``owner`` is the place of the record that it belongs to, None for the whole
    batch; ``fresh`` says that its id was made in the execution."""

    op: str
    object: str
    id: str
    fields: Fields
    owner: int | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """A message of an execution that left."""

    id: str
    connector: str
    operation: str
    target: str
    payload: Fields
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered, all of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """How an execution ended. ``errors`` are the places of the records that did not succeed, with the reason;
    ``decided`` says of some of them when they are tried again, in seconds, None for never. ``writes`` and ``sends`` are
    only what left. ``ms`` is the handler's time, ``cost`` what its models cost, in US dollars."""

    status: str
    reason: str = ""
    errors: Mapping[int, str] = field(default_factory=dict)
    decided: Mapping[int, float | None] = field(default_factory=dict)
    writes: tuple[Wrote, ...] = ()
    sends: tuple[Said, ...] = ()
    answer: Answer | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    ms: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class PageRead:
    """One page of a query, as the ``connector`` gave it: its ``rows`` (see `rows_of`), and where the next page begins.
    ``question`` are object, conditions and order; ``ordered``: it came in that order."""

    question: bytes
    connector: str
    object: str
    ordered: bool
    fields: tuple[str, ...]
    limit: int
    began: str | None
    rows: bytes
    after: str | None


@dataclass(frozen=True, slots=True)
class RecordRead:
    """One record as it was read by its id, packed like a page of one row."""

    object: str
    id: str
    row: bytes


@dataclass(frozen=True, slots=True)
class Replied:
    """What a call was answered. ``owner`` is the record's place; ``key`` is the call, as the journal knows it."""

    owner: int | None
    key: bytes
    reply: bytes


@dataclass(frozen=True, slots=True)
class UniqueAsked:
    """Which job of this name and key waited or ran."""

    name: str
    key: str
    job: str | None


@dataclass(frozen=True, slots=True)
class Recording:
    """One execution. ``records``, ``old``, ``events`` and ``contacts`` are parallel, and as the handler got them; of a
    ``request`` to an endpoint, what proves who asks is left out."""

    execution: UUID
    release: int
    tenant: str
    handler: str
    object: str
    event: str
    ended: Ended
    records: Sequence[Fields] = ()
    old: Sequence[Fields | None] = ()
    events: Sequence[Fields] = ()
    contacts: Sequence[str | None] = ()
    started_at: float = 0.0
    depth: int = 1
    concurrency: int = 1
    verdicts: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    request: HttpRequest | None = None
    pages: Sequence[PageRead] = ()
    reads: Sequence[RecordRead] = ()
    replies: Sequence[Replied] = ()
    unique: Sequence[UniqueAsked] = ()


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(Recording).decode


def packed(recording: Recording, largest: int = LARGEST) -> bytes | None:
    """As it is stored; None where that is more than ``largest`` bytes. Raises ValueError, TypeError, OverflowError for
    what cannot be."""
    plain = _encode(recording)
    if len(plain) > min(LARGEST, DENSEST * largest):
        return None
    body = bytes([FORM]) + zlib.compress(plain, FAST)
    return body if len(body) <= largest else None


def size_of(recording: Recording, most: int) -> int | None:
    """About how many bytes it has, unpacked; None where that is more than ``most``, or it cannot be packed. Looks no
    further than it must: it is on the road."""
    ended, request = recording.ended, recording.request
    size = sum(len(each.reply) for each in recording.replies) + sum(len(each.row) for each in recording.reads)
    size += sum(len(each.rows) for each in recording.pages)
    size += len(request.body) if request is not None else 0
    size += len(ended.answer.body) if ended.answer is not None else 0
    try:
        for each in (
            *recording.records,
            *recording.old,
            *(w.fields for w in ended.writes),
            *(s.payload for s in ended.sends),
        ):
            size += len(_encode(each))
            if size > most:
                return None
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
    return size if size <= most else None


def unpacked(body: bytes) -> Recording:
    """The recording that `packed` made this of. Raises RecordingUnreadable."""
    if body[:1] != bytes([FORM]):
        raise RecordingUnreadable("it was made by another version of the platform.")
    try:
        opened = zlib.decompressobj()
        plain = opened.decompress(body[1:], LARGEST)
        if opened.unconsumed_tail:
            raise RecordingUnreadable(f"it unpacks to more than {LARGEST:,} bytes.")
        return _decode(plain)
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise RecordingUnreadable(f"{type(error).__name__}: {error}.") from None


def rows_of(packed_rows: bytes) -> list[Fields | None]:
    """The rows of what was read, with their versions where they have one. Raises msgspec.MsgspecError."""
    found = msgspec.msgpack.decode(packed_rows)
    return [None if each is None else each[1] if each[0] is None else Stored(each[1], each[0]) for each in found]


async def load(connection: Connection, execution: UUID) -> Recording | None:
    """The recording of an execution; None where there is none, or none any more. Raises RecordingUnreadable."""
    row = await (await connection.execute(LOAD, [execution])).fetchone()
    return None if row is None else await asyncio.to_thread(unpacked, bytes(row[0]))


async def store(connection: Connection, rows: Sequence[tuple[Recording, bytes]]) -> None:
    """Keep these, each with its body. One that is kept already stays as it is. Raises psycopg.Error."""
    columns: list[list[Any]] = [
        [each.execution for each, _ in rows],
        [each.release for each, _ in rows],
        [each.tenant for each, _ in rows],
        [each.handler for each, _ in rows],
        [each.object for each, _ in rows],
        [each.event for each, _ in rows],
        [len(each.records) for each, _ in rows],
        [len(body) for _, body in rows],
        [body for _, body in rows],
    ]
    await connection.execute(STORE, columns)
