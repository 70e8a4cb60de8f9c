"""Puts past events back on the queue for a handler: what a retry of a dead letter and a replay have in common.

An event that is put back takes the road like any other. It has a new id, so that every reader finds it, behind what
waits of its order key already; its handler gets the record's current state, and what arrived in ``context.event``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from circuit_script.db.binary_arrays import bigints, smallints, texts, uuids
from circuit_script.db.pool import Connection
from circuit_script.errors import ReplayRefused
from circuit_script.events.intake import order_hash

LANES = 64
READ = """
SELECT p.nth, coalesce(e.tenant, p.tenant), e.order_key
FROM unnest(%b::uuid[], %b::smallint[], %b::text[]) WITH ORDINALITY AS p (delivery, ordinal, tenant, nth)
JOIN circuit.events e ON e.delivery = p.delivery AND e.ordinal = p.ordinal
ORDER BY p.nth
"""
PUT = """
SELECT event FROM circuit.requeue(%b::uuid[], %b::smallint[], %b::smallint[], %b::text[], %b::bigint[],
                                  %b::smallint[], %b::uuid, %b::boolean, %b::text)
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Past:
    """An event of the ledger, for one of its handlers. ``tenant`` is for those that nobody owned when they came."""

    delivery: UUID
    ordinal: int
    handler: int
    tenant: str | None = None


async def requeue(
    connection: Connection, past: Sequence[Past], *, replay: UUID | None = None, journal: bool = False, by: str
) -> list[int]:
    """Put these back, in this order; their new ids. All of them or, when one cannot be, none.

    With ``journal`` replies that were kept for them are found again, so that no call is paid twice. In a transaction it
    comes last: until the commit, intake waits. Raises ReplayRefused for what has left the ledger or has no tenant, and
    psycopg.Error.
    """
    if not past:
        return []
    found = await _read(connection, past)
    keys = [found.get(nth) for nth in range(1, len(past) + 1)]
    missing = next((each for each, key in zip(past, keys, strict=True) if key is None), None)
    if missing is not None:
        raise ReplayRefused(f"Event {missing.ordinal} of delivery {missing.delivery} is no longer in the ledger.")
    owned = [(tenant, key) for tenant, key in filter(None, keys) if tenant is not None]
    if len(owned) < len(past):
        raise ReplayRefused(
            "An event belongs to no tenant.", cure="Map its account to a tenant in circuit.toml, under [tenants]."
        )
    hashes = [order_hash(tenant, key) for tenant, key in owned]
    values = (
        uuids([each.delivery for each in past]),
        smallints([each.ordinal for each in past]),
        smallints([each.handler for each in past]),
        texts([tenant for tenant, _ in owned]),
        bigints(hashes),
        smallints([each % LANES for each in hashes]),
        replay,
        journal,
        by,
    )
    ids = [int(id_) for (id_,) in await (await connection.execute(PUT, values)).fetchall()]
    if replay is None:
        log.info("events.put_back", events=len(ids), by=by)
    return ids


async def _read(connection: Connection, past: Sequence[Past]) -> Mapping[int, tuple[str | None, str]]:
    values = (
        uuids([each.delivery for each in past]),
        smallints([each.ordinal for each in past]),
        texts([each.tenant for each in past]),
    )
    rows = await (await connection.execute(READ, values)).fetchall()
    return {int(nth): (tenant, key) for nth, tenant, key in rows}
