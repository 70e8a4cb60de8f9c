"""Time and the ids that are made of it."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime

from circuit_script.failpoints import skew

_last = 0
_of_the_database: int | None = None  # nanoseconds that its clock is ahead of our monotonic one


def now() -> datetime:
    """The present instant, in UTC: by the database's clock once a worker has heard it, by this host's before."""
    return datetime.fromtimestamp(_nanoseconds() / 1e9, UTC)


def agree(moment: datetime, asked: float) -> None:
    """From now on go by the database's clock, which said ``moment`` when it was asked at ``asked`` (monotonic seconds).

    What one worker writes another reads: hosts whose clocks differ, or are set, must not make work wait for hours or
    overtake. How long the answer took bounds what it proves; only what it proves wrong is corrected.
    """
    global _of_the_database, _last
    heard = time.monotonic()
    said, sure = moment.timestamp() - (asked + heard) / 2, (heard - asked) / 2
    if _of_the_database is None or abs(said - _of_the_database / 1e9) > sure:
        if _of_the_database is None:
            _last = 0  # a clock that was ahead would make the ids of all hours until then: others' come before them
        _of_the_database = int(said * 1e9)


def wall() -> float:
    """What this host's clock says, in seconds since 1970: others who sign and check signatures go by theirs."""
    return time.time() + skew()


def _nanoseconds() -> int:
    if _of_the_database is None:
        return time.time_ns() + int(skew() * 1e9)
    return time.monotonic_ns() + _of_the_database


def uuid7() -> uuid.UUID:
    """A version 7 UUID (RFC 9562, section 5.7); rises within a process even inside one millisecond.

    The 12 bits after the millisecond hold its fraction (method 3 of section 6.2).
    """
    global _last
    stamp = _nanoseconds() * 4096 // 1_000_000
    stamp = _last = max(stamp, _last + 1)
    milliseconds, fraction = stamp >> 12, stamp & 0xFFF
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | tail
    return uuid.UUID(int=value)


def time_of(identifier: uuid.UUID) -> datetime:
    """The instant, to the millisecond, at which a version 7 UUID was made."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)
