"""The worker's door for endpoints: a Unix socket that this user's processes can use, except those that it governs."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import structlog

from circuit_script.endpoints.claim import Claim
from circuit_script.endpoints.peer import peer_of
from circuit_script.endpoints.protocol import (
    LENGTH,
    MAX_FRAME,
    VERSION,
    Answer,
    Call,
    Chunk,
    End,
    Head,
    Hello,
    News,
    Offer,
    ProtocolError,
    ToClient,
    ToWorker,
    Watch,
    length_of,
    pack,
    read_request,
)
from circuit_script.endpoints.reply import Answering, Caller, problem
from circuit_script.errors import StartError
from circuit_script.execution.procfs import parent_of

log = structlog.get_logger()

MAX_CONNECTIONS = 400
MAX_SURPLUS, SURPLUS_SECONDS = 100, 1.0  # connections too many that may ask, to be told so, and how soon
MAX_UNREAD = 20 * 1024 * 1024  # bytes of one stream that wait for its reader
MAX_UNREAD_OF_ALL = 128 * 1024 * 1024  # of all streams; a whole answer is read at once
READ_PATIENCE = 60.0  # seconds in which a finished answer must be read
DRAIN = 30.0
TURN = 0.2  # seconds between looks whether the worker that has the socket is gone
FULL = "The worker has no room for another connection: nothing was executed."
OTHER_VERSION = "The worker is of another version of Circuit Script: restart both."


def governed(pid: int) -> bool:
    """Whether a process belongs to this worker: its children run the author's code, and may call nobody."""
    mine = os.getpid()
    while pid > 1:
        if pid == mine:
            return True
        pid = parent_of(pid)
    return False


