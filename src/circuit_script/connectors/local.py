"""The built-in CRM: objects and records in PostgreSQL.

Its writes are applied in the transaction of the outcome itself, so it has no ``deliver``. The version of a record is
the transaction that wrote it last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from circuit_script.connectors.connector import Fields, Query, Stored
from circuit_script.db.pool import Pool, tenant_reading
from circuit_script.errors import DatabaseUnavailable, RequestRefused

GET = """
SELECT r.data || jsonb_build_object('id', r.id), r.xmin::text::bigint
FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (id, place)
LEFT JOIN circuit.records r
  ON r.tenant = circuit.current_tenant() AND r.object = %s AND r.id = wanted.id AND NOT r.deleted
ORDER BY wanted.place
"""

SELECT = """
SELECT r.data || jsonb_build_object('id', r.id), r.xmin::text::bigint FROM circuit.records r
WHERE r.tenant = circuit.current_tenant() AND r.object = %s AND NOT r.deleted
"""

INDEXED = {"id": sql.SQL("r.id"), "contactId": sql.SQL("r.contact")}


class LocalCRM:
    """Query by field, get by id. Row security holds the tenant; the statements name it for the index."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return await self._read(tenant, sql.SQL(GET), [list(ids), object_])

    async def query(self, tenant: str, query: Query) -> list[Fields]:
        return await self._read(tenant, *compile_query(query))

    async def _read(self, tenant: str, statement: sql.SQL | sql.Composed, values: list[Any]) -> list[Any]:
        try:
            async with self._pool.connection() as connection, tenant_reading(connection, tenant):
                rows = await (await connection.execute(statement, values)).fetchall()
                return [None if fields is None else Stored(fields, version) for fields, version in rows]
        except psycopg.DataError as error:  # NUL, NaN, a lone surrogate: no stored value is equal to it
            raise RequestRefused(f"a value cannot be looked for: {error.diag.message_primary or error}.") from None
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            raise DatabaseUnavailable(str(error)) from error


def compile_query(query: Query) -> tuple[sql.Composed, list[Any]]:
    """The statement and its values. Fields travel as values too, so no name reaches the SQL text."""
    parts: list[sql.Composable] = [sql.SQL(SELECT)]
    values: list[Any] = [query.object]
    for field, wanted in query.where.items():
        if (column := INDEXED.get(field)) and wanted is not None:
            parts.append(sql.SQL("AND {} = ANY(%s)").format(column))
            values.append([str(each) for each in (wanted if isinstance(wanted, list) else [wanted])])
        elif isinstance(wanted, list):
            parts.append(sql.SQL("AND r.data -> %s = ANY(%s)"))
            values += [field, [Jsonb(each) for each in wanted]]
        elif wanted is None:
            parts.append(sql.SQL("AND coalesce(r.data -> %s, 'null'::jsonb) = 'null'::jsonb"))
            values.append(field)
        else:
            parts.append(sql.SQL("AND r.data -> %s = %s"))
            values += [field, Jsonb(wanted)]
    if query.order_by:
        descending = query.order_by.startswith("-")
        direction = sql.SQL("DESC" if descending else "ASC")
        if query.order_by.removeprefix("-") == "id":
            parts.append(sql.SQL("ORDER BY r.id {}").format(direction))
        else:
            parts.append(sql.SQL("ORDER BY nullif(r.data -> %s, 'null') {} NULLS LAST, r.id").format(direction))
            values.append(query.order_by.removeprefix("-"))
    else:
        parts.append(sql.SQL("ORDER BY r.id"))
    if not 0 < query.limit <= 50_000:
        raise RequestRefused(f"limit must be 1 to 50,000, not {query.limit}.")
    parts.append(sql.SQL("LIMIT %s"))
    values.append(query.limit)
    return sql.SQL(" ").join(parts), values
