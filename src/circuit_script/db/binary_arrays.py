"""Arrays in PostgreSQL's binary format, packed a column at a time: a value costs a join, not a dump.

Format: src/backend/utils/adt/arrayfuncs.c, array_recv. The statement must cast each placeholder to its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = Struct(">iiIii").pack
_LENGTH = Struct(">i").pack
_NULL = _LENGTH(-1)
_EMPTY = Struct(">iiI").pack

BOOL, BYTEA, INT8, INT2, INT4, TEXT, TIMESTAMPTZ, UUID_, JSONB = 16, 17, 20, 21, 23, 25, 1184, 2950, 3802
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT8 = Struct(">q").pack
_Value = TypeVar("_Value", str, UUID)


class Packed(bytes):
    """One parameter, already in binary."""

    __slots__ = ()


class _PackedDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: Packed) -> bytes:
        return obj


psycopg.adapters.register_dumper(Packed, _PackedDumper)


def texts(values: Sequence[str | None]) -> Packed:
    return _packed(TEXT, [None if each is None else each.encode() for each in values])


def repeated_texts(values: Sequence[str | None]) -> Packed:
    """The same for columns in which the same values come again and again: each is packed once."""
    return _repeated(TEXT, values, str.encode)


def repeated_uuids(values: Sequence[UUID]) -> Packed:
    return _repeated(UUID_, values, lambda each: each.bytes)


def uuids(values: Sequence[UUID]) -> Packed:
    return _packed(UUID_, [each.bytes for each in values])


def byteas(values: Sequence[bytes]) -> Packed:
    return _packed(BYTEA, values)


def booleans(values: Sequence[bool]) -> Packed:
    return _packed(BOOL, [b"\x01" if each else b"\x00" for each in values])


def timestamps(values: Sequence[datetime | None]) -> Packed:
    """Aware datetimes, as ``timestamptz``: microseconds since 2000."""
    return _packed(TIMESTAMPTZ, [None if each is None else _INT8((each - _EPOCH) // _MICROSECOND) for each in values])


def jsonbs(values: Sequence[bytes | None]) -> Packed:
    """``values`` are JSON in UTF-8."""
    return _packed(JSONB, [None if each is None else b"\x01" + each for each in values])


def _packed(type_: int, values: Sequence[bytes | None]) -> Packed:
    if not values:
        return Packed(_EMPTY(0, 0, type_))
    length = _LENGTH
    cells = [_NULL if each is None else length(len(each)) + each for each in values]
    return Packed(_HEADER(1, None in values, type_, len(values), 1) + b"".join(cells))


def _repeated(type_: int, values: Sequence[_Value | None], encode: Callable[[_Value], bytes]) -> Packed:
    if not values:
        return Packed(_EMPTY(0, 0, type_))
    cells = {each: _NULL if each is None else _cell(encode(each)) for each in set(values)}
    return Packed(_HEADER(1, None in cells, type_, len(values), 1) + b"".join(map(cells.__getitem__, values)))


def _cell(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


def _integers(type_: int, code: str) -> Callable[[Sequence[int]], Packed]:
    cell = Struct(f">i{code}").pack
    size = Struct(f">{code}").size

    def pack(values: Sequence[int]) -> Packed:
        if not values:
            return Packed(_EMPTY(0, 0, type_))
        cells = [cell(size, value) for value in values]
        return Packed(_HEADER(1, 0, type_, len(values), 1) + b"".join(cells))

    return pack


smallints = _integers(INT2, "h")
integers = _integers(INT4, "i")
bigints = _integers(INT8, "q")
