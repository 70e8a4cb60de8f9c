"""CircuitDB: the records of the CRM, as a handler reads and writes them.

Reads leave at once; writes wait until the execution, or their record, has succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuit_script.execution.context import Record
from circuit_script.execution.session import current_record, session

Row = Mapping[str, Any]
Rows = Row | Iterable[Row]


class CircuitDB:
    """Reads and writes of one tenant's records. Each is a request to the broker, which counts it."""

    @staticmethod
    async def query(
        object: str, where: Row | None = None, *, order_by: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """The records whose fields equal ``where``; ``order_by`` is a field, with "-" before it for falling."""
        asked = {"object": object, "where": dict(where or {}), "order_by": order_by, "limit": limit}
        rows = await session().request("query", asked, list[dict[str, Any]])
        return [Record(row) for row in rows]

    @staticmethod
    async def get(object: str, ids: str | Sequence[str]) -> Any:
        """The record with this id, or None; for a list of ids a list, parallel to it."""
        one = isinstance(ids, str)
        rows = await session().request(
            "get", {"object": object, "ids": [ids] if one else list(ids)}, list[dict[str, Any] | None]
        )
        records = [None if row is None else Record(row) for row in rows]
        return records[0] if one else records

    @staticmethod
    async def insert(object: str, rows: Rows) -> list[str]:
        """Insert a row or rows; returns their ids, which later writes may use."""
        return await _write("insert", object, rows)

    @staticmethod
    async def update(object: str, rows: Rows) -> list[str]:
        """Change the fields that are given, of the records named by ``id``."""
        return await _write("update", object, rows)

    @staticmethod
    async def upsert(object: str, rows: Rows) -> list[str]:
        """Update what exists by ``id``, insert the rest; returns the ids."""
        return await _write("upsert", object, rows)

    @staticmethod
    async def delete(object: str, ids: str | Iterable[str | Row]) -> list[str]:
        """Delete the records with these ids (or the ids of these records)."""
        each = [ids] if isinstance(ids, (str, Mapping)) else ids
        return await _write("delete", object, [one if isinstance(one, Mapping) else {"id": one} for one in each])


async def _write(op: str, object_: str, rows: Rows) -> list[str]:
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    asked = {"op": op, "object": object_, "rows": listed, "record": current_record.get()}
    reply = await session().request("dml", asked, dict[str, list[str]])
    return reply["ids"]
