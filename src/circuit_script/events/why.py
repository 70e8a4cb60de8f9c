"""Why an event waits: the pause, retry, quota, earlier event, lane or queue that holds it, and for how long; and why
the effects of its record do.

It is found in the database alone, so that whoever asks need not reach a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection
from circuit_script.effects.waits import WaitingEffect, effects_waiting_of
from circuit_script.execution.outcome import JOB
from circuit_script.tenants.pauses import Pause, read_pauses

SHOWN = 20
RECENT = 600.0  # seconds over which a trigger's rate is measured
DEEPEST = 100_000

_WAITING = f"""
WITH meant AS MATERIALIZED (
    SELECT * FROM circuit.queue q
    WHERE (q.record = %(record)s OR q.id = %(event)s OR q.delivery = %(delivery)s)
      AND (%(tenant)s::text IS NULL OR q.tenant = %(tenant)s)
    ORDER BY q.id, q.handler LIMIT {SHOWN})
SELECT q.id, q.handler, coalesce(h.name, '') AS trigger, q.tenant, q.object, q.event, q.record, q.attempts,
       q.not_before, q.held_until, q.waits_for, q.delivery,
       EXISTS (SELECT 1 FROM circuit.routes r WHERE r.handler = q.handler)
       OR EXISTS (SELECT 1 FROM circuit.replays y WHERE y.id = q.replay AND y.release IS NOT NULL) AS routed,
       coalesce(w.expires_at > now(), false) AS owned,
       EXISTS (SELECT 1 FROM circuit.workers v WHERE v.expires_at > now()) AS worked,
       e.id AS earlier, e.record AS earlier_record, e.attempts AS earlier_attempts, e.not_before AS earlier_at,
       now() AS now
FROM meant q
LEFT JOIN circuit.handlers h ON h.id = q.handler
LEFT JOIN circuit.lanes l ON l.lane = q.lane
LEFT JOIN circuit.workers w ON w.id = l.owner
LEFT JOIN LATERAL (
    SELECT f.id, f.record, f.attempts, f.not_before FROM circuit.queue f
    WHERE f.id < q.id AND f.handler = q.handler AND f.tenant = q.tenant AND f.order_hash = q.order_hash
      AND (f.not_before IS NULL OR f.not_before <= now() OR f.held_until IS NULL OR f.held_until > now())
    ORDER BY f.id LIMIT 1) e ON true
ORDER BY q.id, q.handler
"""
# A job whose moment is far is no event yet.
_DELAYED = """
SELECT j.id::text AS record, j.name AS trigger, j.tenant, j.made_at, j.due_at FROM circuit.delayed_jobs j
WHERE j.id = %(delivery)s AND (%(tenant)s::text IS NULL OR j.tenant = %(tenant)s)
"""
_PLACE = """
SELECT count(*) FILTER (WHERE id <= %s) AS place, count(*) AS of FROM circuit.queue
WHERE handler = %s AND tenant = %s AND (not_before IS NULL OR not_before <= now())
"""
_RATE = """
SELECT coalesce(sum(records), 0)::float8 AS n, extract(epoch FROM now() - min(started_at))::float8 AS seconds
FROM circuit.executions WHERE id >= %s AND handler = %s AND status IN ('succeeded', 'partial', 'failed', 'breached')
"""
_ENDED = f"""
SELECT e.id, coalesce(h.name, '') AS trigger, o.tenant, e.object, e.event, e.record, o.status, o.reason, o.at
FROM circuit.events e JOIN circuit.outcomes o ON o.delivery = e.delivery AND o.ordinal = e.ordinal
LEFT JOIN circuit.handlers h ON h.id = o.handler
WHERE (e.record = %(record)s OR e.id = %(event)s OR e.delivery = %(delivery)s)
  AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
