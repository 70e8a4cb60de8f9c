"""The child's end of the wire: requests to the broker, from coroutines and from plain code, and the log."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TextIO, TypeVar

import msgspec

from circuit_script.errors import IrreversibleRefused, RequestRefused
from circuit_script.execution import deciding, whereabouts
from circuit_script.execution.protocol import (
    Chunk,
    Frames,
    Head,
    LogLine,
    ProtocolError,
    Reply,
    Request,
    Run,
    ToChild,
    pack,
    packed,
    to_child,
)
from circuit_script.execution.stash import Stash
from circuit_script.governor import LimitExceeded, breach_of

RECEIVE = 256 * 1024
MAX_LOG_FRAME = 64 * 1024  # of one log line; a longer one loses its context
LONELY = 0.002  # seconds after lines were sent in which the next ones wait for others

current_record: ContextVar[int | None] = ContextVar("current_record", default=None)
current_session: ContextVar[Session | None] = ContextVar("current_session", default=None)  # in a shared child
_active: Session | None = None
_on_nobody: Callable[[], None] | None = None
T = TypeVar("T")


def active() -> Session | None:
    """The session of the execution that runs here now, if any.

    In a shared child it is the one of this task or thread; who asks in a thread of nobody makes the child unclean.
    """
    if _active is not None or _on_nobody is None:
        return _active
    found = current_session.get()
    if found is None:
        _on_nobody()
    return found


def session() -> Session:
    """The session of the running execution. Raises RuntimeError outside of one."""
    if (found := active()) is None:
        raise RuntimeError("This works inside a handler only: there is no execution here.")
    return found


def whose() -> Session | None:
    """As `active`, where it is nobody's fault that there is none."""
    return _active or current_session.get()


def is_shared() -> bool:
    """Whether several executions run in this process at once."""
    return _on_nobody is not None


def share(on_nobody: Callable[[], None]) -> None:
    """From now on several executions run in this process at once."""
    global _on_nobody
    _on_nobody = on_nobody


def enter(entered: Session | None) -> None:
    """Make this session the running one."""
    global _active
    _active = entered


