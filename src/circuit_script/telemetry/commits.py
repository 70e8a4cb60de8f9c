"""An insert that is made once and only once, though connections may be lost with the answer to a commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from circuit_script.db.pool import Pool

AGAIN = 0.1
_STATUS = "SELECT pg_xact_status(%s::text::xid8)"
MEMORY = "32MB"  # in which PostgreSQL sorts the words of many lines into the index in one go
# A commit of lines makes no commit of the road wait for the disk. What a crash of the server takes of the last moment
# (three times wal_writer_delay, 0.6 s, at most) stands on standard output.
_PATIENCE = """
    SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),
           set_config('work_mem', %s, true), set_config('synchronous_commit', 'off', true)
"""


class Uncertain(Exception):
    """Nobody could say whether a commit counted. Made again the rows might be there twice, so they are given up."""


async def insert(pool: Pool, statement: str, columns: Sequence[Any], patience: float) -> None:
    """Run ``statement``, which returns the id of its transaction, and commit, within ``patience`` seconds.

    Raises psycopg.Error or OSError when nothing was stored, Uncertain when that could not be learned.
    """
    transaction: str | None = None
    milliseconds = str(int(patience * 1000))
    try:
        async with asyncio.timeout(patience), pool.connection() as connection:
            await connection.execute("BEGIN")
            try:
                await connection.execute(_PATIENCE, (milliseconds, milliseconds, MEMORY))
                row = await (await connection.execute(statement, columns)).fetchone()
                transaction = row[0] if row is not None else None
                await connection.execute("COMMIT")
            except psycopg.Error:
                if transaction is None and not connection.broken:
                    await connection.execute("ROLLBACK")
                raise
    except (psycopg.Error, OSError):
        if transaction is None or not await _was_committed(pool, transaction, patience):
            raise


async def _was_committed(pool: Pool, transaction: str, patience: float) -> bool:
    """What the server says of it, once it says something."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        try:
            async with asyncio.timeout(patience), pool.connection() as connection:
                row = await (await connection.execute(_STATUS, (transaction,))).fetchone()
        except (psycopg.Error, OSError):
            row = ("in progress",)
        if row is not None and row[0] in ("committed", "aborted"):
            return bool(row[0] == "committed")
        await asyncio.sleep(AGAIN)
    raise Uncertain(f"whether transaction {transaction} was committed could not be learned")