ORDER BY o.at DESC LIMIT {SHOWN}
"""
# For the status page: what waits, in sum. What waits only for its turn counts as in line, also behind its own record.
SUM = f"""
WITH waiting AS MATERIALIZED (
    SELECT handler, tenant, record, lane, attempts, not_before, waits_for FROM circuit.queue
    WHERE id >= (SELECT min(low_water) FROM circuit.lanes) ORDER BY id LIMIT {DEEPEST})
SELECT CASE WHEN EXISTS (SELECT 1 FROM circuit.pauses p LEFT JOIN circuit.handlers h ON h.id = q.handler
                         WHERE (p.tenant IS NULL OR p.tenant = q.tenant OR p.kind = 'tenant')
                           AND (p.kind = 'everything' OR (p.kind = 'trigger' AND p.value = h.name)
                                OR (p.kind = 'tenant' AND p.value = q.tenant)
                                OR (p.kind = 'record' AND p.value = q.record))) THEN 'paused'
            WHEN q.not_before > now() AND q.waits_for IS NOT NULL THEN 'money or quota'
            WHEN q.not_before > now() THEN 'retry'
            WHEN w.expires_at IS NULL OR w.expires_at <= now() THEN 'no worker'
            ELSE 'in line' END AS why, count(*) AS n
FROM waiting q LEFT JOIN circuit.lanes l ON l.lane = q.lane LEFT JOIN circuit.workers w ON w.id = l.owner
GROUP BY 1 ORDER BY 2 DESC, 1
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: a record's id, an event's number, or the id of a delivery or an effect; read from what a
    person typed."""

    record: str
    event: int | None
    delivery: UUID | None

    @classmethod
    def of(cls, said: str) -> Subject:
        digits = said.isascii() and said.isdigit() and len(said) <= 18
        try:
            delivery = UUID(said)
        except ValueError:
            delivery = None
        return cls(said, int(said) if digits else None, delivery)


@dataclass(frozen=True, slots=True)
class Why:
    """Why one event waits for one trigger.

    ``kind`` is paused, no worker, unowned, no handler, deferred, retry, behind, quota or line; ``words`` say it. It is
    delayed for a job whose moment is to come: that is no event yet, and its number is 0.
    ``until`` is when that ends, where it is known. Who is in line has a ``place`` ``of`` so many that its tenant has
    waiting for this trigger, and ``seconds`` is how long that takes at the trigger's recent rate; None without one.
    """

    event: int
    trigger: str
    tenant: str
    object: str
    name: str
    record: str
    received_at: datetime
    attempts: int
    kind: str
    words: str
    until: datetime | None = None
    place: int | None = None
    of: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What waits, the oldest first; what became lately of the rest; and the effects that wait to be delivered."""

    waiting: list[Why]
    ended: list[dict[str, Any]] = field(default_factory=list)
    effects: list[WaitingEffect] = field(default_factory=list)


async def why(
    connection: Connection, said: str, *, tenant: str | None = None, used_up: Mapping[str, datetime] | None = None
) -> Answer:
    """Why the event, or the events and effects of the record, wait. ``used_up`` are tenants whose quota of executions
    is, and until when: what a tier allows stands in circuit.toml. Raises psycopg.Error."""
    subject = Subject.of(said)
    meant = {"record": subject.record, "event": subject.event, "delivery": subject.delivery, "tenant": tenant}
    rows = await _rows(connection, _WAITING, meant)
    pauses = await read_pauses(connection)
    found = []
    for row in rows:
        kind, words, until = _held(row, pauses, used_up or {})
        (line,) = await _rows(connection, _PLACE, [row["id"], row["handler"], row["tenant"]])
        seconds = await _estimate(connection, row, line["place"]) if kind == "line" else None
        placed = kind in ("line", "quota", "paused", "no worker", "unowned")
        found.append(
            Why(
                row["id"], row["trigger"], row["tenant"], row["object"], row["event"], row["record"],
                time_of(row["delivery"]), row["attempts"], kind, words, until,
                line["place"] if placed else None, line["of"] if placed else None, seconds,
            )
        )  # fmt: skip
    found += [_delayed(row, pauses) for row in await _rows(connection, _DELAYED, meant)]
    effects = await effects_waiting_of(connection, subject.record, id_=subject.delivery, tenant=tenant)
    return Answer(found, await _rows(connection, _ENDED, meant), effects)


