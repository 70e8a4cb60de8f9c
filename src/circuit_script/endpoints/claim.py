"""The right to listen at a socket: one process has it at a time, and the kernel frees it when that one dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Claim:
    """Of the socket at ``path``: a lock on a file beside it, which stays there."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_suffix(".lock")
        self._file: int | None = None

    def take(self) -> bool:
        """Whether it is ours now. Raises OSError when the file cannot be locked."""
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Somebody else may have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def owner(self) -> str:
        """The process that took it last."""
        return self._path.read_text("utf-8", "replace")[:20] if self._path.exists() else ""
