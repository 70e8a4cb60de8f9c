"""Secrets in the app's own database, sealed. Who reads the database, or a copy of it, reads none of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import psycopg
from psycopg_pool import PoolTimeout

from circuit_script.db.pool import Connection, unavailable
from circuit_script.errors import DatabaseUnavailable, SecretsUnavailable
from circuit_script.secrets.keys import Keys
from circuit_script.secrets.places import Kept

_READ = "SELECT sealed FROM circuit.secrets WHERE tenant = %s AND name = %s"
_WRITE = """
INSERT INTO circuit.secrets AS s (tenant, name, sealed, by) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant, name) DO UPDATE SET sealed = excluded.sealed, by = excluded.by,
    version = s.version + 1, created_at = clock_timestamp()
"""
_DELETE = "DELETE FROM circuit.secrets WHERE tenant = %s AND name = %s"
_ALL = "SELECT tenant, name, version::text, created_at, by FROM circuit.secrets ORDER BY tenant, name"


class Connections(Protocol):
    """A pool, or whoever else lends a connection."""

    def connection(self) -> AbstractAsyncContextManager[Connection]: ...


class One:
    """A single connection, lent to one user at a time, as the command line has it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        yield self._connection


class Table:
    """The table `circuit.secrets`."""

    name = "the table"

    def __init__(self, database: Connections, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def read(self, tenant: str, name: str) -> str | None:
        rows = await self._rows(_READ, tenant, name)
        return self._keys.open(rows[0][0], place_of(tenant, name)) if rows else None

    async def write(self, tenant: str, name: str, value: str, by: str) -> None:
        await self._done(_WRITE, tenant, name, self._keys.seal(value, place_of(tenant, name)), by)

    async def delete(self, tenant: str, name: str) -> bool:
        return bool(await self._done(_DELETE, tenant, name))

    async def all(self) -> list[Kept]:
        return [Kept(*row) for row in await self._rows(_ALL)]

    async def aclose(self) -> None:
        """The connections are somebody else's."""

    async def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        async with asking(self._database) as connection:
            return await (await connection.execute(statement.encode(), values)).fetchall()

    async def _done(self, statement: str, *values: Any) -> int:
        async with asking(self._database) as connection:
            return (await connection.execute(statement.encode(), values)).rowcount


@asynccontextmanager
async def asking(database: Connections) -> AsyncIterator[Connection]:
    """A connection; what the database refuses is raised as SecretsUnavailable."""
    try:
        async with database.connection() as connection:
            yield connection
    except (psycopg.Error, PoolTimeout, DatabaseUnavailable) as error:
        known = unavailable(error) if isinstance(error, psycopg.Error) else error
        raise SecretsUnavailable(f"The database does not answer: {known}", page="database-unavailable") from None


def place_of(tenant: str, name: str) -> str:
    """What a value of the table is bound to: no name has a slash in it."""
    return f"{tenant}/{name}/secret"
