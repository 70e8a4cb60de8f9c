"""The gateway's way into the ledger: one connection, one statement per group, back after a restart."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from circuit_script.db.binary_arrays import (
    Packed,
    bigints,
    byteas,
    integers,
    jsonbs,
    smallints,
    texts,
    uuids,
)
from circuit_script.errors import CircuitError
from circuit_script.events.sources import EventDraft

Connection = psycopg.AsyncConnection[Any]

CONNECT_TIMEOUT = 3.0  # seconds
STATEMENT_TIMEOUT = 5.0
GIVE_UP_AFTER = 6.5  # when not even the server's own timeout answers
_IDLE = 0.25  # a connection unused for longer is looked at before it is used

_TAKE_IN = """
    SELECT * FROM circuit.take_in(
        %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::jsonb[],
        %b::bytea[], %b::int[], %b::smallint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[],
        %b::smallint[], %b::smallint[])
"""

# Classes of SQLSTATE that speak of the rows, not of the server: data exception, integrity, too large.
_OF_THE_ROWS = ("22", "23", "54")


class LedgerAway(CircuitError):
    """The ledger cannot be written now."""


class Unstorable(CircuitError):
    """The ledger refuses these rows."""


class LedgerRow(NamedTuple):
    """One delivery with its events; ``order_hashes`` go by event."""

    id: UUID
    source: str
    account: str
    tenant: str | None
    vendor_id: str | None
    record_key: str | None
    headers: bytes
    body: bytes
    events: tuple[EventDraft, ...]
    order_hashes: tuple[int, ...]
    depth: int = 0


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of a group: our ids of duplicates with the first one's, and whether a dispatcher sleeps."""

    duplicates: dict[UUID, UUID]
    asleep: bool


class Ledger:
    """Raises LedgerAway when a statement did not commit, or may not have; it never hangs."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, pooler: bool = False) -> None:
        """``connect`` opens an autocommit connection. Behind a ``pooler`` nothing is prepared or set."""
        self._connect = connect
        self._pooler = pooler
        self._connection: Connection | None = None
        self._used_at = 0.0
        self._turn = asyncio.Lock()

    async def take_in(self, rows: Sequence[LedgerRow]) -> TakenIn:
        """Commit these deliveries. Raises Unstorable when it is their content that the database refuses."""
        return _taken(await self.run(_TAKE_IN, row_parameters(rows), binary=True))

    async def run(self, statement: str, parameters: Sequence[object], *, binary: bool = False) -> list[tuple[Any, ...]]:
        """One statement, one commit. Raises LedgerAway or Unstorable."""
        async with self._turn:
            connection = await self._ready()
            watchdog = asyncio.get_running_loop().call_later(GIVE_UP_AFTER, _cut, connection)
            try:
                cursor = await connection.execute(
                    statement, parameters, prepare=None if self._pooler else True, binary=binary
                )
                return await cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                raise await self._failure(connection, error) from error
            finally:
                watchdog.cancel()
                self._used_at = time.monotonic()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _ready(self) -> Connection:
        connection = self._connection
        if connection is not None and time.monotonic() - self._used_at > _IDLE and _has_news(connection):
            # An idle connection has nothing to read unless the server closed it. Found out now, nothing
            # was sent, so that a restart of the database costs no answer.
            await self.close()
            connection = None
        if connection is None or connection.closed:
            connection = self._connection = await self._open()
        return connection

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await self._connect()
                if not self._pooler:
                    await connection.execute(f"SET statement_timeout = {int(STATEMENT_TIMEOUT * 1000)}")
        except (psycopg.Error, CircuitError, OSError) as error:
            raise LedgerAway(str(error)) from error
        return connection

    async def _failure(self, connection: Connection, error: psycopg.Error) -> CircuitError:
        if not connection.closed and (error.sqlstate or "22").startswith(_OF_THE_ROWS):
            return Unstorable(error.sqlstate or type(error).__name__)
        # After a failover the old server may still answer, read-only: start again with a new connection.
        await self.close()
        return LedgerAway(f"{error.sqlstate or ''} {type(error).__name__}".strip())


async def take_in(connection: Connection, rows: Sequence[LedgerRow]) -> TakenIn:
    """The same as a part of a transaction that is open; until its commit, intake waits. Raises psycopg.Error."""
    return _taken(await (await connection.execute(_TAKE_IN, row_parameters(rows), binary=True)).fetchall())


def _taken(found: Sequence[tuple[Any, ...]]) -> TakenIn:
    duplicates = {mine: first for kind, mine, first in found if kind == "duplicate"}
    return TakenIn(duplicates, any(kind == "asleep" for kind, _, _ in found))


def row_parameters(rows: Sequence[LedgerRow]) -> tuple[Packed, ...]:
    """What ``circuit.take_in`` is given."""
    places = [place for place, row in enumerate(rows, 1) for _ in row.events]
    ordinals = [ordinal for row in rows for ordinal in range(len(row.events))]
    events = [event for row in rows for event in row.events]
    order_hashes = [order_hash for row in rows for order_hash in row.order_hashes]
    return (
        uuids([row.id for row in rows]),
        texts([row.source for row in rows]),
        texts([row.account for row in rows]),
        texts([row.tenant for row in rows]),
        texts([row.vendor_id for row in rows]),
        texts([row.record_key for row in rows]),
        byteas([b"" if row.record_key is None else sha256(row.body).digest() for row in rows]),
        jsonbs([row.headers for row in rows]),
        byteas([row.body for row in rows]),
        integers(places),
        smallints(ordinals),
        texts([event.object for event in events]),
        texts([event.event for event in events]),
        texts([event.record for event in events]),
        texts([event.order_key for event in events]),
        bigints(order_hashes),
        smallints([order_hash % 64 for order_hash in order_hashes]),
        smallints([row.depth for row in rows]),
    )


def _has_news(connection: Connection) -> bool:
    watch = select.poll()
    watch.register(connection.fileno(), select.POLLIN)
    return bool(watch.poll(0))


def _cut(connection: Connection) -> None:
    """End the wait of a statement that nobody answers: shut the socket down under it."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
