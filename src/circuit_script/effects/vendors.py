"""How vendors are: what each one took lately, what it refused, who waits for it, and how much of its rates is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from circuit_script.connectors.connector import Rate
from circuit_script.db.pool import Connection

WINDOW = 3600  # seconds that "lately" is
DEEPEST = 100_000  # effects that are counted, at most
LONGEST_WINDOW = 3600.0  # of a rate: nobody counts a day of deliveries for a bar
CIRCUITS = 200

# `tried` are answers other than "delivered at once": what failed, is retried, or came after a failure.
_VENDORS = f"""
WITH took AS (
    SELECT e.connector, count(*) AS delivered, max(e.settled_at) AS last FROM (
        SELECT connector, settled_at FROM circuit.effects
        WHERE status = 'delivered' AND connector <> 'local' AND connector > '' AND settled_at >= now()
              - make_interval(secs => {WINDOW}) AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
        LIMIT {DEEPEST}) e
    GROUP BY 1
), answered AS (
    SELECT e.connector, count(*) FILTER (WHERE a.status <> 'delivered') AS failed,
           max(a.at) FILTER (WHERE a.status <> 'delivered') AS last,
           (array_agg(left(a.said, 500) ORDER BY a.at DESC) FILTER (WHERE a.status <> 'delivered'))[1] AS said
    FROM (SELECT effect, status, at, said FROM circuit.effect_answers
          WHERE at >= now() - make_interval(secs => {WINDOW})
                AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) ORDER BY at DESC LIMIT {DEEPEST}) a
    JOIN circuit.effects e ON e.id = a.effect GROUP BY 1
), doubtful AS (
    SELECT connector, count(*) AS n FROM circuit.effects
    WHERE status = 'in_doubt' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) GROUP BY 1
), waiting AS (
    SELECT connector, count(*) AS n, min(next_at) AS first FROM (
        SELECT connector, next_at FROM circuit.effects
        WHERE status = 'pending' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) LIMIT {DEEPEST}) p
    GROUP BY 1
), dead AS (
    SELECT e.connector, count(*) AS n FROM circuit.dead_letters d JOIN circuit.effects e ON e.id = d.effect
    WHERE d.status = 'open' AND d.kind = 'effect' AND e.status = 'dead'
          AND (%(tenant)s::text IS NULL OR d.tenant = %(tenant)s) GROUP BY 1
), known AS (
    SELECT connector FROM took UNION SELECT connector FROM answered UNION SELECT connector FROM doubtful
    UNION SELECT connector FROM waiting UNION SELECT connector FROM dead UNION SELECT unnest(%(known)s::text[])
)
SELECT k.connector, coalesce(t.delivered, 0) AS delivered, coalesce(a.failed, 0) AS failed,
       coalesce(d.n, 0) AS in_doubt, coalesce(w.n, 0) AS waiting, coalesce(x.n, 0) AS dead,
       t.last AS last_delivered, a.last AS last_failed, coalesce(a.said, '') AS last_said
FROM known k LEFT JOIN took t USING (connector) LEFT JOIN answered a USING (connector)
LEFT JOIN doubtful d USING (connector) LEFT JOIN waiting w USING (connector) LEFT JOIN dead x USING (connector)
ORDER BY 1 LIMIT 200
"""
_CIRCUITS = f"""
SELECT tenant, connector, target, kind, operation, max(until) AS until, max(left(reason, 500)) AS reason,
       count(DISTINCT worker)::integer AS workers
