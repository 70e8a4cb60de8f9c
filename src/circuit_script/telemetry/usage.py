"""What executions have used of their limits: per handler, who uses most, who came near to a limit, who crossed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection

NEAR = 0.8  # of a limit: from here on it is worth a look

# Those of the last days; of very many only the newest, for who must answer at once.
_ALL = """(
        SELECT x.id, x.tenant, x.handler, x.records, x.status, x.reason, x.usage FROM circuit.executions x
        WHERE x.id >= circuit.uuid_floor(now() - %(days)s * interval '1 day') AND {kind}
    ) x"""
_NEWEST = """(
        SELECT x.id, x.tenant, x.handler, x.records, x.status, x.reason, x.usage FROM circuit.executions x
        WHERE x.id >= circuit.uuid_floor(now() - %(days)s * interval '1 day') AND {kind}
        ORDER BY x.id DESC LIMIT %(newest)s
    ) x"""

_USED = """
    SELECT h.name, u.key, count(*), max(u.value::float8),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY u.value::float8)
    FROM {executions} JOIN circuit.handlers h ON h.id = x.handler, jsonb_each_text(x.usage) u
    GROUP BY 1, 2
"""
_USERS = """
    SELECT x.tenant, h.name, count(*), sum((x.usage ->> 'wall_time')::float8), sum((x.usage ->> 'cpu_time')::float8),
           sum((x.usage ->> 'callouts')::float8), sum((x.usage ->> 'llm_tokens')::float8),
           sum((x.usage ->> 'llm_cost')::float8)
    FROM {executions} JOIN circuit.handlers h ON h.id = x.handler
    GROUP BY 1, 2 ORDER BY 8 DESC NULLS LAST, 5 DESC NULLS LAST, 3 DESC, 1, 2 LIMIT %(most)s
"""
# A tenant's own ceiling, or else that of all; of some limits for each record of the batch. They come as one object
# each, since a join with a list of them would go through all of it for each of the thousands of rows.
_NEAR = """
    WITH used AS MATERIALIZED (
        SELECT x.id, x.tenant, h.name AS handler, u.key AS name, u.value::float8 AS used,
               CASE WHEN u.key = ANY(%(per_record)s::text[]) THEN greatest(1, x.records) ELSE 1 END * coalesce(
                   %(own)s::jsonb -> x.tenant -> h.name ->> u.key, %(everybodys)s::jsonb -> h.name ->> u.key
               )::float8 AS ceiling
        FROM {executions} JOIN circuit.handlers h ON h.id = x.handler CROSS JOIN LATERAL jsonb_each_text(x.usage) u
        WHERE x.status <> 'breached'
    )
    SELECT handler, name, tenant, count(*), max(used / ceiling),
           (array_agg(id ORDER BY used / ceiling DESC, id DESC))[1]
    FROM used WHERE ceiling > 0 AND used >= %(near)s * ceiling
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 5 DESC, 1, 2, 3 LIMIT %(most)s
"""
_BREACHES = """
    SELECT h.name,
           coalesce(substring(x.reason FROM '^limit (\\w+) exceeded'),
                    substring(x.reason FROM '^(loop|deadline) '), ''),
           x.tenant, count(*), (array_agg(x.reason ORDER BY x.id DESC))[1], max(x.id::text)::uuid
    FROM {executions} JOIN circuit.handlers h ON h.id = x.handler
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Used:
    """Use of one limit by the executions of one handler, in the limit's unit."""

    executions: int
    most: float
    p95: float


@dataclass(frozen=True, slots=True)
class User:
    """What the executions of one handler for one tenant have used together. Times in seconds, cost in US dollars."""

    tenant: str
    handler: str
    executions: int
    wall_time: float
    cpu_time: float
    callouts: int
    llm_tokens: int
    llm_cost: float


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Executions that used 80 % and more of a limit and did not cross it. ``share`` is that of the nearest,
    ``execution``."""

    handler: str
    limit: str
    tenant: str
    times: int
    share: float
    execution: UUID


@dataclass(frozen=True, slots=True)
class Breach:
    """Executions that crossed a limit ("loop" and "deadline" are some, too); ``reason`` is that of the last."""

    handler: str
    limit: str
    tenant: str
    times: int
    reason: str
    execution: UUID


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a handler may have of a limit; ``tenant`` is None for those that have no ceiling of their own."""

    handler: str
    limit: str
    tenant: str | None
    value: float


async def usage_of(connection: Connection, days: float, *, newest: int | None = None) -> Mapping[tuple[str, str], Used]:
    """(handler, limit) → what was used in the last ``days`` days; of the ``newest`` executions, if it is given."""
    rows = await _rows(connection, _USED, days, newest)
    return {(handler, limit): Used(count, most, p95) for handler, limit, count, most, p95 in rows}


async def users_of(connection: Connection, days: float, most: int, *, newest: int | None = None) -> list[User]:
    """Who used most in the last ``days`` days: most money first, then most computing."""
    rows = await _rows(connection, _USERS, days, newest, {"most": most})
    return [
        User(tenant, name, n, wall or 0.0, cpu or 0.0, int(callouts or 0), int(tokens or 0), cost or 0.0)
        for tenant, name, n, wall, cpu, callouts, tokens, cost in rows
    ]


async def near_misses(
    connection: Connection,
    days: float,
    ceilings: Iterable[Ceiling],
    per_record: Iterable[str],
    most: int,
    *,
    newest: int | None = None,
) -> list[NearMiss]:
    """What came near to a limit, the most frequent first. Of the limits ``per_record`` a ceiling is for each record."""
    everybodys: dict[str, dict[str, float]] = {}
    own: dict[str, dict[str, dict[str, float]]] = {}
    for each in ceilings:
        place = everybodys if each.tenant is None else own.setdefault(each.tenant, {})
        place.setdefault(each.handler, {})[each.limit] = float(each.value)
    values = {
        "everybodys": Jsonb(everybodys),
        "own": Jsonb(own),
        "per_record": list(per_record),
        "near": NEAR,
        "most": most,
    }
    return [NearMiss(*row) for row in await _rows(connection, _NEAR, days, newest, values)]


async def breaches_of(connection: Connection, days: float, most: int, *, newest: int | None = None) -> list[Breach]:
    """Which limits were crossed in the last ``days`` days, the most frequent first."""
    rows = await _rows(connection, _BREACHES, days, newest, {"most": most}, kind="x.status = 'breached'")
    return [Breach(handler, limit, tenant, n, reason or "", last) for handler, limit, tenant, n, reason, last in rows]


async def _rows(
    connection: Connection,
    statement: str,
    days: float,
    newest: int | None,
    values: Mapping[str, Any] | None = None,
    *,
    kind: str = "x.status <> 'echo'",
) -> list[tuple[Any, ...]]:
    executions = (_ALL if newest is None else _NEWEST).format(kind=kind)
    said = {**(values or {}), "days": days, "newest": newest}
    return await (await connection.execute(statement.replace("{executions}", executions).encode(), said)).fetchall()
