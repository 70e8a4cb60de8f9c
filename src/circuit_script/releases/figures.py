"""How a release did: executions and errors, and what it did to the world."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit_script.db.pool import Connection

EXAMPLES = 3

COUNTS = """
SELECT release, count(*), count(*) FILTER (WHERE status IN ('failed', 'partial', 'breached'))
FROM circuit.executions
WHERE id >= circuit.uuid_floor(%(since)s::timestamptz) AND release = ANY(%(releases)s)
  AND status NOT IN ('held', 'cancelled', 'deferred', 'echo')
GROUP BY release
"""
# Effects are made with their execution, so their ids lie after its release's. What goes outside is a row each; what an
# execution wrote to the built-in CRM is one row, of operations, objects, fields and ids: values stand in the records.
CHANGES = """
WITH made AS (
    SELECT e.* FROM circuit.effects e
    WHERE e.id >= circuit.uuid_floor(%(since)s::timestamptz) AND e.release = %(release)s
), writes AS (
    SELECT m.id, m.connector, m.operation, m.target, coalesce(f.key, '') AS field, m.tenant, m.record, f.value,
           m.execution, m.status
    FROM made m LEFT JOIN LATERAL jsonb_each(
        CASE WHEN jsonb_typeof(m.payload -> 'fields') = 'object' THEN m.payload -> 'fields' ELSE '{}' END
    ) f ON f.key <> 'id'
    WHERE m.connector <> 'local'
    UNION ALL
    SELECT m.id, m.connector, w.kind ->> 0, w.kind ->> 1, coalesce(f.name, ''), m.tenant, r.id, NULL, m.execution,
           m.status
    FROM made m
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN jsonb_typeof(m.payload) = 'array' THEN m.payload ELSE '[]' END) w (kind)
    CROSS JOIN LATERAL jsonb_array_elements_text(w.kind -> 3) r (id)
    LEFT JOIN LATERAL jsonb_array_elements_text(w.kind -> 2) f (name) ON f.name <> 'id'
    WHERE m.connector = 'local'
), counted AS (
    SELECT connector, operation, target, field, count(*) AS n, count(DISTINCT (tenant, record)) AS records,
           (array_agg(jsonb_build_object('tenant', tenant, 'record', record, 'value', value, 'execution', execution)
                      ORDER BY id))[:%(examples)s] AS examples
    FROM writes GROUP BY connector, operation, target, field
), became AS (
    SELECT connector, operation, target, field, jsonb_object_agg(status, n) AS statuses
    FROM (SELECT connector, operation, target, field, status, count(*) AS n FROM writes GROUP BY 1, 2, 3, 4, 5) s
    GROUP BY 1, 2, 3, 4
)
SELECT c.connector, c.operation, c.target, c.field, b.statuses, c.records, ARRAY(
    SELECT x.one || CASE WHEN c.connector <> 'local' THEN '{}' ELSE jsonb_build_object('value', (
        SELECT r.data -> c.field FROM circuit.records r
        WHERE r.tenant = x.one ->> 'tenant' AND r.object = c.target AND r.id = x.one ->> 'record')) END
    FROM unnest(c.examples) WITH ORDINALITY AS x (one, place) ORDER BY x.place)
FROM counted c JOIN became b USING (connector, operation, target, field)
ORDER BY c.n DESC, 1, 2, 3, 4
"""
# The deliveries that its executions handled, as the bounds of a replay: the time stands in their ids.
HANDLED = """
SELECT h.name, count(DISTINCT x.id), min(o.delivery::text), max(o.delivery::text)
FROM circuit.executions x
JOIN circuit.handlers h ON h.id = x.handler
JOIN circuit.outcomes o ON o.execution = x.id
WHERE x.id >= circuit.uuid_floor(%(since)s::timestamptz) AND x.release = %(release)s
GROUP BY h.name ORDER BY h.name
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Executions of a release that ran, and how many of them went wrong: failed, in part or as a whole, or broke a
    limit."""

    executions: int = 0
    errors: int = 0

    @property
    def share(self) -> float:
        """Errors for each execution, 0 where there were none."""
        return self.errors / self.executions if self.executions else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What was written in one field of one kind of record, or sent to one place. ``field`` is empty where a write has
    none; ``statuses`` counts writes by what became of them; ``examples`` have tenant, record, value and execution. Of
    the built-in CRM the value is the one that stands there now."""

    connector: str
    operation: str
    target: str
    field: str
    statuses: Mapping[str, int]
    records: int
    examples: tuple[Mapping[str, Any], ...]

    @property
    def effects(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True, slots=True)
class Handled:
    """What one handler of a release has worked on: the events that came from ``since`` until ``until``."""

    handler: str
    executions: int
    since: datetime
    until: datetime


async def counts_of(connection: Connection, releases: Collection[int], since: datetime) -> dict[int, Counts]:
    """Of what has ended and began after ``since``; a release without any is left out. Raises psycopg.Error."""
    rows = await connection.execute(COUNTS, {"releases": list(releases), "since": since})
    return {release: Counts(executions, errors) for release, executions, errors in await rows.fetchall()}


async def changes_of(connection: Connection, release: int, since: datetime) -> list[Change]:
    """What its effects are that it made after ``since``, most first. Raises psycopg.Error."""
    rows = await connection.execute(CHANGES, {"release": release, "since": since, "examples": EXAMPLES})
    return [
        Change(connector, operation, target, named, statuses, records, tuple(examples))
        for connector, operation, target, named, statuses, records, examples in await rows.fetchall()
    ]


async def handled_by(connection: Connection, release: int, since: datetime) -> list[Handled]:
    """What each of its handlers has worked on since then. Raises psycopg.Error."""
    rows = await connection.execute(HANDLED, {"release": release, "since": since})
    return [
        Handled(name, executions, _moment(first), _moment(last))
        for name, executions, first, last in await rows.fetchall()
    ]


def _moment(identifier: str) -> datetime:
    """When a UUID of version 7 was made."""
    return datetime.fromtimestamp(int(identifier.replace("-", "")[:12], 16) / 1000).astimezone()