FROM circuit.courier_waits WHERE until > now() AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
GROUP BY 1, 2, 3, 4, 5 ORDER BY kind = 'open' DESC, 6 DESC, 1, 2, 3 LIMIT {CIRCUITS}
"""
# Of each rate, who used most of it. An effect that a vendor did not take used some, too.
_USED = """
WITH said AS (
    SELECT * FROM unnest(%(connectors)s::text[], %(operations)s::text[], %(seconds)s::float8[], %(ofs)s::text[])
        AS s (connector, operation, seconds, by)
), left_ AS (
    SELECT s.connector, s.operation, e.tenant, CASE s.by WHEN 'target' THEN e.target ELSE '' END AS target,
           count(*) AS n
    FROM said s JOIN circuit.effects e
      ON e.connector = s.connector AND e.status = 'delivered' AND e.connector <> 'local'
     AND e.settled_at >= now() - make_interval(secs => s.seconds) AND (s.by = 'connector' OR e.operation = s.operation)
    WHERE %(tenant)s::text IS NULL OR e.tenant = %(tenant)s GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT s.connector, s.operation, e.tenant, CASE s.by WHEN 'target' THEN e.target ELSE '' END, count(*)
    FROM said s JOIN circuit.effect_answers a
      ON a.at >= now() - make_interval(secs => s.seconds) AND a.status <> 'delivered'
    JOIN circuit.effects e
      ON e.id = a.effect AND e.connector = s.connector AND (s.by = 'connector' OR e.operation = s.operation)
    WHERE %(tenant)s::text IS NULL OR e.tenant = %(tenant)s GROUP BY 1, 2, 3, 4
), most AS (
    SELECT DISTINCT ON (connector, operation) connector, operation, tenant, target, sum(n)::bigint AS n
    FROM left_ GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 5 DESC, 3, 4
)
SELECT connector, operation, tenant, target, n FROM most
"""


@dataclass(frozen=True, slots=True)
class Vendor:
    """One connector. ``delivered`` and ``failed`` (tries that it did not take) are those of the last WINDOW seconds;
    ``waiting``, ``in_doubt`` and ``dead`` are effects as they stand now."""

    connector: str
    delivered: int
    failed: int
    in_doubt: int
    waiting: int
    dead: int
    last_delivered: datetime | None
    last_failed: datetime | None
    last_said: str


@dataclass(frozen=True, slots=True)
class Held:
    """Why nothing leaves for a target of a tenant: ``kind`` is open (its circuit), asked (by its vendor) or rate."""

    tenant: str
    connector: str
    target: str
    kind: str
    operation: str
    until: datetime
    reason: str
    workers: int


@dataclass(frozen=True, slots=True)
class Headroom:
    """How much of a rate is used, by the tenant (and target) who used most of it. ``used`` counts effects: those of one
    bulk are one request, so that it is the most that there can have been."""

    connector: str
    operation: str
    rate: Rate
    used: int = 0
    tenant: str = ""
    target: str = ""


async def vendors(connection: Connection, known: Sequence[str], *, tenant: str | None = None) -> list[Vendor]:
    """Every connector that is ``known``, or of which there are effects."""
    async with connection.cursor(row_factory=class_row(Vendor)) as cursor:
        await cursor.execute(_VENDORS.encode(), {"known": list(known), "tenant": tenant})
        return await cursor.fetchall()


async def held_up(connection: Connection, *, tenant: str | None = None) -> list[Held]:
    """Open circuits, what vendors asked for, and rates that are used up, as workers tell of them."""
    async with connection.cursor(row_factory=class_row(Held)) as cursor:
        await cursor.execute(_CIRCUITS.encode(), {"tenant": tenant})
        return await cursor.fetchall()


async def headroom(
    connection: Connection, rates: Mapping[tuple[str, str], Rate], *, tenant: str | None = None
) -> list[Headroom]:
    """How much of each rate is used in its span; one of more than an hour is left out."""
    asked = {key: rate for key, rate in sorted(rates.items()) if rate.seconds <= LONGEST_WINDOW}
    if not asked:
        return []
    values = {
        "connectors": [connector for connector, _ in asked],
        "operations": [operation for _, operation in asked],
        "seconds": [rate.seconds for rate in asked.values()],
        "ofs": [rate.of for rate in asked.values()],
        "tenant": tenant,
    }
    rows = await (await connection.execute(_USED.encode(), values)).fetchall()
    used = {(row[0], row[1]): row[2:] for row in rows}
    return [
        Headroom(*key, rate, used[key][2], used[key][0], used[key][1]) if key in used else Headroom(*key, rate)
        for key, rate in asked.items()
    ]
