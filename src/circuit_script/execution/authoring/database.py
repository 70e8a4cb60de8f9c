"""CircuitDB: the records of the CRM, as a handler reads and writes them.

Reads leave at once; writes wait until the execution, or their record, has succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from circuit_script.errors import RequestRefused, SchemaRefused
from circuit_script.execution.authoring.enriching import enrich
from circuit_script.execution.authoring.queries import Q, Selection, lazily, record_of, selection
from circuit_script.execution.authoring.records import Record
from circuit_script.execution.session import current_record, session
from circuit_script.schemas.registered import SCHEMAS

Row = Mapping[str, Any]
Rows = Row | Iterable[Row]


class CircuitDB:
    """Reads and writes of one tenant's records. Each is a request to the broker, which counts it.

    All of them raise RequestRefused for what cannot be done, and LimitExceeded when a limit is crossed. Reads show
    what this execution wrote before. Writes are held: one belongs to the record of the ``context.record`` block
    around it, or to the record of the batch whose id it writes, and leaves when that record has succeeded.
    """

    @staticmethod
    @lazily
    def query(
        object: str,
        where: Row | Q | None = None,
        *,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
        binds: Mapping[str, Any] | None = None,
    ) -> Selection:
        """A query of the records of ``object``, to be awaited, read with ``async for``, or narrowed first:

            leads = await CircuitDB.query("Contact").where(score__gt=80).order_by("-score").limit(10)
            async for lead in CircuitDB.query("Contact", {"city": "Waco"}): ...

        ``where`` are fields that equal a value (or one of a list), or a `Q`; ``order_by`` is a field, with "-" before
        it for falling, or several; ``limit`` is 1,000 where none is said. Or ``object`` is all of it, in SOQL, with the
        values of ``:name`` in ``binds``:

            await CircuitDB.query("SELECT Id, Email FROM Contact WHERE City = :city LIMIT 10", binds={"city": "Waco"})

        It is a `Selection`. Awaited it counts as one of ``db_queries``, its rows as ``db_rows``.
        """
        return selection(object, where, order_by, limit, binds)

    @overload
    @staticmethod
    async def get(object: str, ids: str) -> Record | None: ...
    @overload
    @staticmethod
    async def get(object: str, ids: list[str] | tuple[str, ...]) -> list[Record | None]: ...
    @staticmethod
    async def get(object: str, ids: str | Sequence[str]) -> Record | list[Record | None] | None:
        """The record with this id, or None; for a list of ids a list, parallel to it, with None for what is not there.

        Counts as one of ``db_queries``, its rows as ``db_rows``.
        """
        one = isinstance(ids, str)
        asked = {"object": object, "ids": [ids] if one else list(ids), "versions": True}
        rows = await session().request("get", asked, list[dict[str, Any] | None])
        records = [None if row is None else record_of(row) for row in rows]
        return records[0] if one else records

    @staticmethod
    async def batch_enrich(
        records: Iterable[Row], sources: Sequence[str] = ("census",), *, fields: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """What is known of these records from outside: a list parallel to them, as ``VirtualLPR.score`` takes it.

        ``sources`` are of "census" (place, district, median income), "maps" (miles to your locations, kind of business)
        and "linkedin" (title, company, industry, size). Each row has one mapping per source, or None, and ``reasons``
        by source for what is missing; one bad record, or a source that is away, never fails the rest. All records
        together take a request or two, which count as ``callouts``; what is known already takes none.

        ``fields`` says where records have what they do not have in the usual place: {"street": "siteAddress"}.
        """
        return await enrich(records, sources, fields)

    @staticmethod
    async def insert(object: str, rows: Rows) -> list[str]:
        """Insert a row or rows; returns their ids, which later writes may use. A row without an id is given one."""
        return await _write("insert", object, rows)

    @staticmethod
    async def update(object: str, rows: Rows, *, if_version: Record | Iterable[Record] | None = None) -> list[str]:
        """Change the fields that are given, of the records named by ``id``; returns the ids.

        Refused when there is no such record. ``if_version`` are the records as they were read (by CircuitDB, or those
        of the batch), one for each row: if somebody writes one of them before the outcome is committed, nothing that is
        this record's leaves; it fails with VersionConflict and is tried again, with what is stored then.
        """
        return await _write("update", object, rows, None if if_version is None else _versions(if_version))

    @staticmethod
    async def upsert(object: str, rows: Rows) -> list[str]:
        """Update what exists by ``id``, insert the rest; returns the ids."""
        return await _write("upsert", object, rows)

    @staticmethod
    async def delete(object: str, ids: str | Iterable[str | Row]) -> list[str]:
        """Delete the records with these ids (or the ids of these records); returns the ids."""
        each = [ids] if isinstance(ids, (str, Mapping)) else ids
        return await _write("delete", object, [one if isinstance(one, Mapping) else {"id": one} for one in each])


def _versions(records: Record | Iterable[Record]) -> dict[str, int]:
    """By id. Raises TypeError for what was not read, and so has no version, RequestRefused when nobody listens."""
    found = {}
    for each in [records] if isinstance(records, Record) else records:
        version, place = getattr(each, "version", None), getattr(each, "place", None)
        if version is None and place is not None:
            if (context := session().context) is None:
                raise RequestRefused("the execution is over.")
            version = context.event_at(place).get("version")
        if version is None:
            raise TypeError("if_version takes records as CircuitDB or the batch gave them, not copies of them.")
        found[str(each["id"])] = version
    return found


def _must_fit(schema: type[Any], op: str, object_: str, rows: Sequence[Any]) -> None:
    """Raises SchemaRefused for the first row that does not fit; of an update, only what it gives is looked at."""
    from circuit_script.schemas.fitting import unfit

    for place, row in enumerate(rows):
        if isinstance(row, Mapping) and (wrong := unfit(schema, row, whole=op == "insert")) is not None:
            which = f", row {place}" if len(rows) > 1 else ""
            raise SchemaRefused(f"{op} {object_}{which}: {wrong}.")


async def _write(op: str, object_: str, rows: Rows, versions: dict[str, int] | None = None) -> list[str]:
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    if SCHEMAS and op != "delete" and (schema := SCHEMAS.get(object_)) is not None:
        _must_fit(schema, op, object_, listed)
    asked: dict[str, Any] = {"op": op, "object": object_, "rows": listed, "record": current_record.get()}
    if versions is not None:
        asked["versions"] = versions
    reply = await session().request("dml", asked, dict[str, list[str]])
    return reply["ids"]
