"""The order that events and effects of one record go by."""

from __future__ import annotations

from hashlib import blake2b


def order_hash(tenant: str, order_key: str) -> int:
    """What lane and order go by: 64 bits, signed."""
    digest = blake2b(f"{tenant}\0{order_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
