"""Webhooks that come after reconciliation has told the same: they start nothing a second time.

Such a webhook is taken for an echo. Where it says when the record was changed, it is one if that is no later than what
was found; else if it says nothing that was not found, or known before, and nothing else came of the record in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from circuit_script.connectors.connector import Fields
from circuit_script.db.pool import Pool
from circuit_script.events.reconcile.known import brought, differs, moment_of
from circuit_script.events.sources.circuit import Circuit

if TYPE_CHECKING:
    from circuit_script.events.batch import Item

FOR = 3600.0  # seconds after which a webhook counts for itself again
KINDS = frozenset({"afterInsert", "afterUpdate"})

FOUND = """
SELECT f.record, f.field, f.changed, extract(epoch FROM f.at)::float8, e.id, e.event, d.body
FROM circuit.reconciled f
JOIN circuit.events e ON e.delivery = f.delivery AND e.ordinal = 0
JOIN circuit.deliveries d ON d.id = f.delivery
WHERE f.tenant = %s AND f.object = %s AND f.record = ANY(%s) ORDER BY e.id
"""
BETWEEN = """
SELECT d.source, d.body, e.ordinal FROM circuit.events e JOIN circuit.deliveries d ON d.id = e.delivery
WHERE e.tenant = %s AND e.object = %s AND e.record = %s AND e.id > %s AND e.id < %s ORDER BY e.id LIMIT 20
"""


async def late_places(pool: Pool, items: Sequence[Item]) -> list[int]:
    """The places of the items, all of one tenant and object, that say what was found before. Raises psycopg.Error."""
    asked = [place for place, item in enumerate(items) if _may_be_late(item)]
    if not asked:
        return []
    row = items[asked[0]].row
    records = sorted({items[place].row.record for place in asked})
    late = []
    async with pool.connection() as connection:
        rows = await (await connection.execute(FOUND, [row.tenant, row.object, records])).fetchall()
        if not rows:
            return []
        for place in asked:
            item = items[place]
            before = [each for each in rows if each[0] == item.row.record and each[4] < item.row.arrived]
            if not before or not _in_time(item, *before[-1][3:6]):
                continue
            _, stamp, changed, _, event, _, body = before[-1]
            found = brought(Circuit.name, body, 0)
            own, newest = moment_of(item.incoming.get(stamp)), moment_of(changed)
            if own is not None and newest is not None:
                if own <= newest:
                    late.append(place)
                continue
            if not _says_more(item.incoming, found, item.old, stamp):
                values = [row.tenant, row.object, item.row.record, event, item.row.arrived]
                between = await (await connection.execute(BETWEEN, values)).fetchall()
                if not any(_says_more(brought(*_read(each)), found, item.old, stamp) for each in between):
                    late.append(place)
    return late


def _may_be_late(item: Item) -> bool:
    return not item.echo and item.row.past is None and item.row.event in KINDS and item.meta["source"] != Circuit.name


def _in_time(item: Item, at: float, _event: int, kind: str) -> bool:
    """Whether it came within the hour; and what was found as an update says nothing of a birth."""
    arrived: float = item.meta["received_at"]
    return arrived < at + FOR and (item.row.event == "afterUpdate" or kind == "afterInsert")


def _says_more(incoming: Fields, found: Fields, old: Fields | None, stamp: str) -> bool:
    return differs(incoming, {**(old or {}), **found}, {stamp})


def _read(row: tuple[Any, ...]) -> tuple[str, bytes, int]:
    source, body, ordinal = row
    return source, body, ordinal
