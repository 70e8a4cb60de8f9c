"""The built-in CRM: objects and records in PostgreSQL.

Its writes are applied in the transaction of the outcome itself, so it has no ``deliver``. The version of a record is
the transaction that wrote it last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from circuit_script.connectors.connector import Fields, Page, Plan, Query, Stored
from circuit_script.connectors.local_sql import Bound, compile_query, place_of
from circuit_script.db.pool import Pool, tenant_reading
from circuit_script.errors import DatabaseUnavailable, RequestRefused

GET = """
SELECT r.data || jsonb_build_object('id', r.id), r.xmin::text::bigint
FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (id, place)
LEFT JOIN circuit.records r
  ON r.tenant = circuit.current_tenant() AND r.object = %s AND r.id = wanted.id AND NOT r.deleted
ORDER BY wanted.place
"""


class LocalCRM:
    """Pages of a query, and records by id. Row security holds the tenant; the statements name it for the index.

    Its SQL gives exactly the rows that `connectors.query.matches` gives, in the order of `in_order`; without an order
    by id, as the database sorts text.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return await self._read(tenant, Bound(sql.SQL(GET), [list(ids), object_]))

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        """Without an order a page begins after the last id of the one before, so none is lost or given twice; with one
        it begins at a place, which moves when others write meanwhile."""
        rows = await self._read(tenant, compile_query(query, after, size + 1))  # one more says whether there are more
        found = [row for row in rows[:size] if row is not None]
        if len(rows) <= size:
            return Page(found, None)
        return Page(found, str(place_of(after) + size) if query.order_by else str(found[-1]["id"]))

    def explain(self, query: Query) -> Plan:
        bound = compile_query(query, None, min(query.limit, 1000))
        return Plan("local", (bound.shown,))

    async def _read(self, tenant: str, asked: Bound) -> list[Any]:
        try:
            async with self._pool.connection() as connection, tenant_reading(connection, tenant):
                rows = await (await connection.execute(asked.statement, asked.values)).fetchall()
                return [None if fields is None else Stored(fields, version) for fields, version in rows]
        except psycopg.DataError as error:  # NUL, a lone surrogate: no stored value is equal to it
            raise RequestRefused(f"a value cannot be looked for: {error.diag.message_primary or error}.") from None
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            raise DatabaseUnavailable(str(error)) from error
