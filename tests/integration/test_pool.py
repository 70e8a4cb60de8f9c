from __future__ import annotations

import asyncio
import gc
import weakref

import psycopg
import pytest

from circuit_script.db.pool import open_connection, open_pool
from circuit_script.errors import ConfigError, DatabaseUnavailable
from tests.servers import Server, as_url


@pytest.mark.every_server
async def test_a_pool_is_in_autocommit_speaks_utf8_and_survives_many_statements(database: str, pooler: bool) -> None:
    pool = await open_pool(database, min_size=1, max_size=3, name="test", pooler=pooler)

    async def echo(number: int) -> str:
        async with pool.connection() as connection:
            assert connection.autocommit
            row = await (await connection.execute("SELECT %s || '→ж'", (str(number),))).fetchone()
            assert row is not None
            return str(row[0])

    async with pool:
        assert await asyncio.gather(*map(echo, range(60))) == [f"{number}→ж" for number in range(60)]


async def test_a_pool_that_cannot_connect_says_why_at_once(server: Server) -> None:
    wrong = as_url(server.superuser, user=server.login, password="wrong", dbname="postgres")
    with pytest.raises(DatabaseUnavailable, match="Check the user and password"):
        await open_pool(wrong, min_size=1, max_size=1, name="test")


async def test_a_pool_replaces_connections_that_the_server_ended(database: str, server: Server) -> None:
    pool = await open_pool(database, min_size=2, max_size=2, name="ended")
    async with pool:
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ended'")
        for _ in range(4):
            async with pool.connection() as connection:
                row = await (await connection.execute("SELECT 1")).fetchone()
                assert row == (1,)


async def test_a_pool_keeps_nothing_of_who_is_cut_while_he_waits_for_a_connection(database: str) -> None:
    class Kept:
        """What he has in his hands."""

    async def ask(kept: Kept) -> None:
        async with pool.connection():
            raise AssertionError(f"there is none, even for {kept}")

    pool = await open_pool(database, min_size=1, max_size=1, name="cut")
    gc.disable()  # at once, not when it looks at last
    try:
        async with pool, pool.connection():
            kept = Kept()
            seen = weakref.ref(kept)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ask(kept)
            del kept
            assert seen() is None
    finally:
        gc.enable()


async def test_connections_carry_the_name_of_their_user(database: str) -> None:
    connection = await open_connection(database, name="somebody")
    row = await (await connection.execute("SHOW application_name")).fetchone()
    await connection.close()
    assert row == ("somebody",)


async def test_a_server_that_vanished_is_noticed_soon_unless_the_url_says_otherwise(database: str) -> None:
    said = {}
    for url in (database, f"{database}&keepalives_idle=60"):
        connection = await open_connection(url)
        said[url] = connection.info.get_parameters()
        await connection.close()
    plain, own = said.values()
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    assert [plain.get(name) for name in names] == ["5", "2", "3", "10000"]
    assert own["keepalives_idle"] == "60"


@pytest.mark.parametrize("url", ["not a url", "mysql://me@host/db", "postgresql://host:port:port/x"])
async def test_what_is_no_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises((ConfigError, DatabaseUnavailable)) as caught:
        await open_connection(url)
    assert caught.value.cure
    assert not isinstance(caught.value, psycopg.Error)
