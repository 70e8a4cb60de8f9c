"""Depth on the wire: how many executions, one causing the next, led to a delivery, told to whom it is delivered.

``circuit-depth: 3 v1,<HMAC>``. The HMAC-SHA256 is over ``id.timestamp.depth`` of the delivery, with a key that is made
of the address's secret for this purpose alone, so that it signs nothing else. Who receives a delivery of ours, which
may be we ourselves, believes the depth only so: it can be made by those alone who can also make deliveries.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

HEADER = "circuit-depth"
DEEPEST = 32_000  # that is told; the database keeps 16 bits
LONGEST = 80  # characters of the header


def header(secret: str, identifier: str, stamp: int, depth: int) -> str:
    """The header's value; without a secret it is not signed, so nobody need believe it."""
    depth = min(depth, DEEPEST)
    return f"{depth} v1,{_mac(key_of(secret), identifier, stamp, depth)}" if secret else str(depth)


def read(said: str | None, keys: Sequence[bytes], identifier: str, stamp: str) -> int:
    """The depth that a header tells of a delivery; 0 unless it is signed with one of ``keys``."""
    if not said or len(said) > LONGEST:
        return 0
    number, _, signature = said.partition(" v1,")
    if not (number.isascii() and number.isdecimal() and int(number) <= DEEPEST):
        return 0
    if not signature.isascii():
        return 0
    good = False
    for key in keys:
        good |= hmac.compare_digest(_mac(key, identifier, stamp, int(number)), signature)
    return int(number) if good else 0


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: base64 behind ``whsec_``, or the text itself."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return secret.encode()


def _mac(key: bytes, identifier: str, stamp: int | str, depth: int) -> str:
    own = hmac.digest(key, HEADER.encode(), hashlib.sha256)
    return base64.b64encode(hmac.digest(own, f"{identifier}.{stamp}.{depth}".encode(), hashlib.sha256)).decode()
