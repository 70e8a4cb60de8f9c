"""What the monitor watches of effects: vendors that are down, and what is in doubt."""

from __future__ import annotations

from circuit_script.db.pool import Connection
from circuit_script.telemetry.alerts.look import Doubts, Down

MOST = 1000
COUNTED = 10_000  # effects that wait for one target are counted up to here

_DOWN = f"""
SELECT w.connector, w.target, w.tenant, (
    SELECT count(*) FROM (SELECT 1 FROM circuit.effects e WHERE e.status = 'pending' AND e.tenant = w.tenant
                          AND e.connector = w.connector AND e.target = w.target LIMIT {COUNTED}) n),
    left(max(w.reason), 500)
FROM circuit.courier_waits w WHERE w.kind = 'open' AND w.until > now()
GROUP BY w.connector, w.target, w.tenant ORDER BY 4 DESC LIMIT {MOST}
"""
_DOUBTS = f"""
SELECT connector, operation, tenant, count(*) FROM circuit.effects WHERE status = 'in_doubt'
GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT {MOST}
"""


async def down(connection: Connection) -> list[Down]:
    """Vendors whose circuit is open, by tenant."""
    return [Down(*row) for row in await (await connection.execute(_DOWN.encode())).fetchall()]


async def doubtful(connection: Connection) -> list[Doubts]:
    """Effects in doubt by operation and tenant."""
    return [Doubts(*row) for row in await (await connection.execute(_DOUBTS.encode())).fetchall()]
