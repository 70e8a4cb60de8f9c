"""Put a backup into a database: all of it in one transaction, or nothing.

What stood there before is set aside under another name until everything is in, and only then removed. Nobody owns
anything afterwards: no worker, no lane, no lease, no key that is being answered. Who was forgotten after the backup was
made is forgotten again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from circuit_script.backup.archive import Manifest, TableEntry, reading, verify
from circuit_script.backup.dump import Progress, nobody
from circuit_script.backup.tables import Table, tables
from circuit_script.clock import now
from circuit_script.db.ahead import Migration
from circuit_script.db.migrate import build, check_and_prepare, read_migrations
from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.erasure import Forgotten, Remembered, forget_again, remembered
from circuit_script.errors import BackupRefused
from circuit_script.tenants.pauses import pause

ASIDE = "circuit_before_restore"
DAYS = 60  # partitions that are made anew; rows of before go to the default one
PATIENCE = "SET LOCAL lock_timeout = '30s'"
_NAME = "circuit-script restore"

_STATE = "SELECT current_database()::text, to_regclass('circuit.migrations') IS NOT NULL"
_FILLED = """
SELECT EXISTS (SELECT 1 FROM circuit.deliveries) OR EXISTS (SELECT 1 FROM circuit.records)
    OR EXISTS (SELECT 1 FROM circuit.executions) OR EXISTS (SELECT 1 FROM circuit.effects)
    OR EXISTS (SELECT 1 FROM circuit.llm_calls) OR EXISTS (SELECT 1 FROM circuit.api_keys)
    OR EXISTS (SELECT 1 FROM circuit.circuit_logs)
"""
# Through a pooler connections have no such names: then workers are known by their leases.
_AT_WORK = """
SELECT DISTINCT application_name::text FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'circuit%'
AND application_name NOT IN ('circuit-script doctor', 'circuit-script logs')
UNION SELECT 'a worker on ' || host FROM circuit.workers WHERE expires_at > now() ORDER BY 1
"""
# Who starts while rows are put in waits at one of these, and then finds what was restored: what it would take in before
# would be gone.
_SHUT = ("migrations", "live", "workers", "deliveries")
_THERE = "SELECT to_regclass('circuit.' || %s) IS NOT NULL"
_PARTITION = "SELECT circuit.make_partition(%s, to_date(%s, 'YYYYMMDD'))"
_SEQUENCE = "SELECT setval(%s::regclass, %s)"
# An answer that was being made when the backup was taken is made by nobody now.
_RELEASE = "DELETE FROM circuit.idempotency WHERE status IS NULL"
_LEFT = """
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relispartition AND c.relkind = 'r' ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a restore. ``forgotten`` are those who were forgotten again; ``left`` is why what stood there
    before is still there, under its other name, or the server has no statistics yet; None where all was tidied up."""

    database: str
    manifest: Manifest
    replaced: bool
    forgotten: list[Forgotten]
    left: str | None = None


async def restore(
    path: Path,
    url: str,
    *,
    replace: str | None = None,
    paused_by: str | None = None,
    also_forgotten: Sequence[Remembered] = (),
    told: Progress = nobody,
) -> Restored:
    """Restore the backup in ``path`` into the database of ``url``.

    ``replace`` is the database's name, said by whoever wants what stands there to go. With ``paused_by`` everything is
    paused in the name of that person, so that nothing runs before somebody has looked. ``also_forgotten`` is a list of
    forgets beside the one in that database. Raises BackupRefused before anything is changed when the file is not whole,
    of a newer version, or the database is in use or not empty.
    """
    manifest = verify(path)
    then, since = _migrations(manifest)
    connection = await open_connection(url, name=_NAME)
    try:
        await check_and_prepare(connection)
        database, _ = await _refuse_in_use(connection, replace)
        await _remove_aside(connection)  # of a restore that was killed at its very end
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute(PATIENCE)
            await _shut(connection)
            # Once more, now that nobody comes in: another restore may have put something there meanwhile.
            _, filled = await _refuse_in_use(connection, replace)
            missed = _missed(manifest, [*await remembered(connection), *also_forgotten])
            await _set_aside(connection)
            await build(connection, then)
            await _fill(connection, path, manifest, told)
            for migration in since:
                await build(connection, [migration])
            await connection.execute(_RELEASE)
            unfinished = [each for each in await remembered(connection) if not each.done]
            forgotten = await forget_again(connection, [*unfinished, *missed])
            if paused_by is not None:
                reason = f"restored as of {manifest.taken_at:%Y-%m-%d %H:%M %Z}"
                await pause(connection, "everything", "", reason=reason, by=paused_by)
        return Restored(database, manifest, filled, forgotten, await _tidy(connection))
    except psycopg.errors.LockNotAvailable as error:
        raise BackupRefused(
            "Somebody reads or changes the tables that are to be replaced, and did not end in time.",
            cure="Try again when that has ended. Nothing was changed.",
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unavailable(error) from error
    except psycopg.Error as error:
        raise BackupRefused(f"The database refused it: {error}", cure="Nothing was changed.") from error
    finally:
        await connection.close()


def _migrations(manifest: Manifest) -> tuple[list[Migration], list[Migration]]:
    """Those that the backup was made with, and those that came since. Raises BackupRefused."""
    known = read_migrations()
    checksums = {each.name: each.checksum for each in known}
    if strange := sorted(name for name, said in manifest.migrations.items() if checksums.get(name) != said):
        raise BackupRefused(
            f"It was made by version {manifest.version}, whose migrations this version does not have: "
            f"{', '.join(strange)}.",
            cure=f"Restore it with the version that made it (pip install circuit-script=={manifest.version}) or a "
            "newer one.",
        )
    then = [each for each in known if each.name in manifest.migrations]
    return then, [each for each in known if each.name not in manifest.migrations]


async def _refuse_in_use(connection: Connection, replace: str | None) -> tuple[str, bool]:
    """The database's name, and whether something is in it that may go."""
    row = await (await connection.execute(_STATE)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    database, there = row
    if replace is not None and replace != database:
        raise BackupRefused(
            f"--replace names {replace!r}, and this database is {database!r}.",
            cure="Say the name of the one to replace.",
        )
    if not there:
        return database, False
    await _refuse_at_work(connection, database)
    filled = await (await connection.execute(_FILLED)).fetchone()
    if filled and filled[0] and replace is None:
        raise BackupRefused(
            f"The database {database!r} is not empty.",
            cure=f"Restore into an empty one, or say that all that is in it may go: --replace {database}.",
        )
    return database, bool(filled and filled[0])


async def _refuse_at_work(connection: Connection, database: str) -> None:
    busy = [name for (name,) in await (await connection.execute(_AT_WORK)).fetchall()]
    if busy:
        raise BackupRefused(
            f"The platform works on the database {database!r}: {', '.join(busy)}.",
            cure="Stop it first: what is acknowledged meanwhile would be lost.",
        )


async def _shut(connection: Connection) -> None:
    """Let nobody in until the end of the transaction."""
    for name in _SHUT:
        there = await (await connection.execute(_THERE, [name])).fetchone()
        if there and there[0]:
            table = sql.Identifier("circuit", name)
            await connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(table))


