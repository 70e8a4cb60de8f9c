"""The worker's end of one child: its socket, its shared memory, its pidfd."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Protocol

import msgspec

from circuit_script.execution.host.fates import CLOSED, GARBAGE, told
from circuit_script.execution.host.shared_memory import SharedMemory
from circuit_script.execution.isolation.ceiling import set_ceiling
from circuit_script.execution.procfs import Extent, ProcessFiles, cpu_time
from circuit_script.execution.protocol import (
    SPOKEN,
    TELL,
    Frames,
    Hello,
    LogLine,
    ProtocolError,
    ToParent,
    to_parent,
)
from circuit_script.governor import MB

BUFFER = 1 * MB
RECEIVE = 256 * 1024
MAX_UNSENT = 64 * MB
HEADROOM = 32 * MB  # between the ceiling, which the watch holds, and the kernel's hard stop
HIGHEST = 2**63 - 1  # that the kernel takes as a limit
GROWTH = 32 * MB  # a child that stays larger than this is not used again
MORE_DESCRIPTORS, COUNT_EVERY = 16, 8  # nor one that keeps so many more; they are counted every so many runs
MAX_RUNS = 1000  # nor one that has served so many runs
RESTLESS = 0.1  # seconds of CPU that a child may use while it has nothing to do
TURN = 64  # messages of one child before the others have theirs
LAST_TURNS = 16  # of a child that is dead
PATIENCE = 10.0  # seconds that a child has to appear
HANG_UP_PATIENCE = 0.1
BURIAL_PATIENCE = 0.2

UNINTELLIGIBLE = (msgspec.MsgspecError, ProtocolError, UnicodeError, RecursionError)

_received = memoryview(bytearray(RECEIVE))  # one for all: what is received is copied at once


# The tenant, None for all; the ceiling of memory; the handler, where several executions of it share the child.
Key = tuple[str | None, int, str]


class Listener(Protocol):
    """The execution that runs in the child, or those that do."""

    def on_message(self, message: ToParent) -> None: ...

    def on_gone(self, why: str, detail: str) -> None: ...


class ChildLink:
    """One child process.

    ``on_ready``, ``on_late`` (it did not appear in time) and ``on_gone`` tell the pool; a listener hears the rest
    while it is busy.
    """

    def __init__(
        self,
        number: int,
        on_ready: Callable[[ChildLink], None],
        on_late: Callable[[ChildLink], None],
        on_gone: Callable[[ChildLink], None],
    ) -> None:
        self.number = number
        self.pid = 0
        self.ready = False
        self.gone = False
        self.listener: Listener | None = None
        self.tenant: str | None = None
        self.key: Key | None = None  # for life
        self.version = 0  # of the protocol that it speaks
        self.baseline = Extent(0, 0, 0, 1, False)
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._on_late = on_late
        self._loop = asyncio.get_running_loop()
        self._socket, self.theirs = socket.socketpair()
        for end in (self._socket, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._socket.setblocking(False)
        self.memory = SharedMemory()
        self._frames = Frames()
        self._received = 0  # bytes, for life
        self._bodies: Iterator[memoryview] | None = None  # what was received and not yet heard
        self._next_turn: asyncio.Handle | None = None
        self._unsent = bytearray()
        self._pidfd = -1
        self._files: ProcessFiles | None = None
        self._descriptors = 0
        self._runs = self._heard = 0
        self._rested = 0.0
        self._paused = self._deaf = False
        self._why = ""
        self._greeted = False
        self._doomed = False
        self._code: int | None = None
        self._loop.add_reader(self._socket, self._on_readable)
        self._patience = self._loop.call_later(PATIENCE, on_late, self)

    def wait_for(self, seconds: float) -> None:
        """Let it have so long to appear."""
        self._patience.cancel()
        self._patience = self._loop.call_later(seconds, self._on_late, self)

    def adopt(self, pid: int, pidfd: int) -> None:
        """The zygote has forked it."""
        self.pid, self._pidfd = pid, pidfd
        self.theirs.close()
        self._loop.add_reader(pidfd, self._on_exit)
        self._greet()

    def begin(self, listener: Listener, frame: bytearray) -> None:
        """Hand over a run. Raises OSError when the child cannot take it."""
        assert self.key is not None
        if self.gone:
            raise ProcessLookupError(self.pid)  # its number may be another's by now
        if self._runs == 0:
            ceiling = min(int(self.baseline.data + self.key[1] + HEADROOM), HIGHEST)
            set_ceiling(self.pid, ceiling)
        self._runs += 1
        self.memory.forget()
        self.listener = listener
        self.send(frame)

    @property
    def began(self) -> bool:
        """Whether the child has started with the run that it was handed: by its own word, or because it spoke or left.

        The word alone could be taken back, and who has not begun is run again for nothing: once seen, it counts.
        """
        if self.memory.started >= self._runs:
            self._heard = self._runs
        return self._heard == self._runs or self.left

    @property
    def left(self) -> bool:
        """Whether it ended by itself, and was not killed."""
        return self._code is not None and self._code >= 0

    @property
    def fate(self) -> str:
        """Why it is gone."""
        return self._why or told(self._code)

    @property
    def reused(self) -> bool:
        """Whether this is not its first run."""
        return self._runs > 1

    def rest(self) -> None:
        """It has nothing to do until it is handed a run."""
        self._rested = cpu_time(self.pid)

    @property
    def restless(self) -> bool:
        """Whether it has worked since then: something goes on in it that nobody has asked for."""
        return cpu_time(self.pid) - self._rested > RESTLESS

    @property
    def unread(self) -> bool:
        """Whether it has something to read."""
        return (
            not self.gone and int.from_bytes(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder) > 0
        )

    @property
    def unheard(self) -> bool:
        """Whether it has said something that we have not heard yet."""
        if self.gone or self._bodies is not None:
            return not self.gone
        return int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder) > 0

    @property
    def stopped(self) -> bool:
        """Whether the child may wait for us: we do not hear it, or it has not read all."""
        return self._paused or bool(self._unsent)

    @property
    def suspect(self) -> int | None:
        return self.memory.suspect

    @property
    def line(self) -> str:
        return self.memory.line

    @property
    def last_words(self) -> str:
        return self.memory.last_words

    def ask_for_stack(self) -> None:
        """Let it write its stack, whatever it does now."""
        if self._pidfd >= 0 and not self.gone:
            self.memory.rewind()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, TELL)

    @property
    def doomed(self) -> bool:
        """Whether it is dead, or will be in a moment."""
        return self.gone or self._doomed

    def extent(self) -> Extent:
        """Its size now. Raises OSError when it is gone."""
        if self._files is None:
            raise ProcessLookupError(self.pid)
        return self._files.extent()

    def reusable(self, extent: Extent) -> bool:
        """Whether it came out of a run as it went in: nothing running beside it, and not much larger."""
        return (
            self._runs < MAX_RUNS
            and extent.threads <= self.baseline.threads
            and not extent.parent
            and extent.resident <= self.baseline.resident + GROWTH
            and (self._runs % COUNT_EVERY != 0 or not self._keeps_descriptors())
        )

    def _keeps_descriptors(self) -> bool:
        return self._files is None or self._files.descriptors() > self._descriptors + MORE_DESCRIPTORS

    def send(self, frame: bytearray) -> None:
        """Send, or keep what the socket does not take yet. Raises OSError when the child is gone or does not read."""
        if not self._unsent:
            try:
                sent = self._socket.send(frame)
            except BlockingIOError:
                sent = 0
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._loop.add_writer(self._socket, self._on_writable)
        self._unsent += frame
        if len(self._unsent) > MAX_UNSENT:
            self.kill("the handler does not read what it asked for")

    def pause(self, paused: bool) -> None:
        """Stop or go on reading, so that a flood of requests waits in the child."""
        if paused != self._paused and not self.doomed and not self._deaf:
            self._paused = paused
            if paused:
                self._loop.remove_reader(self._socket)
            else:
                self._loop.add_reader(self._socket, self._on_readable)
                self._go_on()

    def ignore(self) -> None:
        """Hear nothing of it any more."""
        self.pause(True)
        self._deaf = True

    def kill(self, why: str = "") -> None:
        """End it now."""
        self._doomed = True
        self._why = self._why or why
        if self._pidfd >= 0 and not self.gone:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, 0)  # its number is still its own
                os.killpg(self.pid, signal.SIGKILL)  # those that it forked as well, faster than they fork
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def hang_up(self) -> None:
        """Let an idle one end by itself."""
        self._doomed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def discard(self, why: str) -> None:
        """Forget it without a process: it was never forked, or its zygote is gone."""
        if not self.gone:
            self._why = self._why or why
            self._bury()

    def ended(self, code: int) -> None:
        """The zygote has reaped it, and killed its orphans. That may be known before its last messages are heard."""
        self._code = code
        if self.gone:
            return
        if self._paused or not self.unheard:
            return self._bury()
        self._doomed = True
        self._loop.call_soon(self.ended, code)
        self._take_turn()

    def _on_readable(self) -> None:
        if self._next_turn is None:
            self._take_turn()

    def _go_on(self) -> None:
        """Have the next turn, once the others had theirs."""
        if self._bodies is not None and self._next_turn is None and not self._paused:
            self._next_turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Hear what came, but no more than one look at the socket, and so many messages."""
        self._next_turn = None
        try:
            if self._bodies is None:
                size = self._socket.recv_into(_received)
                if not size:
                    return self._hang_up(CLOSED)
                self._received += size
                self._bodies = self._frames.feed(bytes(_received[:size]))
            for _ in range(TURN):
                if self._paused:
                    return None
                if (body := next(self._bodies, None)) is None:
                    self._bodies = None
                    return None
                self._on_message(to_parent.decode(body))
            self._go_on()
        except BlockingIOError:
            return None
        except OSError:
            self._hang_up("the handler broke its connection to the platform")
        except UNINTELLIGIBLE as error:
            self._hang_up(f"{GARBAGE} ({error})")

    def _on_message(self, message: ToParent) -> None:
        if self.listener is not None:
            self._heard = self._runs
            self.listener.on_message(message)
        elif isinstance(message, Hello) and not self._greeted and message.version in SPOKEN:
            self._greeted, self.version = True, message.version
            self._greet()
        else:
            self.kill()  # nobody asked: a thread or a process that an execution left behind

    def _greet(self) -> None:
        """It is ready once it has greeted and the zygote has named it, in whichever order."""
        if not (self._greeted and self.pid):
            return
        try:
            self._files = ProcessFiles(self.pid)
            self.baseline = self._files.extent()
            self._descriptors = self._files.descriptors()
        except OSError:
            return  # it is gone already, and we shall hear of it
        self._patience.cancel()
        self.ready = True
        self._on_ready(self)

    def _hang_up(self, why: str) -> None:
        """Read no more. A process that ends by itself gets a moment to do so, then its own code tells why."""
        self._paused = self._doomed = True
        self._loop.remove_reader(self._socket)
        self._loop.call_later(HANG_UP_PATIENCE, self.kill, why)

    def _on_writable(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _on_exit(self) -> None:
        """The process is dead; the zygote will say how, once its orphans are killed."""
        self._doomed = True
        self._loop.remove_reader(self._pidfd)
        for _ in range(LAST_TURNS):
            if not self._paused:
                self._take_turn()
        self._loop.call_later(BURIAL_PATIENCE, self.discard, "")

    def _bury(self) -> None:
        self.gone = self._paused = True
        self._patience.cancel()
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self.theirs.close()
        detail = self.memory.last_words
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._files is not None:
            self._files.close()
            self._files = None
        self.memory.close()
        with ExitStack() as last:  # each hears of it, also when another fails
            last.callback(self._on_gone, self)
            if self.listener is not None:
                last.callback(self.listener.on_gone, self.fate, detail)
            self._hear_unsent()

    def _hear_unsent(self) -> None:
        """The lines that it had said and not yet sent, once all that it sent was heard."""
        if self.listener is None or self._bodies is not None:
            return
        with suppress(*UNINTELLIGIBLE):
            for body in self._frames.feed(self.memory.unsent(self._received)):
                message = to_parent.decode(body)
                if self._deaf or not isinstance(message, LogLine):
                    return
                self._on_message(message)
