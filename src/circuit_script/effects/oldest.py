"""Since when effects wait, for who looks after vendors."""

from __future__ import annotations

from uuid import UUID

from circuit_script.clock import now, time_of
from circuit_script.db.pool import Connection
from circuit_script.effects.waits import DEEPEST
from circuit_script.telemetry.guardian import WaitSeen

_OLDEST = f"""
SELECT connector, target, count(*)::int, min(id::text) FROM (
    SELECT connector, target, id FROM circuit.effects WHERE status = 'pending'
    ORDER BY tenant, order_hash, seq LIMIT {DEEPEST}) waiting
GROUP BY 1, 2 ORDER BY 4 LIMIT 20
"""


async def oldest_waiting(connection: Connection) -> list[WaitSeen]:
    """What waits for each vendor, the oldest first; of very many effects DEEPEST are looked at."""
    rows = await (await connection.execute(_OLDEST)).fetchall()
    moment = now()
    return [
        WaitSeen(connector, target, n, max(0.0, (moment - time_of(UUID(oldest))).total_seconds()))
        for connector, target, n, oldest in rows
    ]
