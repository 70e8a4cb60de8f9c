"""gzip, as it comes: a few bytes may stand for gigabytes, so the ceiling is held while the body grows."""

from __future__ import annotations

import zlib
from typing import Any

from circuit_script.governor import LimitExceeded

GZIP = 16 + zlib.MAX_WBITS
MAGIC = b"\x1f\x8b"


class Gunzip:
    """Unpacks one body, of one member or several (RFC 1952, 2.2). What follows the last one is no part of it."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._body = bytearray()
        self._member: Any = None
        self._members = 0
        self._rest = b""  # may be the beginning of another member

    def feed(self, chunk: bytes) -> bool:
        """Take what came; False when nothing more is wanted. Raises LimitExceeded, zlib.error."""
        while chunk:
            if self._member is None:
                chunk = self._rest + chunk
                if chunk == MAGIC[:1]:
                    self._rest = chunk
                    return True
                self._rest = b""
                if self._members and not chunk.startswith(MAGIC):
                    return False
                self._member = zlib.decompressobj(wbits=GZIP)
            self._body += self._member.decompress(chunk, self._ceiling + 1 - len(self._body))
            if len(self._body) > self._ceiling:
                raise LimitExceeded("callout_bytes", len(self._body), self._ceiling)
            if not self._member.eof:
                chunk = self._member.unconsumed_tail
                continue
            chunk = self._member.unused_data
            self._member = None
            self._members += 1
        return True

    def end(self) -> bytes:
        """The whole body. Raises zlib.error when it was cut off."""
        if self._member is not None or (self._rest and not self._members):
            raise zlib.error("the body ends before its gzip does")
        return bytes(self._body)
