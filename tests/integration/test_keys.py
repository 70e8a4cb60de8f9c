"""API keys: made once, listed by how they begin, refused when they are revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

import psycopg
import pytest

from circuit_script.db.pool import Connection, open_connection, tenant_reading
from circuit_script.errors import KeyRefused
from circuit_script.tenants import keys
from circuit_script.tenants.keys import TENANT, KeyRing, create_key, is_key, list_keys, revoke_key


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    made = await open_connection(database)
    yield made
    await made.close()


def ring(connection: Connection) -> KeyRing:
    async def tenant_of(digest: bytes) -> str | None:
        row = await (await connection.execute(TENANT, [digest])).fetchone()
        assert row is not None
        found: str | None = row[0]
        return found

    return KeyRing(tenant_of)


@pytest.mark.every_server
async def test_a_key_is_known_by_its_hash_alone_until_it_is_revoked(connection: Connection) -> None:
    key, made = await create_key(connection, "acme", "bot")
    assert is_key(key)
    row = await (await connection.execute("SELECT hash, row_to_json(k)::text FROM circuit.api_keys k")).fetchone()
    assert row is not None
    assert bytes(row[0]) == sha256(key.encode()).digest()
    assert key not in row[1]
    assert await ring(connection).tenant(key) == "acme"
    assert [each.prefix for each in await list_keys(connection)] == [key[:10]]
    assert (await revoke_key(connection, key[:10])).id == made.id
    assert await ring(connection).tenant(key) is None
    assert await list_keys(connection) == []
    assert [each.name for each in await list_keys(connection, revoked=True)] == ["bot"]


async def test_a_tenant_sees_its_keys_but_no_hash_of_a_credential(database: str, connection: Connection) -> None:
    await create_key(connection, "acme", "bot")
    await create_key(connection, "globex", "bot")
    async with tenant_reading(connection, "acme"):
        rows = await (await connection.execute("SELECT tenant, name, prefix FROM circuit.api_keys")).fetchall()
        assert [row[:2] for row in rows] == [("acme", "bot")]
    for column in ("api_keys.hash", "idempotency.caller", "idempotency.request"):
        query = f"SELECT {column} FROM circuit.{column.partition('.')[0]}"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with tenant_reading(connection, "acme"):
                await connection.execute(query.encode())


async def test_its_use_is_noted_at_most_once_a_minute(connection: Connection) -> None:
    key, _ = await create_key(connection, "acme", "bot")
    await ring(connection).tenant(key)
    (first,) = await list_keys(connection)
    assert first.last_used_at is not None
    await ring(connection).tenant(key)
    (second,) = await list_keys(connection)
    assert second.last_used_at == first.last_used_at
    await connection.execute("UPDATE circuit.api_keys SET last_used_at = now() - interval '2 minutes'")
    await ring(connection).tenant(key)
    (third,) = await list_keys(connection)
    assert third.last_used_at is not None
    assert third.last_used_at > first.last_used_at


async def test_a_name_is_unique_in_its_tenant_and_free_again_after_a_revoke(connection: Connection) -> None:
    await create_key(connection, "acme", "bot")
    await create_key(connection, "globex", "bot")
    with pytest.raises(KeyRefused, match="already"):
        await create_key(connection, "acme", "bot")
    with pytest.raises(KeyRefused, match="2 keys"):
        await revoke_key(connection, "bot")
    await revoke_key(connection, "bot", "acme")
    await create_key(connection, "acme", "bot")
    with pytest.raises(KeyRefused, match="no key"):
        await revoke_key(connection, "nobody")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
async def test_a_name_that_cannot_be_shown_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(KeyRefused):
        await create_key(connection, "acme", name)


async def test_the_database_is_asked_once_in_a_while_and_not_for_what_is_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    async def tenant_of(digest: bytes) -> str | None:
        asked.append(digest)
        return None

    made = KeyRing(tenant_of)
    for wrong in ("", "cs_", "cs_short", "sk_" + "a" * 43, "cs_" + "a" * 44, "cs_" + "é" * 43):
        assert await made.tenant(wrong) is None
    assert asked == []
    for _ in range(3):
        assert await made.tenant("cs_" + "a" * 43) is None
    assert len(asked) == 1
    monkeypatch.setattr(keys, "REMEMBERED", 10)
    for number in range(50):
        await made.tenant(f"cs_{number:043}")
    assert len(made._known) <= 11


async def test_what_was_revoked_while_the_database_answered_is_refused_within_the_ttl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, answers = 100.0, ["acme", None]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now)

    async def tenant_of(digest: bytes) -> str | None:
        nonlocal now
        now += 2.0  # seconds that the answer takes
        return answers.pop(0)

    made = KeyRing(tenant_of)
    key = "cs_" + "a" * 43
    assert keys.TTL == 5.0
    assert await made.tenant(key) == "acme"
    now = 104.9
    assert await made.tenant(key) == "acme"
    now = 105.0
    assert await made.tenant(key) is None


async def test_a_failed_look_up_is_not_remembered() -> None:
    answers: list[str | Exception] = [psycopg.OperationalError("away"), "acme"]

    async def tenant_of(digest: bytes) -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = KeyRing(tenant_of)
    key = "cs_" + "a" * 43
    with pytest.raises(psycopg.OperationalError):
        await made.tenant(key)
    assert await made.tenant(key) == "acme"
