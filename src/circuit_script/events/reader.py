"""Reads queue rows: forward with one cursor, again for tenants that were skipped and for lanes just won."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg

from circuit_script.db.pool import Connection
from circuit_script.events.aside import AsideKey
from circuit_script.events.backlog import Queued
from circuit_script.events.queued import UNKNOWN

COLUMNS = """id, handler, lane, attempts, ordinal, order_hash, delivery, not_before, held_until,
       tenant, object, event, record, depth, past, replay"""
FORWARD = f"SELECT {COLUMNS} FROM circuit.queue WHERE id > %s ORDER BY id, handler LIMIT %s"
LANES = f"""SELECT {COLUMNS} FROM circuit.queue
WHERE id > %s AND id <= %s AND lane = ANY(%s::smallint[]) ORDER BY id, handler LIMIT %s"""
TENANT = f"""SELECT {COLUMNS} FROM circuit.queue
WHERE id >= %s AND id <= %s AND tenant = %s AND lane = ANY(%s::smallint[]) ORDER BY id, handler LIMIT %s"""
ASIDE = f"""SELECT {COLUMNS} FROM circuit.queue
WHERE id >= %s AND id <= %s AND handler = %s AND tenant = %s AND lane = ANY(%s::smallint[])
AND (%s::bigint IS NULL OR order_hash = %s) ORDER BY id LIMIT %s"""
BEHIND = f"""SELECT {COLUMNS} FROM circuit.queue q
WHERE id <= (SELECT max(low_water) FROM circuit.lanes) AND lane = ANY(%s::smallint[])
AND id <= (SELECT l.low_water FROM circuit.lanes l WHERE l.lane = q.lane) ORDER BY id, handler LIMIT %s"""
BRIEFLY = "SET LOCAL statement_timeout = '500ms'"  # a long snapshot elsewhere makes dead rows costly to pass
NEWEST = "SELECT coalesce(max(id), 0) FROM circuit.queue"
THROUGH = "SELECT id, release FROM circuit.replays WHERE id = ANY(%s)"
AGAIN = f"SELECT {COLUMNS} FROM circuit.queue WHERE id = ANY(%s::bigint[])"


class QueueReader:
    """``cursor`` is the id up to which every row has been seen. Ids rise in the order of commits, so nothing
    appears behind it."""

    def __init__(self) -> None:
        self.cursor = 0
        self._through: dict[UUID, int | None] = {}  # the release of a replay

    def start_at(self, low: Mapping[int, int]) -> None:
        self.cursor = min(low.values(), default=0)

    async def forward(self, connection: Connection, limit: int) -> list[Queued]:
        rows = await self._rows(connection, FORWARD, [self.cursor, limit])
        if len(rows) == limit:
            # The last event may have more handlers than were read: it is read again.
            whole = [row for row in rows if row.id < rows[-1].id]
            rows = whole or rows
        if rows:
            self.cursor = rows[-1].id
        return rows

    async def of_lanes(
        self, connection: Connection, lanes: Mapping[int, int], chunk: int = 5000
    ) -> AsyncIterator[list[Queued]]:
        """In chunks, all rows up to the cursor of lanes just won, from their low-water marks on."""
        after = min(lanes.values())
        while rows := await self._rows(connection, LANES, [after, self.cursor, list(lanes), chunk]):
            yield rows
            if len(rows) < chunk:
                return
            after = rows[-1].id - 1

    async def of_tenant(
        self, connection: Connection, tenant: str, first: int, lanes: Collection[int], limit: int
    ) -> list[Queued]:
        return await self._rows(connection, TENANT, [first, self.cursor, tenant, list(lanes), limit])

    async def of_aside(
        self, connection: Connection, key: AsideKey, first: int, lanes: Collection[int], limit: int
    ) -> list[Queued]:
        """What was put aside, from its first row on."""
        handler, tenant, order = key
        values = [first, self.cursor, handler, tenant, list(lanes), order, order, limit]
        return await self._rows(connection, ASIDE, values)

    async def behind(self, connection: Connection, lanes: Collection[int], limit: int) -> list[Queued]:
        """Rows of these lanes below their low water, where nothing should be; none when that takes too long to say."""
        try:
            async with connection.transaction():
                await connection.execute(BRIEFLY)
                return await self._rows(connection, BEHIND, [list(lanes), limit])
        except psycopg.errors.QueryCanceled:
            return []

    async def newest(self, connection: Connection) -> int:
        row = await (await connection.execute(NEWEST)).fetchone()
        return int(row[0]) if row else 0

    async def again(self, connection: Connection, ids: Collection[int]) -> dict[tuple[int, int], Queued]:
        rows = await self._rows(connection, AGAIN, [list(ids)])
        return {(row.id, row.handler): row for row in rows}

    async def _rows(self, connection: Connection, statement: str, values: list[Any]) -> list[Queued]:
        cursor = await connection.execute(statement, values, binary=True)
        rows = [Queued(*row) for row in await cursor.fetchall()]
        if replayed := [row for row in rows if row.replay is not None]:
            await self._route(connection, replayed)
        return rows

    async def _route(self, connection: Connection, rows: Sequence[Queued]) -> None:
        """Say of what is replayed through which release; of each replay it is looked up once."""
        unknown = {row.replay for row in rows if row.replay is not None} - self._through.keys()
        if unknown:
            found: dict[UUID, int | None] = dict(await (await connection.execute(THROUGH, [list(unknown)])).fetchall())
            self._through |= {replay: found.get(replay, UNKNOWN) for replay in unknown}
        for row in rows:
            row.release = None if row.replay is None else self._through[row.replay]
