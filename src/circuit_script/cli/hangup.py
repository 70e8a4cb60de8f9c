"""SIGHUP means two things: somebody asks for a reload, or the terminal that we were started in is gone."""

from __future__ import annotations

import os


class Terminal:
    """The terminal that controls this process, if there is one."""

    def __init__(self) -> None:
        self._was_there = _is_there()

    def is_gone(self) -> bool:
        """Whether it was there at first, and is not any more."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
