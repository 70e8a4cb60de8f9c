"""What executions have used of their limits, per handler."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_script.db.pool import Connection

_USED = """
    SELECT h.name, u.key, count(*), max(u.value::float8),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY u.value::float8)
    FROM circuit.executions x JOIN circuit.handlers h ON h.id = x.handler, jsonb_each_text(x.usage) u
    WHERE x.id >= circuit.uuid_floor(now() - %s * interval '1 day') AND x.status <> 'echo'
    GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Used:
    """Use of one limit by the executions of one handler, in the limit's unit."""

    executions: int
    most: float
    p95: float


async def usage_of(connection: Connection, days: float) -> dict[tuple[str, str], Used]:
    """(handler, limit) → what was used in the last ``days`` days."""
    rows = await (await connection.execute(_USED, (days,))).fetchall()
    return {(handler, limit): Used(count, most, p95) for handler, limit, count, most, p95 in rows}