def _delayed(row: Mapping[str, Any], pauses: Sequence[Pause]) -> Why:
    words = "its moment has not come"
    if (pause := _paused(pauses, row, row["record"])) is not None:
        words += f", and then it is paused: {_said(pause)}"
    return Why(
        0, row["trigger"], row["tenant"], JOB, row["trigger"], row["record"], row["made_at"], 0, "delayed", words,
        row["due_at"],
    )  # fmt: skip


def _held(
    row: Mapping[str, Any], pauses: Sequence[Pause], used_up: Mapping[str, datetime]
) -> tuple[str, str, datetime | None]:
    """What holds it: kind, words, until when."""
    if (pause := _paused(pauses, row, row["record"])) is not None:
        return "paused", _said(pause), None
    if not row["worked"]:
        return "no worker", "no worker runs: start one with circuit-script serve or dev", None
    if not row["owned"]:
        return "unowned", "no worker has its lane yet: the one that had it is gone; another takes it in seconds", None
    if not row["routed"]:
        return "no handler", "the live release has no such handler: it becomes a dead letter at its turn", None
    if row["not_before"] is not None and row["not_before"] > row["now"]:
        if row["waits_for"] is not None:
            return "deferred", f"it waits for money or a quota: {row['waits_for']}", row["not_before"]
        return "retry", f"attempt {row['attempts'] + 1} comes when its delay is over", row["not_before"]
    if row["earlier"] is not None:
        return _behind(row, pauses)
    if row["tenant"] in used_up:
        return "quota", f"the quota of tenant {row['tenant']} is used up", used_up[row["tenant"]]
    return "line", "it is in line for a child, or runs just now", None


def _behind(row: Mapping[str, Any], pauses: Sequence[Pause]) -> tuple[str, str, datetime | None]:
    """Events of one order key run one after the other."""
    whose = "the same record" if row["earlier_record"] == row["record"] else row["earlier_record"]
    first = f"event {row['earlier']} of {whose}"
    if (pause := _paused(pauses, row, row["earlier_record"])) is not None:
        return "behind", f"{first} comes first, and is paused: {_said(pause)}", None
    if row["earlier_at"] is not None and row["earlier_at"] > row["now"]:
        tried = f"is held for its attempt {row['earlier_attempts'] + 1}"
        return "behind", f"{first} comes first, and {tried}", row["earlier_at"]
    return "behind", f"{first} comes first", None


def _paused(pauses: Iterable[Pause], row: Mapping[str, Any], record: str) -> Pause | None:
    for pause in pauses:
        match pause.kind:
            case "everything":
                return pause
            case "tenant" if pause.value == row["tenant"]:
                return pause
            case "trigger" if pause.value == row["trigger"] and pause.tenant in (None, row["tenant"]):
                return pause
            case "record" if pause.value == record and pause.tenant in (None, row["tenant"]):
                return pause
    return None


def _said(pause: Pause) -> str:
    reason = f": {pause.reason}" if pause.reason else ""
    return f"{pause.by} paused {pause.shown} at {pause.at.astimezone():%m-%d %H:%M}{reason}"


async def _estimate(connection: Connection, row: Mapping[str, Any], place: int) -> float | None:
    """Seconds until its turn, at the rate of its trigger in the last minutes."""
    since = datetime.now(UTC) - timedelta(seconds=RECENT)
    (recent,) = await _rows(connection, _RATE, [_floor(since), row["handler"]])
    if not recent["n"]:
        return None
    return float(place) * max(1.0, float(recent["seconds"])) / float(recent["n"])


async def _rows(connection: Connection, statement: str, values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


def _floor(moment: datetime) -> UUID:
    """The least version 7 UUID of that moment."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
