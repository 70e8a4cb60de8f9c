"""Trace Context on the wire: the header ``traceparent`` (W3C Recommendation, section 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

HEADER = "traceparent"
LONGEST = 512  # characters of a header that is looked at
_VERSION_0 = 55  # characters
_READ = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII).fullmatch
_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # odd: as many spans as there are numbers, none of them twice


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a request belongs to, and the span that sent it (16 hex digits)."""

    trace: UUID
    parent: str
    sampled: bool = True


def read_traceparent(said: str | None) -> TraceContext | None:
    """What a ``traceparent`` says; None for one that is missing or wrong, which begins a new trace."""
    if not said or len(said) > LONGEST or (found := _READ(said.strip(" \t"))) is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(parent, 16):
        return None
    return TraceContext(UUID(hex=trace), parent, bool(int(flags, 16) & 1))


def traceparent(trace: UUID, span: str) -> str:
    """The header of what goes out from a span."""
    return f"00-{trace.hex}-{span}-01"


def span_id(owner: UUID, number: int = 0) -> str:
    """The id of the span with a number of an execution, of a delivery or of an effect, which itself has number 0."""
    return f"{(owner.int + number * _STEP) & _MASK or 1:016x}"
