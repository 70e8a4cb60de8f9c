"""Who calls an endpoint? An API key names the tenant, wherever the request came in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg

from circuit_script.db.pool import Pool
from circuit_script.tenants.accounts import DEFAULT
from circuit_script.tenants.keys import PREFIX, TENANT, KeyRing

PATIENCE = 3.0  # seconds for the database

Header = tuple[bytes, bytes]
_prefix = PREFIX.encode()


class NotAdmitted(Exception):
    """Why a request is nobody's, as HTTP says it. ``headers`` go with the answer."""

    def __init__(self, status: int, reason: str, detail: str, **headers: str) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers
        super().__init__(detail)


def make_ring(pool: Pool) -> KeyRing:
    """A ring that asks this database."""

    async def tenant_of(digest: bytes) -> str | None:
        async with asyncio.timeout(PATIENCE), pool.connection() as connection:
            row = await (await connection.execute(TENANT, [digest])).fetchone()
        return None if row is None else row[0]

    return KeyRing(tenant_of)


async def admit(ring: KeyRing, headers: Sequence[Header], auth: str) -> str:
    """The tenant that a request to an endpoint with this ``auth`` is for.

    Its API key (``Authorization: Bearer cs_…`` or ``X-API-Key``) says so. Where none is asked, a request without one
    is the default tenant's; a wrong one is refused there, too: whoever sends it expects another tenant.
    Raises NotAdmitted.
    """
    keys = {key for name, value in headers if (key := _key(name, value)) is not None}
    if len(keys) > 1:
        raise NotAdmitted(400, "several-keys", "The request carries more than one API key.")
    challenge = 'Bearer realm="circuit-script"'
    if not keys:
        if auth == "none":
            return DEFAULT
        detail = "This needs an API key: Authorization: Bearer cs_…"
        raise NotAdmitted(401, "no-key", detail, **{"www-authenticate": challenge})
    try:
        tenant = await ring.tenant(keys.pop())
    except (psycopg.Error, OSError):
        detail = "The database is away: nothing was executed."
        raise NotAdmitted(503, "database-unavailable", detail, **{"retry-after": "2"}) from None
    if tenant is None:
        challenge += ', error="invalid_token"'
        raise NotAdmitted(401, "wrong-key", "The API key is not valid.", **{"www-authenticate": challenge})
    return tenant


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
