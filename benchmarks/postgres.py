"""The one PostgreSQL that every contestant of a run uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from circuit_script.db.embedded import EmbeddedPostgres


@asynccontextmanager
async def one_postgres(folder: Path) -> AsyncIterator[str]:
    """An embedded server in ``folder``; the URL of its login role.

    It keeps commit timestamps, so that "committed at" is PostgreSQL's own word for every contestant.
    """
    server = EmbeddedPostgres(folder)
    await server.start()
    async with await psycopg.AsyncConnection.connect(server.superuser_url, autocommit=True) as connection:
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        await connection.execute("ALTER ROLE circuit CREATEDB")
    await server.stop()
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()


async def execute(url: str, statements: str) -> None:
    """Run statements on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statements)


async def fetch(url: str, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    """Rows of one statement on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement, parameters)
        return await cursor.fetchall()


async def one(url: str, statement: str, parameters: Any = ()) -> Any:
    """The first value of the first row."""
    return (await fetch(url, statement, parameters))[0][0]


async def fresh_database(url: str, name: str) -> str:
    """A new empty database on the same server, so that no measurement reads another's rows."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
    return url.replace("@/circuit?", f"@/{name}?", 1)
