"""What a person decides of effects that are in doubt, or dead: they were done, are sent again, or are left.

Each function is one transaction and returns the ids that it settled: those that somebody else has settled meanwhile are
missing. Effects that use the ids which these were to make are settled with them (`circuit.decided`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from circuit_script.connectors.connector import Fields
from circuit_script.db.pool import Connection
from circuit_script.effects.order import order_hash

_SETTLE = """
UPDATE circuit.effects SET status = %(status)s, settled_at = now(), settled_by = %(by)s, note = %(note)s,
    vendor_id = coalesce(%(vendor_id)s, vendor_id)
WHERE id = ANY(%(ids)s::uuid[]) AND status = ANY(%(of)s) RETURNING id
"""
_AGAIN = """
UPDATE circuit.effects SET status = 'pending', attempts = 0, next_at = now(), settled_at = NULL, left_at = NULL,
    cancelled = false, settled_by = %(by)s, note = %(note)s, payload = coalesce(%(payload)s, payload)
WHERE id = ANY(%(ids)s::uuid[]) AND status = ANY(%(of)s) RETURNING id
"""
# Of records that live outside: in whose order they stand from now on. The mirror stays as it is.
_MADE = "SELECT id, tenant FROM circuit.effects WHERE id = ANY(%s::uuid[]) AND was IS NOT NULL"
_CONFIRM = "SELECT circuit.confirm(%s::uuid[], array_fill('-infinity'::timestamptz, ARRAY[%s]), %s::bigint[])"


async def settle_delivered(
    connection: Connection, ids: Sequence[UUID], *, by: str, note: str = "", vendor_id: str | None = None
) -> list[UUID]:
    """These effects in doubt were done after all. ``vendor_id`` is the id that the vendor made: without it, effects
    that use it are dead letters."""
    values = {"status": "delivered", "vendor_id": vendor_id}
    async with connection.transaction():
        done = await _decide(connection, _SETTLE, ids, ("in_doubt",), by, note, values)
        if vendor_id is not None:
            made = await (await connection.execute(_MADE, [done])).fetchall()
            order = [order_hash(tenant, vendor_id) for _, tenant in made]
            await connection.execute(_CONFIRM, [[id_ for id_, _ in made], len(made), order])
    return done


async def settle_discarded(connection: Connection, ids: Sequence[UUID], *, by: str, note: str = "") -> list[UUID]:
    """These effects, in doubt or dead, are not sent again, whatever their vendor has done."""
    values = {"status": "discarded", "vendor_id": None}
    return await _decide(connection, _SETTLE, ids, ("in_doubt", "dead"), by, note, values)


async def send_again(
    connection: Connection, ids: Sequence[UUID], *, by: str, note: str = "", payload: Fields | None = None
) -> list[UUID]:
    """These effects, in doubt or dead, are sent again under their idempotency keys and with all their attempts, and
    with another ``payload`` if it is given."""
    values = {"payload": None if payload is None else Jsonb(payload)}
    return await _decide(connection, _AGAIN, ids, ("in_doubt", "dead"), by, note, values)


async def _decide(
    connection: Connection,
    statement: str,
    ids: Sequence[UUID],
    of: Sequence[str],
    by: str,
    note: str,
    more: dict[str, Any],
) -> list[UUID]:
    values = {"ids": list(ids), "of": list(of), "by": by, "note": note or None, **more}
    return [row[0] for row in await (await connection.execute(statement.encode(), values)).fetchall()]