class Wire:
    """The socket to the parent, as the child sees it: blocking, one frame at a time.

    Without a ``stash`` every frame is sent at once.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.stash: Stash | None = None
        self._socket = sock
        self._identity = os.fstat(sock.fileno())
        self._received = memoryview(bytearray(RECEIVE))
        self._frames = Frames()
        self._ready: list[ToChild] = []
        self._sending = threading.Lock()
        self._pid = os.getpid()
        self._lines_sent = 0.0  # when, by the monotonic clock
        self.reading = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether somebody sends now: what interrupts it would leave half a frame."""
        return self._sending.locked()

    def send(self, frame: bytearray) -> None:
        """Send one frame whole, and before it the lines that wait. Raises OSError when the socket is gone, also when
        its number means another file."""
        with self._sending:
            self._write(frame)

    def send_soon(self, line: bytearray) -> None:
        """Send a line with the next frame or `flush`; at once when no line was sent for a while. Raises OSError as
        `send` does."""
        with self._sending:
            now = time.monotonic()
            if self.stash is not None and now - self._lines_sent < LONELY and self.stash.put(line):
                return
            self._lines_sent = now
            self._write(line)

    def flush(self, busy: bool = False) -> None:
        """Send the lines that wait, while more is ``busy`` to come only those that have waited for long.

        Not in a process that the handler forked. Without a socket they go on waiting: the parent finds them when this
        process is gone.
        """
        if self.stash is None or not self.stash.size or os.getpid() != self._pid:
            return
        if not (busy and time.monotonic() - self._lines_sent < LONELY):
            with suppress(OSError):
                self.send(bytearray())

    def _write(self, frame: bytearray) -> None:
        if not os.path.samestat(os.fstat(self._socket.fileno()), self._identity):
            raise OSError("the socket was closed")
        if self.stash is None:
            return self._socket.sendall(frame)
        if self.stash.size:
            self._lines_sent = time.monotonic()
        data = self.stash.followed_by(frame)
        self._socket.sendall(data)
        self.stash.sent(len(data))

    def receive(self, *, wait: bool = True) -> list[ToChild]:
        """The next messages; none when there are none and ``wait`` is false. Raises EOFError at the end."""
        while not self._ready:
            try:
                size = self._socket.recv_into(self._received, 0, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not size:
                raise EOFError
            # A copy: what stays packed in a message must not change with the next one.
            chunk = bytes(self._received[:size])
            self._ready += [to_child.decode(body) for body in self._frames.feed(chunk)]
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Let go without a word: in a process that the handler forked."""
        self._socket.close()


class Session:
    """One execution's talk with its broker."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop, run: Run) -> None:
        self.run = run
        self.number = run.number
        self.started = time.monotonic()
        self.used: Mapping[str, float] = {"depth": run.depth}
        self._heard = 0
        self.breach: LimitExceeded | None = None
        self.unclean = False
        self.context: Any = None
        self._wire = wire
        self.loop = loop
        self._pid = os.getpid()
        self._numbers = itertools.count(1)  # threads draw from it, too
        self._waiting: dict[int, tuple[asyncio.Future[Reply], int]] = {}  # with the thread of its loop
        self._arrived: dict[int, Reply] = {}
        self._listening: set[asyncio.AbstractEventLoop] = set()
        self._over = False
        self._log_left = int(run.limits["log_bytes"]) * 2  # the broker must see that the limit is crossed
        self.dropped = 0
        self.printed: dict[str, TextIO] = {}  # by level, where several executions print
        self.dropped_coroutines: dict[Any, None] = {}  # those that were never awaited: see `forgotten`

    async def request(self, verb: str, arguments: dict[str, Any], kind: type[T]) -> T:
        """Ask the broker and wait. Raises RequestRefused or LimitExceeded, the latter for ever after the first."""
        self._must_be_allowed()
        loop = asyncio.get_running_loop()  # not always the child's: `run` and threads have their own
        if loop not in self._listening:
            loop.add_reader(self._wire.fileno(), self._on_readable)
            self._listening.add(loop)
        number = next(self._numbers)
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting[number] = future, threading.get_ident()  # before another thread can read the reply
        try:
            self._send(number, verb, arguments)
            reply = await future
        finally:
            self._waiting.pop(number, None)
        return self._value(reply, kind)

    def request_now(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Ask the broker and block this thread, for code that cannot await."""
        self._must_be_allowed()
        with self._wire.reading:
            number = next(self._numbers)
            self._send(number, verb, arguments)
            while number not in self._arrived:
                self._take(self._wire.receive())
            reply = self._arrived.pop(number)
        return self._value(reply, object)

    def log(self, line: dict[str, Any]) -> None:
        """Send a line to the log, where the child's loop runs together with the next; past the limit it is only
        counted."""
        size = len(line["message"])
        if self._log_left < 0 or os.getpid() != self._pid:
            self.dropped += size
            return
        frame = _log_frame({"record": current_record.get(), "at": time.time(), **line}, self.number)
        self._log_left -= len(frame)
        send = self._wire.send_soon if asyncio._get_running_loop() is self.loop else self._wire.send
        with suppress(OSError):
            send(frame)

    @property
    def is_sending(self) -> bool:
        """Whether a frame is on its way to the parent."""
        return self._wire.sending

    def say(self, part: Head | Chunk) -> None:
        """Send a part of an endpoint's answer. Raises OSError when the socket is gone."""
        if os.getpid() != self._pid:
            raise OSError("a process that the handler forked cannot answer")
        self._wire.send(pack(part))

    def finish(self) -> None:
        """Stop listening: the execution is over."""
        self._over = True
        self.context = None  # it holds this session: together they, and the batch, would wait for the garbage collector
        for loop in self._listening:
            if not loop.is_running():
                loop.remove_reader(self._wire.fileno())  # a closed one has none any more
        for future, thread in self._waiting.values():
            if thread == threading.get_ident():
                future.cancel()

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def reopen_log(self, size: int) -> None:
        """Let one more line through: the one that says how much was dropped."""
        self._log_left = size

    def exceed(self, breach: LimitExceeded) -> LimitExceeded:
        """Remember the first breach, so that every later request raises it again."""
        if self.breach is None:
            self.breach = breach
            if not breach.where:
                breach.where = whereabouts.line_of_frame(sys._getframe(1))
            whereabouts.tell(breach.where)
        return self.breach

    def _must_be_allowed(self) -> None:
        if os.getpid() != self._pid:
            raise RequestRefused("a process that the handler forked cannot ask the broker.")
        if self.breach is not None:
            raise self.breach

    def _send(self, number: int, verb: str, arguments: dict[str, Any]) -> None:
        try:
            frame = pack(Request(number, verb, arguments, self.number, self._heard, deciding.by()))
        except (TypeError, ValueError, OverflowError, RecursionError, ProtocolError) as error:
            raise RequestRefused(f"{verb}: the values cannot be sent: {error}.") from None
        self._wire.send(frame)

    def _on_readable(self) -> None:
        if self._over or not self._wire.reading.acquire(blocking=False):
            return  # another thread reads, and hands over what is ours
        try:
            self._take(self._wire.receive(wait=False))
        finally:
            self._wire.reading.release()

    def _take(self, messages: list[ToChild]) -> None:
        for message in messages:
            if isinstance(message, Reply) and message.run == self.number:
                self.hear(message)
            else:
                self._stray(message)

    def hear(self, reply: Reply) -> None:
        """Hand a reply to who waits for it, in whatever thread."""
        if (found := self._waiting.get(reply.id)) is None:
            self._arrived[reply.id] = reply
            return
        future, thread = found
        if thread == threading.get_ident():
            _settle(future, reply)
        else:
            with suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(_settle, future, reply)

    def _stray(self, message: ToChild) -> None:
        raise ProtocolError("a message that is not for the run that runs")

    def _value(self, reply: Reply, kind: type[T]) -> T:
        self._heard = max(self._heard, reply.id)
        if reply.used:
            self.used = reply.used
        if reply.limit is not None:
            raise self.exceed(breach_of(*reply.limit, reply.said))
        if reply.refused is not None and reply.page == IrreversibleRefused.page:
            raise IrreversibleRefused(reply.refused)
        if reply.refused is not None:
            raise RequestRefused(reply.refused)
        return msgspec.convert(reply.value, kind)


def _log_frame(line: dict[str, Any], run: int) -> bytearray:
    """A log line as a bounded frame: whatever an author put into it, a log never fails its handler."""
    try:
        frame = pack(LogLine(packed(line), run))
        if len(frame) <= MAX_LOG_FRAME:
            return frame
        lost = f"the context of {len(frame):,} bytes was left out"
    except Exception as error:
        lost = f"the context was left out: {type(error).__name__}"
    line = {**line, "message": clean(line["message"]), "context": {"circuit_script": lost}}
    return pack(LogLine(packed(line), run))


def clean(text: str) -> str:
    """Text that can be sent: lone surrogates are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _settle(future: asyncio.Future[Reply], reply: Reply) -> None:
    if not future.done():
        future.set_result(reply)
