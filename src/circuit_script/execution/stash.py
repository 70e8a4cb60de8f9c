"""Log lines that a child has said and not yet sent, in the memory that it shares with the worker.

The worker reads them there when the child is gone. What the child says is one stream of bytes; the lines here are what
comes next in it, from the byte ``SENT`` on. The worker knows how many bytes it has received, so it takes each once,
wherever the child was ended.
"""

from __future__ import annotations

from circuit_script.execution.protocol import SENT, WAITING


class Stash:
    """The child's view. ``words`` are those of the shared memory, ``room`` is where the lines are."""

    __slots__ = ("_room", "_sent", "_words", "size")

    def __init__(self, words: memoryview, room: memoryview) -> None:
        self._words = words
        self._room = room
        self._sent = 0
        self.size = 0  # bytes that wait

    def put(self, frame: bytearray) -> bool:
        """Keep a frame behind the others; False when there is no room for it."""
        end = self.size + len(frame)
        if end > len(self._room):
            return False
        self._room[self.size : end] = frame
        self._words[WAITING] = self.size = end
        return True

    def followed_by(self, frame: bytearray) -> bytearray | bytes:
        """All that waits, and then this frame."""
        return b"".join((self._room[: self.size], frame)) if self.size else frame

    def sent(self, size: int) -> None:
        """So many bytes were sent now, those that waited among them."""
        self._words[WAITING] = self.size = 0  # first: until then, the worker finds that it has received them
        self._sent += size
        self._words[SENT] = self._sent
