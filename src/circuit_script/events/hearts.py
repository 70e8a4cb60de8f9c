"""Who of the workers tells that it lives."""

from __future__ import annotations

from circuit_script.db.pool import Connection
from circuit_script.supervised import Heart

_HEARTS = "SELECT host, pid, extract(epoch FROM now() - expires_at)::float8 FROM circuit.workers ORDER BY host, pid"


async def read_hearts(connection: Connection) -> list[Heart]:
    """Every worker of the last hour; one that ended in order is not among them."""
    rows = await (await connection.execute(_HEARTS)).fetchall()
    return [Heart(host, pid, silent) for host, pid, silent in rows]
