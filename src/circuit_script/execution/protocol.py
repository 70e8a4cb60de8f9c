"""What parent and child say to each other: msgpack messages behind a four-byte length, with a version.

The child greets with Hello. The parent then sends a Run; the child sends Requests, each answered by one Reply with
the same id, and LogLines, which are not answered; a Result ends the run. An endpoint sends a Head and Chunks before it.

A run with a number shares the child with others: whatever concerns it bears its number, and a Stop ends it alone. The
only run of a child has the number 0.
"""

from __future__ import annotations

import mmap
import signal
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from circuit_script.execution.outcome import HttpRequest, PlainVerdict
from circuit_script.governor import MB

VERSION = 3
SPOKEN = frozenset({2, 3})
SHARING = 3  # from this version on runs can share a child
MAX_FRAME = 32 * MB

# The memory that both sides share: a page of 64 bit words, the author's line that crossed a limit, behind it the last
# words of a child that crashes or is ended, and, far enough behind those for any stack, log lines not yet sent.
SHARED = mmap.PAGESIZE
LINE = 512
LAST_WORDS = 8192
STACK = SHARED + LINE  # where the last words begin
UNSENT = STACK + 64 * 1024  # where the lines begin
MAX_UNSENT = 8192  # bytes of them
MEMORY = UNSENT + MAX_UNSENT  # bytes of all
TELL = signal.SIGRTMAX - 3  # on it a child writes its stack there; author's code uses the others
SUSPECT = 0  # the index of the record that the handler works on
STARTED = 1  # how many runs the child has begun
TURN = 2  # how many steps the loop of a shared child has made
STEPPED = 3  # the number of the run whose step it makes now, NOBODY while it waits, 0 for the platform's own
SEATS = 16  # from here on: the suspects of the runs that share the child
BEGAN = 144  # from here on: the numbers of these runs, once they have begun
THREADS = 272  # from here on: how many threads work for these runs
SENT = 400  # how many bytes the child has sent so far
WAITING = 401  # how many bytes of lines it has said since then
MOST_SEATS = BEGAN - SEATS
NOBODY = -1

CUT_OFF = 76  # exit code of a child whose socket was closed by its handler

_length = struct.Struct("<I")


def _plain(value: object) -> str:
    """A str of another class (`Untrusted`, one of the author's) as the text that it is. Raises TypeError for others."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The child is ready."""

    version: int


class Run(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One batch. ``old`` and ``events`` stay packed until the handler reads them; ``verdicts`` are a Work's."""

    execution: str
    handler: str
    tenant: str
    object: str
    event: str
    records: list[dict[str, Any]]
    old: msgspec.Raw
    events: msgspec.Raw
    limits: dict[str, float]
    started_at: float
    request: HttpRequest | None = None
    number: int = 0
    seat: int = 0
    depth: int = 1
    verdicts: dict[int, dict[str, PlainVerdict]] = {}


class Request(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Something that the handler needs of the broker. ``heard`` is the latest request whose reply it knew as it asked:
    who asks several things at once has heard none of them. ``by`` is whose decision it is, as far as the child knows
    (`execution.deciding`)."""

    id: int
    verb: str
    arguments: dict[str, Any]
    run: int = 0
    heard: int = 0
    by: str = ""


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The broker's answer: a value, a refusal, or a limit as (name, used, ceiling). ``used`` is the Usage, ``said``
    what more there is to say of the limit; ``page`` is that of a refusal that has a class of its own."""

    id: int
    value: Any = None
    refused: str | None = None
    limit: tuple[str, float, float] | None = None
    used: Any = None
    said: str = ""
    run: int = 0
    page: str = ""


class LogLine(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """One line of the author's log. It stays packed until its length is counted."""

    line: msgspec.Raw
    run: int = 0


WHOLE = -1


class Result(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """How the handler ended, as the child sees it.

    ``kind`` is "returned", "refused" (an endpoint answered no, so that its effects do not count), "raised", "memory" (a
    MemoryError that nobody handled), "limit" (LimitExceeded) or "left" (SystemExit and its kin). ``unclean`` says that
    processes were started, so this child must not be used again.
    ``decided`` maps some of ``errors`` to the seconds until their next attempt, None for never. ``where`` is the
    author's line that crossed a limit, said by those that share a child. ``hints`` are (names of classes, seconds) of
    the exceptions of records; that of WHOLE is of what the handler raised.
    """

    kind: str
    errors: dict[int, str] = {}  # msgspec gives each instance its own
    reason: str = ""
    detail: str = ""
    suspect: int | None = None
    unclean: bool = False
    decided: dict[int, float | None] = {}
    run: int = 0
    where: str = ""
    hints: dict[int, tuple[list[str], float]] = {}


class Head(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """An endpoint begins its answer. A ``streamed`` one leaves at once, piece by piece; others after the commit."""

    status: int
    headers: list[tuple[str, str]]
    streamed: bool = False
    run: int = 0


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A piece of an endpoint's answer."""

    body: bytes
    run: int = 0


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """To a shared child: end this run, because it crossed ``limit`` or because nobody waits for it any more."""

    run: int
    limit: tuple[str, float, float] | None = None
    said: str = ""


ToParent = Hello | Request | LogLine | Result | Head | Chunk
ToChild = Run | Reply | Stop

to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)
to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)


def pack(message: ToParent | ToChild) -> bytearray:
    """One frame.

    Raises TypeError, ValueError or OverflowError for what msgpack cannot carry, and ProtocolError when it is too long.
    """
    frame = bytearray(512)
    _encoder.encode_into(message, frame, _length.size)
    size = len(frame) - _length.size
    if size > MAX_FRAME:
        raise ProtocolError(f"a message of {size:,} bytes is over the {MAX_FRAME:,} that one may have")
    _length.pack_into(frame, 0, size)
    return frame


def packed(value: Any) -> msgspec.Raw:
    """A part of a message that is unpacked only when it is read."""
    return msgspec.Raw(_encoder.encode(value))


class Frames:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes | memoryview) -> Iterator[memoryview]:
        """The bodies of the frames that are complete now. Raises ProtocolError for a length over the bound."""
        if self._buffer:
            self._buffer += chunk
            chunk = bytes(self._buffer) if self._complete() else b""
        view, start = memoryview(chunk), 0
        while start + _length.size <= len(view):
            size = _length.unpack_from(view, start)[0]
            if size > MAX_FRAME:
                raise ProtocolError(f"a message claims {size:,} bytes")
            end = start + _length.size + size
            if end > len(view):
                break
            yield view[start + _length.size : end]
            start = end
        if len(view):
            self._buffer = bytearray(view[start:])

    def _complete(self) -> bool:
        if len(self._buffer) < _length.size:
            return False
        size: int = _length.unpack_from(self._buffer)[0]
        return size > MAX_FRAME or len(self._buffer) >= _length.size + size
