"""Another key for everything that is sealed in the database, while it is at work.

Rows that the first key did not seal are opened and sealed again, a batch in a transaction: who is interrupted begins
again, and does only what is left. A row that does not open stays as it is, and is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql

from circuit_script.db.pool import Connection
from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.cipher import Cipher, SealBroken, keys_of, new_key, written_keys
from circuit_script.secrets.keys import Keys, make_key

BATCH = 200  # rows
_MARK = "#being-rotated"  # in a key file: its first key has not sealed everything yet


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column of sealed values. What a row's value is bound to is made of its ``keys``, and of ``last``."""

    table: str
    keys: tuple[str, str]
    column: str
    last: str

    def of(self, keys: Sequence[str]) -> str:
        return "/".join((*keys, self.last))


COLUMNS = (
    Sealed("secrets", ("tenant", "name"), "sealed", "secret"),
    Sealed("connections", ("tenant", "connector"), "access", "access"),
    Sealed("connections", ("tenant", "connector"), "refresh", "refresh"),
)


@dataclass(slots=True)
class Rotated:
    """``sealed`` values have the new key now; each of ``broken`` does not open, and why."""

    sealed: int = 0
    broken: list[str] = field(default_factory=list)


async def rotate(
    connection: Connection, cipher: Cipher, told: Callable[[int, int], None] = lambda done, of: None
) -> Rotated:
    """Seal with the first key of ``cipher`` what another one sealed; ``told`` hears how many are done, of how many."""
    rotated = Rotated()
    columns = [each for each in COLUMNS if await _is_there(connection, each)]
    total = sum([await _count(connection, each, cipher) for each in columns])
    for each in columns:
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            async with connection.transaction():
                after = await _batch(connection, each, cipher, after, rotated)
            told(rotated.sealed + len(rotated.broken), total)
    return rotated


async def broken(connection: Connection, cipher: Cipher) -> list[str]:
    """What does not open, and why."""
    found: list[str] = []
    for each in COLUMNS:
        if await _is_there(connection, each):
            async for keys, sealed in _rows(connection, each):
                if (why := _why_not(cipher, sealed, each.of(keys))) is not None:
                    found.append(why)
    return found


async def used_keys(connection: Connection) -> set[bytes]:
    """The ids of the keys that sealed something."""
    found: set[bytes] = set()
    for each in COLUMNS:
        if await _is_there(connection, each):
            rows = await _run(connection, "SELECT DISTINCT substring({column} FROM 2 FOR 8) FROM {table}", each)
            found.update(bytes(row[0]) for row in rows if row[0] is not None)
    return found


def begin_in_file(keys: Keys, used: set[bytes]) -> Cipher:
    """Put a new key in front of those in the file, unless one is there of a rotation that was interrupted. Those that
    sealed something stay, and the latest until the next rotation: somebody may be sealing with it in this moment.

    Raises SecretsUnavailable.
    """
    path = keys.in_file
    if path is None:
        raise SecretsUnavailable("The keys stand in the environment.", cure="Rotate them there.")
    if not path.exists():
        make_key(path)
        return keys.cipher()
    keys.cipher()  # so that a file that holds something else stays as it is
    text = path.read_text("ascii")
    if _MARK not in text:
        there = written_keys(text)
        old = [each for each in there if each == there[0] or Cipher(keys_of(each)).key in used]
        _replace(path, "\n".join((_MARK, new_key(), *old, "")))
    return keys.cipher()


def end_in_file(keys: Keys) -> None:
    """Everything has the new key: the next rotation makes another one. Raises SecretsUnavailable."""
    if (path := keys.in_file) is not None:
        _replace(path, path.read_text("ascii").replace(f"{_MARK}\n", ""))


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise SecretsUnavailable(f"{path}: {error.strerror}.", cure="Let this user write there.") from None


async def _batch(
    connection: Connection, of: Sealed, cipher: Cipher, after: tuple[str, str], rotated: Rotated
) -> tuple[str, str] | None:
    """Seal one batch again; the keys of its last row, None when there was none."""
    one, other = (sql.Identifier(each) for each in of.keys)
    found = sql.SQL(
        "SELECT {one}, {other}, {column} FROM {table} WHERE ({one}, {other}) > (%s, %s) AND {column} IS NOT NULL "
        "AND substring({column} FROM 2 FOR 8) <> %s ORDER BY {one}, {other} LIMIT %s FOR UPDATE"
    ).format(one=one, other=other, **_names(of))
    change = sql.SQL("UPDATE {table} SET {column} = %s WHERE {one} = %s AND {other} = %s").format(
        one=one, other=other, **_names(of)
    )
    rows = await (await connection.execute(found, (*after, cipher.key, BATCH))).fetchall()
    changes: list[tuple[bytes, str, str]] = []
    for *keys, sealed in rows:
        try:
            name = of.of(keys)
            changes.append((cipher.seal(cipher.open(sealed, name), name), keys[0], keys[1]))
        except SealBroken as error:
            rotated.broken.append(error.detail)
    async with connection.cursor() as cursor:
        await cursor.executemany(change, changes)
    rotated.sealed += len(changes)
    await asyncio.sleep(0)
    return (rows[-1][0], rows[-1][1]) if rows else None


async def _rows(connection: Connection, of: Sealed) -> Any:
    async with connection.transaction(), connection.cursor("sealed") as cursor:
        keys = sql.SQL(", ").join(map(sql.Identifier, of.keys))
        query = sql.SQL("SELECT {keys}, {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {keys}")
        await cursor.execute(query.format(keys=keys, **_names(of)))
        async for *found, sealed in cursor:
            yield found, bytes(sealed)


def _why_not(cipher: Cipher, sealed: bytes, name: str) -> str | None:
    try:
        cipher.open(sealed, name)
    except SealBroken as error:
        return error.detail
    return None


async def _count(connection: Connection, of: Sealed, cipher: Cipher) -> int:
    query = "SELECT count(*) FROM {table} WHERE substring({column} FROM 2 FOR 8) <> %s"
    return int((await _run(connection, query, of, cipher.key))[0][0])


async def _is_there(connection: Connection, of: Sealed) -> bool:
    query = (
        "SELECT 1 FROM information_schema.columns "
        "WHERE table_schema = 'circuit' AND table_name = %s AND column_name = %s"
    )
    return await (await connection.execute(query, (of.table, of.column))).fetchone() is not None


async def _run(connection: Connection, query: str, of: Sealed, *values: Any) -> list[tuple[Any, ...]]:
    text: Any = query
    return await (await connection.execute(sql.SQL(text).format(**_names(of)), values)).fetchall()


def _names(of: Sealed) -> dict[str, sql.Identifier]:
    return {"table": sql.Identifier("circuit", of.table), "column": sql.Identifier(of.column)}
