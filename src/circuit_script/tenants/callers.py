"""Who calls an endpoint? An API key names the tenant, wherever the request came in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from circuit_script.db.pool import Pool
from circuit_script.tenants.keys import PREFIX, TENANT, KeyRing

PATIENCE = 3.0  # seconds for the database

Header = tuple[bytes, bytes]
_prefix = PREFIX.encode()


class SeveralKeys(Exception):
    """The request carries more than one key."""


def make_ring(pool: Pool) -> KeyRing:
    """A ring that asks this database."""

    async def tenant_of(digest: bytes) -> str | None:
        async with asyncio.timeout(PATIENCE), pool.connection() as connection:
            row = await (await connection.execute(TENANT, [digest])).fetchone()
        return None if row is None else row[0]

    return KeyRing(tenant_of)


def key_in(headers: Sequence[Header]) -> str | None:
    """The API key of a request: ``Authorization: Bearer cs_…`` or ``X-API-Key``. Raises SeveralKeys."""
    found = {key for name, value in headers if (key := _key(name, value)) is not None}
    if len(found) > 1:
        raise SeveralKeys
    return next(iter(found), None)


def without_keys(headers: Sequence[Header]) -> list[Header]:
    """Headers without API keys: a handler gets no credential of ours. Other credentials are the app's own."""
    return [(name, value) for name, value in headers if _key(name, value) is None]


def _key(name: bytes, value: bytes) -> str | None:
    if name == b"x-api-key" and value.strip().startswith(_prefix):
        return value.strip().decode("latin-1")
    if name == b"authorization":
        scheme, _, token = value.strip().partition(b" ")
        if scheme.lower() == b"bearer" and token.strip().startswith(_prefix):
            return token.strip().decode("latin-1")
    return None
