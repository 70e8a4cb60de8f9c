"""Bring a database to this version's schema: plain SQL files, each applied once, also by several processes.

Files are ``NNNN_name.pre.sql`` (before new code runs) or ``NNNN_name.post.sql`` (when the old code is gone). The
version of the release before runs on the schema, too: `ahead`.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from psycopg import errors

from circuit_script.db.ahead import FIRST, Applied, Migration, ahead, told_by, warned
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
    ALTER TABLE circuit.migrations
        ADD COLUMN IF NOT EXISTS release text NOT NULL DEFAULT '0.1',
        ADD COLUMN IF NOT EXISTS needs text NOT NULL DEFAULT '';
"""
_IS_THERE = """
    SELECT count(*) = 2 FROM pg_attribute
    WHERE attrelid = to_regclass('circuit.migrations') AND attname IN ('release', 'needs') AND NOT attisdropped
"""
_APPLIED = "SELECT name, checksum, release, needs FROM circuit.migrations"
_APPLIED_FIRST = "SELECT name, checksum, '0.1', '' FROM circuit.migrations"
_RECORD = "INSERT INTO circuit.migrations (name, checksum, release, needs) VALUES (%s, %s, %s, %s)"
_SERVER = "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding')"

_logger = logging.getLogger(__name__)


def _warn(words: str) -> None:
    _logger.warning("%s", words)


async def migrate(url: str, *, folder: Path = MIGRATIONS, tell: Callable[[str], None] = _warn) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; the names of what this call applied. ``tell`` gets
    a warning where a newer version has changed the schema, and this one can live with that.

    StartError: server too old, roles that cannot be made, or a schema that is too new for this version.
    """
    known = read_migrations(folder)
    connection = await open_connection(url, name="circuit-script migrate")
    try:
        await _check_server(connection)
        await ensure_roles(connection)
        await _make_table(connection)
        done = [migration.name for migration in known if await _apply(connection, migration, known)]
        if newer := ahead(known, await applied_in(connection)):
            tell(warned(newer))
        return done
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
        await _record(connection, migration)


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The folder's migrations in the order in which they are applied."""
    files = []
    for path in folder.glob("*.sql"):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise StartError(f"{path} is not named NNNN_name.pre.sql or NNNN_name.post.sql.")
        files.append((match[1], match[2] == "post", path))
    found, release = [], FIRST
    for _, _, path in sorted(files):
        text = path.read_text("utf-8")
        release, needs = told_by(path.stem, text, release)
        found.append(Migration(path.stem, text, hashlib.sha256(text.encode()).hexdigest(), release, needs))
    return found


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
    row = await (await connection.execute(_IS_THERE)).fetchone()
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
        await _record(connection, migration)
    return True


async def _record(connection: Connection, migration: Migration) -> None:
    await connection.execute(_RECORD, (migration.name, migration.checksum, migration.release, migration.needs))


async def _applied(connection: Connection, known: list[Migration]) -> set[str]:
    """The names in the database, once nothing there contradicts this version's files."""
    checksums = {migration.name: migration.checksum for migration in known}
    applied = await applied_in(connection)
    ahead(known, applied)
    if edited := sorted(each.name for each in applied if checksums.get(each.name, each.checksum) != each.checksum):
        raise StartError(
            f"Migrations were edited after they were applied: {', '.join(edited)}.",
            cure="Undo the edit and write a new migration; in development, an empty database does too.",
            page="migration",
        )
    return {each.name for each in applied}


async def applied_in(connection: Connection) -> list[Applied]:
    """What the database has. Of one that no version has touched since, what came with the first release."""
    row = await (await connection.execute(_IS_THERE)).fetchone()
    query = _APPLIED if row and row[0] else _APPLIED_FIRST
    return [Applied(*row) for row in await (await connection.execute(query)).fetchall()]


async def _lock(connection: Connection) -> None:
    # For the transaction, not the session: that also holds through a pooler in transaction mode.
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
