"""A plain, blocking client of the worker's socket, for web applications that are not asynchronous.

It needs the standard library and msgspec only. Threads may share it, and so may processes forked from one that has used
it: connections stay with the process that opened them.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.peer import peer_of
from circuit_script.endpoints.protocol import (
    LENGTH,
    Answer,
    Call,
    Chunk,
    End,
    Head,
    Hello,
    ProtocolError,
    ToClient,
    length_of,
    pack,
    read_answer,
)
from circuit_script.errors import WorkerUnavailable
from circuit_script.execution.headers import UNSENT
from circuit_script.execution.outcome import HttpRequest

__all__ = ["UNSENT", "Answer", "HttpRequest", "ProtocolError", "Stream", "WorkerClient", "WorkerUnavailable"]

CONNECT = 2.0  # seconds; the worker is on this host
MAX_IDLE = 32  # connections that are kept for the next call
IDLE = 30.0  # seconds for which they are, if somebody calls in the meantime
RECEIVE = 256 * 1024
START_IT = (
    "Start `circuit-script serve --role worker` in the app's folder, or run the whole app by `circuit-script serve`."
)


class WorkerClient:
    """Calls endpoints of the app in ``folder``, each over a connection of its own that is kept for the next one."""

    def __init__(self, folder: Path) -> None:
        self._path = socket_path(folder)
        self._folder = folder
        self._idle: deque[_Connection] = deque()  # its ends are safe among threads
        self._pid = os.getpid()

    def call(self, call: Call, patience: float) -> Answer | Stream:
        """Make the call; wait at most ``patience`` seconds for its answer, and for each piece of a streamed one.

        Raises WorkerUnavailable when nobody answers, and ProtocolError for a request over the protocol's bound.
        """
        frame = pack(call)
        connection = self._send(frame, patience)
        try:
            match message := connection.receive():
                case Answer():
                    self._keep(connection)
                    return message
                case Head():
                    return Stream(self, connection, message)
                case _:
                    raise ProtocolError(f"an answer cannot begin with {type(message).__name__}")
        except BaseException as error:
            connection.close()
            if isinstance(error, (OSError, EOFError, ProtocolError)):
                raise _unanswered(error, patience) from None
            raise

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _send(self, frame: bytes, patience: float) -> _Connection:
        """A connection that has taken the whole frame. What was kept may be dead; a half frame was never run."""
        kept = self._kept()
        for connection in (kept, None) if kept else (None,):
            fresh = connection is None
            connection = connection or self._connect()
            try:
                connection.send(frame, patience)
            except OSError as error:
                connection.close()
                if fresh:
                    raise WorkerUnavailable(f"{self._path}: {_said(error)}.", cure=START_IT) from None
            else:
                return connection
        raise AssertionError("a fresh connection is taken or refused")

    def _kept(self) -> _Connection | None:
        if self._pid != os.getpid():  # forked: the connections are our parent's, who goes on using them
            self.close()
            self._pid = os.getpid()
        while (connection := self._taken(self._idle.pop)) is not None:
            if connection.alive():
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        while (oldest := self._taken(lambda: self._idle[0])) and oldest.idle_since < time.monotonic() - IDLE:
            if (unused := self._taken(self._idle.popleft)) is not None:
                unused.close()

    @staticmethod
    def _taken(take: Callable[[], _Connection]) -> _Connection | None:
        try:
            return take()
        except IndexError:
            return None  # another thread was faster

    def _connect(self) -> _Connection:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT)
            sock.connect(os.fspath(self._path))
            self._must_be_ours(sock)
            sock.sendall(pack(Hello()))
        except OSError as error:
            sock.close()
            cure = "Run both as the same user." if isinstance(error, PermissionError) else START_IT
            raise WorkerUnavailable(f"{self._path}: {_said(error)}.", cure=cure) from None
        return _Connection(sock)

    def _must_be_ours(self, sock: socket.socket) -> None:
        """Who else could make a socket where ours should be must not read what our callers send."""
        _, user = peer_of(sock)
        if user not in (0, os.geteuid(), os.stat(self._folder).st_uid):
            raise PermissionError(f"user {user} listens there")


class Stream:
    """A streamed answer; iterate over its pieces. Closing it before its end cancels the call."""

    def __init__(self, client: WorkerClient, connection: _Connection, head: Head) -> None:
        self.status = head.status
        self.headers = head.headers
        self._client = client
        self._connection: _Connection | None = connection

    def __iter__(self) -> Iterator[bytes]:
        """Raises WorkerUnavailable when the answer breaks off."""
        try:
            while self._connection is not None:
                match message := self._connection.receive():
                    case Chunk():
                        yield message.body
                    case End(complete=True):
                        connection, self._connection = self._connection, None
                        self._client._keep(connection)
                    case _:
                        raise ProtocolError(f"the answer broke off ({type(message).__name__})")
        except (OSError, EOFError, ProtocolError) as error:
            raise WorkerUnavailable(f"The stream ended before its end: {_said(error)}.") from None
        finally:
            self.close()

    def close(self) -> None:
        """Hang up, unless the answer has ended."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """One connection to the worker: one call at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = bytearray()
        self._patience = CONNECT
        self.idle_since = 0.0

    def alive(self) -> bool:
        """Whether the worker still holds its end, and has said nothing that nobody asked for."""
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._received
        except OSError:
            return False
        return False

    def send(self, frame: bytes, patience: float) -> None:
        self._patience = patience
        self._socket.settimeout(patience)
        self._socket.sendall(frame)

    def receive(self) -> ToClient:
        """The next message. Raises TimeoutError after the call's patience, EOFError when the worker is gone."""
        until = time.monotonic() + self._patience
        size = length_of(self._take(LENGTH.size, until))
        return read_answer(self._take(size, until))

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self.close()  # a client is dropped with its process or its thread, and has nobody who closes it

    def _take(self, size: int, until: float) -> bytes:
        while len(self._received) < size:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            chunk = self._socket.recv(RECEIVE)
            if not chunk:
                raise EOFError("it hung up")
            self._received += chunk
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _unanswered(error: BaseException, patience: float) -> WorkerUnavailable:
    said = f"no answer within {patience:g} s" if isinstance(error, TimeoutError) else _said(error)
    return WorkerUnavailable(
        f"It took the request and did not answer: {said}.",
        cure="The request may or may not have run: look for it with `circuit-script logs`. An Idempotency-Key makes it "
        "safe to repeat.",
    )


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
