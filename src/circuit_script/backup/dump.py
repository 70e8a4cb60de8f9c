"""Make a backup of a database that is at work: every table by COPY, in one snapshot.

Decision 0009 says why not pg_dump.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg import sql

from circuit_script.backup.archive import FORMAT, Manifest, Sink, TableEntry, Writer
from circuit_script.backup.tables import Table, refuse_unseen, tables
from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.errors import BackupRefused

Progress = Callable[[str, int, int], None]  # table, rows done, rows there are (by estimate while a backup is made)

_PART = 1 << 20  # bytes that are compressed at a time
_TOLD = 2000  # rows between two words to whoever watches
# As text that any server and time zone reads alike.
_SETTINGS = """
SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true),
       set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
       set_config('IntervalStyle', 'postgres', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'escape', true)
"""
_ABOUT = """
SELECT current_setting('server_version'), current_database()::text, clock_timestamp(),
       (SELECT id::text FROM circuit.installation)
"""
_MIGRATIONS = "SELECT name, checksum FROM circuit.migrations"
_SEQUENCES = """
SELECT sequencename::text, last_value FROM pg_sequences WHERE schemaname = 'circuit' AND last_value IS NOT NULL
"""


def nobody(table: str, done: int, of: int) -> None:
    """Nobody watches."""


async def back_up(url: str, path: Path, told: Progress = nobody) -> Manifest:
    """Write a backup of the database to ``path``, readable by its owner only; the file is whole or not there.

    The platform may go on meanwhile; partitions are not dropped, and migrations wait. Raises BackupRefused when the
    database is not Circuit Script's, DatabaseUnavailable when it cannot be reached.
    """
    connection = await open_connection(url, name="circuit-script backup")
    try:
        await refuse_unseen(connection)
        held = await tables(connection)
        if not any(table.name == "forgets" for table in held):
            raise BackupRefused(
                "The database has no tables of this version.", cure="Start the app once, then try again."
            )
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await _lock(connection, held)
            return await _write(connection, held, path, told)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unavailable(error) from error
    except psycopg.Error as error:
        raise BackupRefused(f"The database refused it: {error}", cure="Let this database user read it.") from error
    except OSError as error:
        raise BackupRefused(f"{path}: {error.strerror}.", cure="Choose another place for it.") from error
    finally:
        await connection.close()


async def _lock(connection: Connection, held: list[Table]) -> None:
    """Before the snapshot is taken, which the first query does: a partition that is dropped afterwards would be missing
    from what is read, and nobody would say so."""
    await connection.execute("SET LOCAL lock_timeout = '60s'")
    names = sql.SQL(", ").join(table.identifier for table in held)
    try:
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    except psycopg.errors.LockNotAvailable:
        raise BackupRefused("Somebody changes the tables just now.", cure="Try again when that has ended.") from None


async def _write(connection: Connection, held: list[Table], path: Path, told: Progress) -> Manifest:
    await connection.execute(_SETTINGS)
    row = await (await connection.execute(_ABOUT)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    server, database, taken_at, installation = row
    applied: dict[str, str] = dict(await (await connection.execute(_MIGRATIONS)).fetchall())
    current = {table.name: table for table in await tables(connection)}
    if current.keys() != {table.name for table in held}:
        raise BackupRefused("The tables were changed in this moment.", cure="Try again.")
    with Writer(path) as writer:
        entries = [await _table(connection, writer, current[table.name], told) for table in held]
        # Sequences know no snapshot: read last, they are at or beyond every id that was read.
        sequences: dict[str, int] = dict(await (await connection.execute(_SEQUENCES)).fetchall())
        manifest = Manifest(
            format=FORMAT,
            version=version("circuit-script"),
            server=server,
            database=database,
            installation=installation,
            taken_at=taken_at,
            migrations=applied,
            sequences=sequences,
            tables=tuple(entries),
        )
        await asyncio.to_thread(writer.finish, manifest)
    return manifest


async def _table(connection: Connection, writer: Writer, table: Table, told: Progress) -> TableEntry:
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(table.listed, table.identifier)
    with writer.table(table.name) as sink:
        async with connection.cursor() as cursor:
            await _copy(cursor, statement, sink, lambda done: told(table.name, done, max(done, table.estimate)))
            rows = cursor.rowcount
    told(table.name, rows, rows)
    return sink.entry(table.name, table.columns, rows, table.days)


async def _copy(
    cursor: psycopg.AsyncCursor[tuple[object, ...]], statement: sql.Composed, sink: Sink, told: Callable[[int], None]
) -> None:
    part = bytearray()
    lines = 0
    async with cursor.copy(statement) as copy:
        async for data in copy:
            part += data
            lines += 1
            if len(part) >= _PART:
                await asyncio.to_thread(sink.write, bytes(part))
                part.clear()
            if lines % _TOLD == 0:
                told(lines)
    if part:
        await asyncio.to_thread(sink.write, bytes(part))
