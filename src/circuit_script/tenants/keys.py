"""API keys: 256 random bits, of which only the SHA-256 is stored. A key belongs to one tenant."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import psycopg

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.errors import KeyRefused

PREFIX = "cs_"
SHOWN = 10  # characters of a key that a list shows
MAX_NAME = 100
TTL = 5.0  # seconds after which a revoked key is refused everywhere
REMEMBERED = 4096

CREATE = """
INSERT INTO circuit.api_keys (id, tenant, name, prefix, hash) VALUES (%s, %s, %s, %s, %s) RETURNING created_at
"""
LIST = """
SELECT id, tenant, name, prefix, created_at, last_used_at, revoked_at FROM circuit.api_keys
WHERE (revoked_at IS NULL OR %s) ORDER BY created_at, id
"""
_MEANT = """revoked_at IS NULL AND %(which)s IN (id::text, prefix, name)
AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"""
REVOKE = f"""
UPDATE circuit.api_keys SET revoked_at = now() WHERE {_MEANT}
RETURNING id, tenant, name, prefix, created_at, last_used_at, revoked_at
"""
MATCHING = f"SELECT count(*) FROM circuit.api_keys WHERE {_MEANT}"
TENANT = "SELECT circuit.tenant_of_key(%s)"

_form = re.compile(r"cs_[A-Za-z0-9_-]{43}").fullmatch


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. The key itself is known once, to whoever made it."""

    id: UUID
    tenant: str
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


def is_key(text: str) -> bool:
    """Whether it has the form of a key."""
    return _form(text) is not None


async def create_key(connection: Connection, tenant: str, name: str) -> tuple[str, ApiKey]:
    """A new key, and what is kept of it. Raises KeyRefused when the tenant has one of that name."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise KeyRefused(f"{name!r} is no name of a key.", cure=f"Use 1 to {MAX_NAME} printable characters.")
    if not tenant or not tenant.isprintable():
        raise KeyRefused(f"{tenant!r} is no name of a tenant.", page="unknown-tenant")
    key = PREFIX + secrets.token_urlsafe(32)
    id_ = uuid7()
    try:
        cursor = await connection.execute(CREATE, [id_, tenant, name, key[:SHOWN], _hash(key)])
    except psycopg.errors.UniqueViolation:
        raise KeyRefused(
            f"{tenant} has a key {name!r} already.",
            cure=f"Choose another name, or revoke it: circuit-script keys revoke {name} --tenant {tenant}",
        ) from None
    row = await cursor.fetchone()
    assert row is not None
    return key, ApiKey(id_, tenant, name, key[:SHOWN], row[0])


async def list_keys(connection: Connection, *, revoked: bool = False) -> list[ApiKey]:
    """Every key, the oldest first; with ``revoked`` also those that count no more."""
    return [ApiKey(*row) for row in await (await connection.execute(LIST, [revoked])).fetchall()]


async def revoke_key(connection: Connection, which: str, tenant: str | None = None) -> ApiKey:
    """Revoke a key by its name, prefix or id. Raises KeyRefused when it means none, or more than one."""
    values = {"which": which, "tenant": tenant}
    async with connection.transaction():
        row = await (await connection.execute(MATCHING.encode(), values)).fetchone()
        assert row is not None
        if row[0] != 1:
            wrong = "There is no key" if not row[0] else f"{row[0]} keys are meant by"
            raise KeyRefused(f"{wrong} {which!r}.", cure="Look at circuit-script keys list; --tenant says whose.")
        found = await (await connection.execute(REVOKE.encode(), values)).fetchone()
    assert found is not None
    return ApiKey(*found)


class KeyRing:
    """Whose key is it? Answers are remembered for a few seconds.

    Keys are compared by looking up their hash, so that time tells nothing of a key that is nearly right.
    """

    def __init__(self, tenant_of: Callable[[bytes], Awaitable[str | None]]) -> None:
        """``tenant_of`` asks the database by a hash; it may raise psycopg.Error."""
        self._tenant_of = tenant_of
        self._known: OrderedDict[bytes, tuple[float, str | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[str | None]] = {}

    async def tenant(self, key: str) -> str | None:
        """The key's tenant; None when it is wrong or revoked. Raises psycopg.Error or OSError."""
        if not is_key(key):
            return None
        digest = _hash(key)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._ask(digest))
        return await asyncio.shield(task)

    async def _ask(self, digest: bytes) -> str | None:
        until = time.monotonic() + TTL  # from now: it may be revoked while the database's answer is on its way
        try:
            tenant = await self._tenant_of(digest)
        finally:
            del self._asking[digest]
        self._known[digest] = (until, tenant)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return tenant


def _hash(key: str) -> bytes:
    return sha256(key.encode()).digest()
