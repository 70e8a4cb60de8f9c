"""Who is at the other end of a Unix socket?"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Protocol

_credentials = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid


class Wire(Protocol):
    """A socket, or what an event loop shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Peer(NamedTuple):
    """The process that connected or listens, and its user, as the kernel noted them then."""

    pid: int
    user: int


def peer_of(wire: Wire) -> Peer:
    """Raises OSError."""
    pid, user, _ = _credentials.unpack(wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size))
    return Peer(pid, user)
