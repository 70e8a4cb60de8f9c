"""Why effects wait: what a worker tells of it, and what `status` reads.

Circuits and rates are in a worker's memory. It tells of them in the database, for who looks, when they change and at
most once a second; no worker acts on what another one tells, but for what a vendor asked of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from circuit_script.db.pool import Connection
from circuit_script.effects.gate import Wait
from circuit_script.effects.results import plain
from circuit_script.execution.outcome import JOBS

EVERY = 1.0  # seconds between two tellings, at least
DEEPEST = 20_000  # effects that are looked at, the oldest of them
SHOWN = 15

TELL = """
WITH told AS (
    SELECT * FROM unnest(%(tenants)s::text[], %(connectors)s::text[], %(targets)s::text[], %(kinds)s::text[],
                         %(operations)s::text[], %(seconds)s::float8[], %(reasons)s::text[])
        AS t (tenant, connector, target, kind, operation, seconds, reason)
), over AS (
    DELETE FROM circuit.courier_waits w
    WHERE w.until < now() - interval '1 hour' OR (w.worker = %(worker)s AND NOT EXISTS (
        SELECT 1 FROM told t WHERE t.tenant = w.tenant AND t.connector = w.connector AND t.target = w.target
        AND t.kind = w.kind AND t.operation = w.operation))
)
INSERT INTO circuit.courier_waits (tenant, connector, target, kind, operation, worker, until, reason)
SELECT t.tenant, t.connector, t.target, t.kind, t.operation, %(worker)s, now() + make_interval(secs => t.seconds),
       t.reason
FROM told t ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (tenant, connector, target, kind, operation, worker) DO UPDATE
SET until = excluded.until, reason = excluded.reason
"""

_COLUMNS = """e.id, e.tenant, e.connector, e.operation, e.target, e.record, e.attempts, e.next_at, e.reason, e.needs,
           e.order_hash, e.seq"""
# Of one effect there is one reason, the first that holds: it stands behind another of its record; it uses an id that is
# not made yet; somebody paused it; its vendor asked for time; the circuit is open; its rate is used up; it
# waits for its own next attempt; or it is due.
_TOLD = f"""
told AS (
    SELECT p.id, p.tenant, p.connector, p.operation, p.target, p.record, p.attempts, p.ahead,
           CASE WHEN b.behind THEN 'behind' WHEN p.needs IS NOT NULL THEN 'reference'
                WHEN s.at IS NOT NULL THEN 'paused' WHEN w.kind IS NOT NULL THEN w.kind
                WHEN p.next_at > now() THEN 'retry' ELSE 'due' END AS why,
           CASE WHEN b.behind OR p.needs IS NOT NULL OR s.at IS NOT NULL THEN NULL
                WHEN w.kind IS NOT NULL THEN w.until WHEN p.next_at > now() THEN p.next_at END AS until,
           CASE WHEN b.behind THEN NULL WHEN p.needs IS NOT NULL THEN NULL WHEN s.at IS NOT NULL THEN s.reason
                WHEN w.kind IS NOT NULL THEN w.reason WHEN p.next_at > now() THEN p.reason END AS reason
    FROM placed p CROSS JOIN LATERAL (SELECT p.ahead > 0 AS behind) b
    LEFT JOIN LATERAL (
        SELECT x.at, x.reason FROM circuit.pauses x WHERE (x.tenant IS NULL OR x.tenant = p.tenant)
        AND ((x.kind = 'connector' AND x.value = p.connector) OR (p.connector <> '{JOBS}' AND (
            x.kind = 'everything' OR (x.kind = 'tenant' AND x.value = p.tenant)
            OR (x.kind = 'record' AND x.value = p.record)))) ORDER BY x.at LIMIT 1) s ON true
    LEFT JOIN LATERAL (
        SELECT x.kind, x.until, x.reason FROM circuit.courier_waits x
        WHERE x.tenant = p.tenant AND x.connector = p.connector AND x.target = p.target
        AND x.operation IN ('', p.operation) AND x.until > now()
        ORDER BY x.kind = 'asked' DESC, x.kind = 'open' DESC, x.until LIMIT 1) w ON true
)
"""
READ = f"""
WITH waiting AS MATERIALIZED (
    SELECT {_COLUMNS} FROM circuit.effects e
    WHERE e.status = 'pending' AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
    ORDER BY e.tenant, e.order_hash, e.seq LIMIT {DEEPEST}
), placed AS (
    SELECT w.*, row_number() OVER (PARTITION BY w.tenant, w.order_hash ORDER BY w.seq) - 1 AS ahead FROM waiting w
), {_TOLD}
SELECT t.tenant, t.connector, t.operation, t.target, t.why, count(*)::integer AS n, min(t.until) AS until,
       coalesce(left(max(t.reason), 500), '') AS reason
