"""A socket that has its answer already: what a test gives, for libraries that read from sockets."""

from __future__ import annotations

import io
from typing import Any


class CannedSocket:
    """Takes what is sent, and gives the one answer."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._raw)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """It goes nowhere."""

    def send(self, data: Any, flags: int = 0) -> int:
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """It never waits."""

    def gettimeout(self) -> float | None:
        return None

    def setsockopt(self, *_: Any) -> None:
        """It has none."""

    def shutdown(self, how: int) -> None:
        """It is."""

    def close(self) -> None:
        """It has nothing open."""