def _missed(manifest: Manifest, lists: Sequence[Remembered]) -> list[Remembered]:
    """Who was forgotten after the backup was made. (Clocks of two servers may be a little apart.)"""
    since = manifest.taken_at - timedelta(minutes=5)
    return list({(each.hash, each.at): each for each in lists if each.at >= since}.values())


async def _set_aside(connection: Connection) -> None:
    there = await (await connection.execute("SELECT to_regnamespace('circuit') IS NOT NULL")).fetchone()
    if there and there[0]:
        await connection.execute(f"ALTER SCHEMA circuit RENAME TO {ASIDE}")
    await connection.execute("CREATE SCHEMA circuit")


async def _fill(connection: Connection, path: Path, manifest: Manifest, told: Progress) -> None:
    there = {table.name: table for table in await tables(connection)}
    oldest = f"{now() - timedelta(days=DAYS):%Y%m%d}"
    for name in reversed(there):  # what a migration put there stands in the backup, too
        await connection.execute(sql.SQL("DELETE FROM {}").format(there[name].identifier))
    for entry in manifest.tables:
        table = there.get(entry.name)
        if table is None:
            raise BackupRefused(f"It has a table {entry.name}, which its migrations do not make.", cure="Report this.")
        for day in entry.days:
            if day >= oldest:
                await connection.execute(_PARTITION, [entry.name, day])
        await _load(connection, path, table, entry, told)
    for name, value in manifest.sequences.items():
        await connection.execute(_SEQUENCE, [f'circuit."{name}"', value])


async def _load(connection: Connection, path: Path, table: Table, entry: TableEntry, told: Progress) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, entry.columns))
    forced = sql.SQL("ALTER TABLE {} {} FORCE ROW LEVEL SECURITY")
    if table.forced:  # COPY does not write where row security holds, and for its owner it holds only when forced
        await connection.execute(forced.format(table.identifier, sql.SQL("NO")))
    async with connection.cursor() as cursor:
        with reading(path, entry) as parts:
            done = 0
            async with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table.identifier, columns)) as copy:
                for part in parts:
                    await copy.write(part)
                    done += part.count(b"\n")
                    told(entry.name, done, entry.rows)
        if cursor.rowcount != entry.rows:
            raise BackupRefused(f"{entry.name} has {cursor.rowcount} rows and not {entry.rows}.", cure="Report this.")
    if table.forced:
        await connection.execute(forced.format(table.identifier, sql.SQL("")))
    told(entry.name, entry.rows, entry.rows)


async def _tidy(connection: Connection) -> str | None:
    """What comes once everything is in, and can be done later: a failure here undoes nothing."""
    try:
        await connection.execute("ANALYZE")
        await _remove_aside(connection)
    except (psycopg.Error, OSError) as error:
        return str(error).strip()
    return None


async def _remove_aside(connection: Connection) -> None:
    """What was replaced, a partition at a time: all at once would take more locks than a server has."""
    for schema, name in await (await connection.execute(_LEFT, [ASIDE])).fetchall():
        await _drop(connection, sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, name)))
    await _drop(connection, sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(ASIDE)))


async def _drop(connection: Connection, statement: sql.Composed) -> None:
    async with connection.transaction():
        await connection.execute(PATIENCE)
        await connection.execute(statement)