FROM told t GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5 LIMIT %(limit)s
"""
# Those of one record, those that a delivery led to, or one by its id.
READ_OF = f"""
WITH waiting AS MATERIALIZED (
    SELECT {_COLUMNS} FROM circuit.effects e
    WHERE e.status = 'pending' AND (e.record = %(record)s OR e.id = %(id)s OR (
        e.execution = ANY(ARRAY(SELECT o.execution FROM circuit.outcomes o WHERE o.delivery = %(id)s))
        AND e.record = ANY(ARRAY(SELECT v.record FROM circuit.events v WHERE v.delivery = %(id)s))))
    AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s) ORDER BY e.tenant, e.order_hash, e.seq LIMIT {SHOWN}
), placed AS (
    SELECT w.*, (SELECT count(*) FROM circuit.effects f WHERE f.status = 'pending' AND f.tenant = w.tenant
                 AND f.order_hash = w.order_hash AND f.seq < w.seq) AS ahead FROM waiting w
), {_TOLD}
SELECT t.id, t.tenant, t.connector, t.operation, t.target, t.record, t.attempts, t.ahead, t.why, t.until,
       coalesce(left(t.reason, 500), '') AS reason
FROM told t ORDER BY t.tenant, t.ahead, t.id
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many effects of a tenant, operation and target wait for one reason: the first of them until ``until``.

    ``why`` is behind (another effect of the same record comes first), reference (an id that is not made yet), paused,
    asked (the vendor said 429), open (the circuit), rate, retry, or due.
    """

    tenant: str
    connector: str
    operation: str
    target: str
    why: str
    n: int
    until: datetime | None
    reason: str


async def effects_waiting(connection: Connection, *, tenant: str | None = None, limit: int = SHOWN) -> list[Waiting]:
    """What effects wait and why, the most first; of very many the DEEPEST that come first are looked at."""
    async with connection.cursor(row_factory=class_row(Waiting)) as cursor:
        await cursor.execute(READ.encode(), {"tenant": tenant, "limit": limit})
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class WaitingEffect:
    """One effect that waits. ``why`` is as of `Waiting`; ``ahead`` is how many of its order key leave before it."""

    id: UUID
    tenant: str
    connector: str
    operation: str
    target: str
    record: str | None
    attempts: int
    ahead: int
    why: str
    until: datetime | None
    reason: str


async def effects_waiting_of(
    connection: Connection, record: str, *, id_: UUID | None = None, tenant: str | None = None
) -> list[WaitingEffect]:
    """The effects that wait of a record, of the delivery with that id, or the effect itself, in the order in which they
    leave. Those of a delivery are about its records: others of its batch are not its own."""
    async with connection.cursor(row_factory=class_row(WaitingEffect)) as cursor:
        await cursor.execute(READ_OF.encode(), {"record": record, "id": id_, "tenant": tenant})
        return await cursor.fetchall()


class Teller:
    """Tells the database why effects of one worker wait. ``clock`` is in seconds and only rises."""

    def __init__(self, worker: UUID, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._clock = clock
        self._told: dict[tuple[str, str, str, str, str], float] = {}  # → until when
        self._next = 0.0

    async def tell(self, connection: Connection, waits: Iterable[Wait]) -> None:
        """Say what is new. Nothing is said while all is as it was."""
        now = self._clock()
        if now < self._next:
            return
        found = {(each.tenant, each.connector, each.target, each.kind, each.operation): each for each in waits}
        if found.keys() == self._told.keys() and all(until > now for until in self._told.values()):
            return
        self._next = now + EVERY
        values = {
            "tenants": [each.tenant for each in found.values()],
            "connectors": [each.connector for each in found.values()],
            "targets": [each.target for each in found.values()],
            "kinds": [each.kind for each in found.values()],
            "operations": [each.operation for each in found.values()],
            "seconds": [each.seconds for each in found.values()],
            "reasons": [plain(each.reason) for each in found.values()],
            "worker": self._worker,
        }
        await connection.execute(TELL, values)
        self._told = {key: now + each.seconds for key, each in found.items()}
