"""A worker's door that answers as a test says: the protocol is real, what stands behind it is not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.protocol import LENGTH, Answer, Call, Hello, ToClient, length_of, pack, read_request

Says = Callable[[Call], list[ToClient | None]]  # None hangs up


class Door:
    """Listens for the app in ``folder``; keeps the calls it has heard. ``connections`` counts those taken."""

    def __init__(self, folder: Path, says: Says) -> None:
        self.says = says
        self.calls: list[Call] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self._path = socket_path(folder)
        self._path.parent.mkdir(exist_ok=True)
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> Door:
        self._path.unlink(missing_ok=True)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self) -> None:
        """As a worker that is killed: every connection ends."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            assert isinstance(_next(connection), Hello)
            while True:
                call = _next(connection)
                assert isinstance(call, Call)
                self.calls.append(call)
                for word in self.says(call):
                    if word is None:
                        return
                    connection.sendall(pack(word))
        self.hung_up.set()


def _next(connection: socket.socket) -> object:
    return read_request(_exactly(connection, length_of(_exactly(connection, LENGTH.size))))


def _exactly(connection: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        chunk = connection.recv(size - len(taken))
        if not chunk:
            raise EOFError
        taken += chunk
    return taken


def echo(call: Call) -> list[ToClient | None]:
    """Answer with the request's body."""
    return [Answer(200, [("content-type", "text/plain")], call.request.body)]


@contextlib.contextmanager
def listening(folder: Path, says: Says = echo) -> Iterator[Door]:
    door = Door(folder, says).start()
    try:
        yield door
    finally:
        door.stop()
