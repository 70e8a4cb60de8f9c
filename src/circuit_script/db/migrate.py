"""Bring a database to this version's schema: plain SQL files, each applied once, also by several processes.

Files are ``NNNN_name.pre.sql`` (before new code runs) or ``NNNN_name.post.sql`` (when the old code is gone).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors

from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.db.roles import ensure_roles
from circuit_script.errors import StartError

MIGRATIONS = Path(__file__).parent / "migrations"
OLDEST_SERVER = 15

_FILE_NAME = re.compile(r"(\d{4}_[a-z0-9_]+)\.(pre|post)\.sql")
_LOCK = 0x0043_4952_4355_4954  # "CIRCUIT"; one bigint of the advisory locks
_LOCK_TIMEOUT = "120s"

_TABLE = """
    CREATE SCHEMA IF NOT EXISTS circuit;
    CREATE TABLE IF NOT EXISTS circuit.migrations (
        name text PRIMARY KEY,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
"""
_APPLIED = "SELECT name, checksum FROM circuit.migrations"
_RECORD = "INSERT INTO circuit.migrations (name, checksum) VALUES (%s, %s)"
_SERVER = "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding')"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``name`` is its name without ``.sql``."""

    name: str
    sql: str
    checksum: str


async def migrate(url: str, *, folder: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; the names of what this call applied.

    StartError: server too old, roles that cannot be made, or migrations this version does not know.
    """
    known = read_migrations(folder)
    connection = await open_connection(url, name="circuit-script migrate")
    try:
        await _check_server(connection)
        await ensure_roles(connection)
        await _make_table(connection)
        return [migration.name for migration in known if await _apply(connection, migration, known)]
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unavailable(error) from error
    finally:
        await connection.close()


async def check_and_prepare(connection: Connection) -> None:
    """See that the server is new enough, and make the roles. Raises StartError."""
    await _check_server(connection)
    await ensure_roles(connection)


async def build(connection: Connection, migrations: Sequence[Migration]) -> None:
    """Run these migrations in the caller's transaction, none of which may have been applied: for a database that is
    made from a backup."""
    await connection.execute(_TABLE)
    for migration in migrations:
        await connection.execute(migration.sql.encode())
        await connection.execute(_RECORD, (migration.name, migration.checksum))


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The folder's migrations in the order in which they are applied."""
    found = []
    for path in folder.glob("*.sql"):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise StartError(f"{path} is not named NNNN_name.pre.sql or NNNN_name.post.sql.")
        text = path.read_text("utf-8")
        order = (match[1], match[2] == "post")
        found.append((order, Migration(path.stem, text, hashlib.sha256(text.encode()).hexdigest())))
    return [migration for _, migration in sorted(found, key=lambda pair: pair[0])]


async def _check_server(connection: Connection) -> None:
    row = await (await connection.execute(_SERVER)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    version, encoding = row
    if version < OLDEST_SERVER:
        raise StartError(
            f"The server is PostgreSQL {version}.",
            cure=f"Circuit Script needs {OLDEST_SERVER} or newer.",
            page="database-version",
        )
    if encoding != "UTF8":
        raise StartError(
            f"The database's encoding is {encoding}.",
            cure="Create one with UTF8: CREATE DATABASE circuit ENCODING 'UTF8' TEMPLATE template0;",
            page="database-version",
        )


async def _make_table(connection: Connection) -> None:
    try:
        if await _table_is_there(connection):
            return
        async with connection.transaction():
            await _lock(connection)
            await connection.execute(_TABLE)
    except errors.InsufficientPrivilege as error:
        database, user = connection.info.dbname, connection.info.user
        raise StartError(
            f"This user may not create the schema circuit in the database {database}.",
            cure=f'As its owner run: GRANT CREATE ON DATABASE "{database}" TO "{user}";',
            page="roles-not-allowed",
        ) from error


async def _table_is_there(connection: Connection) -> bool:
    row = await (await connection.execute("SELECT to_regclass('circuit.migrations') IS NOT NULL")).fetchone()
    return row is not None and bool(row[0])


async def _apply(connection: Connection, migration: Migration, known: list[Migration]) -> bool:
    """Apply one under the lock, unless it is there. What others applied meanwhile is read again each time."""
    if migration.name in await _applied(connection, known):
        return False
    async with connection.transaction():
        await _lock(connection)
        if migration.name in await _applied(connection, known):
            return False
        try:
            await connection.execute(migration.sql.encode())
        except psycopg.Error as error:
            raise StartError(
                f"Migration {migration.name} failed: {error}", cure="Nothing of it was kept.", page="migration"
            ) from error
        await connection.execute(_RECORD, (migration.name, migration.checksum))
    return True


async def _applied(connection: Connection, known: list[Migration]) -> set[str]:
    """The names in the database, once nothing there contradicts this version's files."""
    checksums = {migration.name: migration.checksum for migration in known}
    applied: dict[str, str] = dict(await (await connection.execute(_APPLIED)).fetchall())
    if unknown := sorted(applied.keys() - checksums.keys()):
        raise StartError(
            f"The database has migrations that this version does not know: {', '.join(unknown)}.",
            cure="Start the version of Circuit Script that made them, or a newer one.",
            page="migration",
        )
    if edited := sorted(name for name, checksum in applied.items() if checksums[name] != checksum):
        raise StartError(
            f"Migrations were edited after they were applied: {', '.join(edited)}.",
            cure="Undo the edit and write a new migration; in development, an empty database does too.",
            page="migration",
        )
    return set(applied)


async def _lock(connection: Connection) -> None:
    # For the transaction, not the session: that also holds through a pooler in transaction mode.
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
