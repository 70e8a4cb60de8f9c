"""The worker's view of the memory that it shares with one child: words, the author's line, a stack, unsent lines."""

from __future__ import annotations

import fcntl
import mmap
import os

from circuit_script.execution.protocol import (
    LAST_WORDS,
    LINE,
    MAX_UNSENT,
    MEMORY,
    NOBODY,
    SENT,
    SHARED,
    STACK,
    STARTED,
    SUSPECT,
    UNSENT,
    WAITING,
)

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """A memory file. The child can write anything into it at any time."""

    __slots__ = ("_all", "_words", "descriptor")

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("circuit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, MEMORY)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)  # a page that the child takes away would kill us
        self._all = memoryview(mmap.mmap(self.descriptor, MEMORY))
        self._words = self._all[:SHARED].cast("q")

    def word(self, place: int) -> int:
        return self._words[place]

    @property
    def started(self) -> int:
        """How many runs the child says it has begun."""
        return self._words[STARTED]

    @property
    def suspect(self) -> int | None:
        """The record that the child works on now."""
        word = self._words[SUSPECT]
        return None if word == NOBODY else word

    @property
    def line(self) -> str:
        """The author's line that crossed the limit, where the child has told it."""
        return bytes(self._all[SHARED:STACK]).split(b"\0", 1)[0].decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        """The stack of a child that crashed or was asked for it."""
        return bytes(self._all[STACK : STACK + LAST_WORDS]).rstrip(b"\0").decode("utf-8", "replace")

    def unsent(self, received: int) -> bytes:
        """What comes next in what a child that is gone has said, of which ``received`` bytes were received.

        Empty where something before it was not received, and where the child still lives and sends it now.
        """
        sent = self._words[SENT]
        first, last = received - sent, min(self._words[WAITING], MAX_UNSENT)
        found = bytes(self._all[UNSENT + first : UNSENT + last]) if 0 <= first < last else b""
        return found if self._words[SENT] == sent else b""

    def forget(self) -> None:
        """No run shows what another one left."""
        if self._all[STACK] or self._all[SHARED]:
            self._all[SHARED : STACK + LAST_WORDS] = bytes(LINE + LAST_WORDS)

    def rewind(self) -> None:
        """Let the next stack stand in the place of the one before: both sides share the place of the file."""
        os.lseek(self.descriptor, STACK, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; what was in it can still be read."""
        os.close(self.descriptor)