class Door:
    """Takes calls at ``path`` and has them answered. ``refuse`` says of a process id that it may not call."""

    def __init__(self, path: Path, answering: Answering, refuse: Callable[[int], bool] = governed) -> None:
        self._path = path
        self._answering = answering
        self._refuse = refuse
        self._news = News("", [])
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._surplus: set[_Connection] = set()
        self._claim = Claim(path)
        self._turn: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, or, while another worker of this folder does, wait until that one is gone.

        Raises StartError when the socket cannot be made.
        """
        try:
            _prepare(self._path.parent)
            if self._claim.take():
                return await self._listen()
            log.warning("door.taken", by=self._claim.owner, next="this worker answers no calls until that one ends")
            self._turn = asyncio.create_task(self._wait_for_turn(), name="door")
        except OSError as error:
            raise StartError(
                f"{self._path} cannot be listened on: {error.strerror}.",
                cure="Let this user write to the app's folder, and stop what else runs in it.",
                page="folder-not-writable",
            ) from None

    async def _wait_for_turn(self) -> None:
        while self._server is None:
            await asyncio.sleep(TURN)
            try:
                if self._claim.take():
                    await self._listen()
                    log.info("door.open")
            except OSError as error:
                self._claim.release()
                log.error("door.socket", error=str(error), next="trying again")

    async def _listen(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()  # of one that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, sock=listener, backlog=512)

    def announce(self, release: str, offers: Sequence[Offer], openapi: bytes = b"") -> None:
        """Tell gateways what the live release offers, now and whenever one asks."""
        self._news = News(release, list(offers), openapi)
        for each in self._connections:
            each.tell(self._news)

    async def stop(self, drain: float = DRAIN) -> None:
        """Take nothing new; finish what runs, for at most ``drain`` seconds."""
        if self._turn is not None:
            self._turn.cancel()
            await asyncio.wait({self._turn})
            self._turn = None
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with suppress(OSError):
            self._path.unlink()
        self._claim.release()
        for each in list(self._connections):
            each.close_when_idle()
        running = [each.task for each in self._connections if each.task is not None]
        if running:
            await asyncio.wait(running, timeout=drain)
        for each in [*self._connections, *self._surplus]:
            each.abort()

    def _connection(self) -> _Connection:
        return _Connection(self)

    def admit(self, connection: _Connection, pid: int) -> bool:
        """Whether this connection may stay, at least to be told that it may not."""
        if self._refuse(pid):
            log.warning("door.refused", pid=pid)
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            unused = [each for each in self._connections if each.unused]
            if unused:
                longest = min(unused, key=lambda each: each.unused_since)
                self._connections.remove(longest)
                longest.turn_away()
            else:
                log.warning("door.full", pid=pid)
                if len(self._surplus) >= MAX_SURPLUS:
                    return False
                self._surplus.add(connection)
                connection.is_surplus()
                return True
        self._connections.add(connection)
        return True

    def leave(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._surplus.discard(connection)

    def make_room(self) -> None:
        """Streams are held for slow readers up to a bound; over it, whoever reads worst is cut off."""
        streams = [each for each in self._connections if each.streams]
        held = sum(each.unread for each in streams)
        while held > MAX_UNREAD_OF_ALL:
            worst = max(streams, key=lambda each: each.unread)
            held -= worst.unread
            streams.remove(worst)
            log.warning("door.slow_reader", bytes=worst.unread)
            worst.abort()

    @property
    def news(self) -> News:
        return self._news

    async def answer(self, call: Call, caller: Caller) -> None:
        await self._answering.answer(call, caller)


class _Connection(asyncio.Protocol):
    """One client: it asks one thing after the other."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._greeted = self._watching = self._closing = self._surplus = False
        self.streams = False  # what it was sent last is part of a stream
        self.unused_since = asyncio.get_running_loop().time()
        self._on_gone: list[Callable[[], None]] = []
        self._patience: asyncio.TimerHandle | None = None
        self.gone = False
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        wire = transport.get_extra_info("socket")
        pid, user = peer_of(wire)
        if user not in (0, os.geteuid()) or not self._door.admit(self, pid):
            self.gone = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.task is None:
            self._next()
        elif len(self._buffer) > LENGTH.size + MAX_FRAME:  # the next call, as soon as its answer to the last is out
            self.abort()

    def eof_received(self) -> bool:
        self._transport.abort()  # whoever has closed his end has hung up
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._door.leave(self)
        if self._patience is not None:
            self._patience.cancel()
        for call in self._on_gone:
            call()

    def _next(self) -> None:
        """Take the next complete message."""
        while self.task is None and not self._transport.is_closing() and len(self._buffer) >= LENGTH.size:
            try:
                end = LENGTH.size + length_of(bytes(self._buffer[: LENGTH.size]))
                if len(self._buffer) < end:
                    return
                message = read_request(bytes(self._buffer[LENGTH.size : end]))
                del self._buffer[:end]
                self._take(message)
            except ProtocolError as error:
                log.warning("door.protocol", error=str(error))
                return self.abort()

    def _take(self, message: ToWorker) -> None:
        match message:
            case Hello(version) if not self._greeted:
                self._greeted = True
                if version != VERSION:
                    self.send(problem(503, OTHER_VERSION, "version"))
                    self._transport.close()
            case Watch() | Call() if self._surplus and self._greeted:
                self.turn_away()
            case Watch() if self._greeted:
                self._watching = True
                self.tell(self._door.news)
            case Call() if self._greeted:
                if self._patience is not None:
                    self._patience.cancel()
                self.task = asyncio.get_running_loop().create_task(self._door.answer(message, self))
                self.task.add_done_callback(self._answered)
            case _:
                raise ProtocolError("a message at the wrong time")

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.task = None
        self.unused_since = asyncio.get_running_loop().time()
        self._on_gone.clear()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("door.bug", exc_info=error)
            return self.abort()
        if self._closing:
            self._transport.close()
        if self.unread:
            self._patience = asyncio.get_running_loop().call_later(READ_PATIENCE, self._unread)
        self._next()

    def _unread(self) -> None:
        """A reader that takes this long over what has been written is as good as gone."""
        if self.unread and self.task is None:
            self.abort()

    def tell(self, news: News) -> None:
        if self._watching and not self._transport.is_closing():
            self._write(news)

    @property
    def unread(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    @property
    def unused(self) -> bool:
        """Whether nothing is lost with it."""
        return self.task is None and not self._watching and not self._buffer and not self.unread

    def send(self, message: Answer | Head | Chunk | End) -> None:
        """Write a part of an answer. Of a stream a reader that lets too much wait is cut off, as if it had hung up."""
        if self.gone or self._transport.is_closing():
            return
        self.streams = not isinstance(message, Answer)
        self._write(message)
        if not self.streams or not self.unread:
            return
        if self.unread > MAX_UNREAD:
            log.warning("door.slow_reader", bytes=self.unread)
            self.abort()
        else:
            self._door.make_room()

    def is_surplus(self) -> None:
        """It may ask, and then goes."""
        self._surplus = True
        self._patience = asyncio.get_running_loop().call_later(SURPLUS_SECONDS, self.turn_away)

    def turn_away(self) -> None:
        """Say that there is no room for it, and close."""
        self.send(problem(503, FULL, "overloaded", retry_after=1))
        self._transport.close()

    def _write(self, message: ToClient) -> None:
        self._transport.write(pack(message))

    def on_gone(self, call: Callable[[], None]) -> None:
        self._on_gone.append(call)

    def close_when_idle(self) -> None:
        self._closing = True
        if self.task is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def _prepare(folder: Path) -> None:
    """The socket's folder. One that is not in the app's folder must be ours alone: it stands where anybody writes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.name != ".circuit":
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StartError(f"{folder} is not this user's alone.", cure=f"Remove it: rm -r {folder}")
