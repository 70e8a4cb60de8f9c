"""Folders for the temporary files of strict children: each is empty when it is given out, whatever was done to it.

In a private root a slot is a small file system of its own. When its child has ended, another is mounted in its place,
by a process that kept the right to do so (`Janitor`); what cannot be renewed is not used again. In place each child
gets a folder that did not exist before.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import NoReturn, Protocol

from circuit_script.execution import hardening
from circuit_script.execution.isolation import emptying, root

PATIENCE = 5.0  # seconds for a new file system
_SLOT = struct.Struct("<i")
_FAILED = -1


class NoSlots(Exception):
    """None can be used any more, and no child has one."""


class Slots(Protocol):
    """``descriptors`` are those that a child must not have."""

    descriptors: frozenset[int]

    def take(self) -> int:
        """An empty one. Raises OSError when there is none now, NoSlots when there will be none."""
        ...

    def give_back(self, slot: int) -> int:
        """Nobody lives in it any more. Returns the process that clears it, which is to be let live; 0 for none."""
        ...


class NoFolders:
    """In standard mode children use the machine's own folder for temporary files."""

    descriptors: frozenset[int] = frozenset()

    def take(self) -> int:
        return 0

    def give_back(self, slot: int) -> int:
        return 0


class Folders:
    """A new folder in ``place`` for each child."""

    descriptors: frozenset[int] = frozenset()

    def __init__(self, place: str) -> None:
        self._place = place
        self._last = 0

    def take(self) -> int:
        self._last += 1
        os.mkdir(f"{self._place}/{self._last}", 0o700)
        return self._last

    def give_back(self, slot: int) -> int:
        folder = f"{self._place}/{slot}"
        with suppress(OSError):
            for own in os.listdir(folder):
                os.rmdir(f"{folder}/{own}")
            os.rmdir(folder)
            return 0
        with suppress(OSError):  # it may take long; and what stays goes with the zygote
            if pid := os.fork():
                return pid
            try:
                hardening.die_with_parent()
                emptying.remove(folder)
            finally:
                os._exit(0)
        return 0


class FileSystems:
    """One of the mounted file systems for each child, the longest unused first."""

    def __init__(self, janitor: Janitor) -> None:
        self._janitor = janitor
        self._free = deque(range(root.MOST_SLOTS))
        self._taken = 0
        self.descriptors = frozenset({janitor.descriptor})

    def take(self) -> int:
        if not self._free:
            raise OSError("there are as many children as there may be") if self._taken else NoSlots
        self._taken += 1
        return self._free.popleft()

    def give_back(self, slot: int) -> int:
        self._taken -= 1
        if self._janitor.renewed(slot):
            self._free.append(slot)
        return 0


class Janitor:
    """A process of root's in the private root, which only ever mounts an empty file system over a used slot.

    It ends with the zygote, whose end of the socket closes.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                os.closerange(0, theirs.fileno())
                os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
                _clean(theirs, uid, gid)
            finally:
                os._exit(0)
        theirs.close()
        self._socket.settimeout(PATIENCE)
        self.descriptor = self._socket.fileno()

    def renewed(self, slot: int) -> bool:
        """Whether the slot is empty now."""
        try:
            self._socket.send(_SLOT.pack(slot))
            answer = self._socket.recv(_SLOT.size)
        except OSError:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # it is gone or hangs: a late answer must not be another's
            return False
        return answer == _SLOT.pack(slot)


def _clean(orders: socket.socket, uid: int, gid: int) -> NoReturn:
    while order := orders.recv(_SLOT.size):
        (slot,) = _SLOT.unpack(order)
        try:
            root.renew_slot(slot, uid, gid)
        except OSError:
            slot = _FAILED
        orders.send(_SLOT.pack(slot))
    os._exit(0)
