"""Everything that ever happened to a record: what came, what became of it, what was written, what died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection

FOUND = 20

# One page of its events, the newest first, with whatever became of each.
_EVENTS = """
SELECT e.delivery, e.ordinal, e.id, e.event, e.handled, d.source, d.account, d.received_at,
       octet_length(d.body) AS bytes
FROM (SELECT delivery, ordinal, id, event, handled FROM circuit.events
      WHERE record = %(record)s AND object = %(object)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
      ORDER BY id DESC LIMIT %(limit)s) e
LEFT JOIN circuit.deliveries d ON d.id = e.delivery
ORDER BY e.id DESC
"""
_OUTCOMES = """
SELECT o.delivery, o.ordinal, o.status, left(o.reason, 500) AS reason, o.at, o.execution,
       coalesce(h.name, o.handler::text) AS handler
FROM circuit.outcomes o LEFT JOIN circuit.handlers h ON h.id = o.handler
WHERE (o.delivery, o.ordinal) IN (SELECT * FROM unnest(%(deliveries)s::uuid[], %(ordinals)s::smallint[]))
ORDER BY o.at DESC
"""
# Of a write for a whole batch only what it holds says whether it is about the record.
_EFFECTS = """
SELECT id, connector, operation, target, status, attempts, left(reason, 500) AS reason, settled_at, execution, next_at
FROM circuit.effects WHERE execution = ANY(%(executions)s::uuid[])
  AND (record = %(record)s OR (record IS NULL AND jsonb_path_exists(
      payload, '$.** ? (@ == $record)', jsonb_build_object('record', %(record)s::text), true)))
ORDER BY seq DESC LIMIT 500
"""
_WAITING = """
SELECT q.id, q.attempts, q.not_before, q.waits_for, q.delivery, q.ordinal, coalesce(h.name, '') AS handler
FROM circuit.queue q LEFT JOIN circuit.handlers h ON h.id = q.handler
WHERE q.id = ANY(%(numbers)s::bigint[])
"""
_LETTERS = """
SELECT d.id, d.kind, d.attempts, left(d.reason, 500) AS reason, d.at, d.status, d.by, d.closed_at,
       left(d.why, 500) AS why
FROM circuit.dead_letters d WHERE d.record = %(record)s AND (d.object IS NULL OR d.object = %(object)s)
ORDER BY d.id DESC LIMIT 100
"""
_STATE = """
SELECT data, deleted, created_at, updated_at FROM circuit.records WHERE object = %(object)s AND id = %(record)s
"""
_FIND = f"""
SELECT object, max(id) AS last FROM (
    SELECT object, id FROM circuit.events WHERE record = %(record)s ORDER BY id DESC LIMIT 500) e
GROUP BY 1 ORDER BY 2 DESC LIMIT {FOUND}
"""
_STORED = "SELECT object FROM circuit.records WHERE object = ANY(%(objects)s) AND id = %(record)s"
_LATEST = """
SELECT DISTINCT ON (e.object, e.record) e.object, e.record, e.id, o.status, o.at
FROM (SELECT id FROM circuit.executions ORDER BY id DESC LIMIT 40) x
JOIN circuit.outcomes o ON o.execution = x.id
JOIN circuit.events e ON e.delivery = o.delivery AND e.ordinal = o.ordinal
WHERE o.delivery >= (SELECT circuit.uuid_floor(min(started_at) - interval '1 hour') FROM (
    SELECT started_at FROM circuit.executions ORDER BY id DESC LIMIT 40) s)
ORDER BY e.object, e.record, o.at DESC
"""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One thing that happened. ``kind`` is event, outcome, effect, waiting, letter or closed; ``more`` is what else is
    known of it, by name."""

    at: datetime
    kind: str
    title: str
    status: str = ""
    reason: str | None = None
    execution: UUID | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordStory:
    """The newest chapters first; ``older`` begins the next page. ``data`` is the record as the platform last saw it,
    None where it never did."""

    object: str
    record: str
    chapters: list[Chapter]
    older: int | None
    data: Mapping[str, Any] | None = None
    deleted: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordFound:
    """A record of a list, and how its latest event ended."""

    object: str
    record: str
    status: str = ""
    at: datetime | None = None


async def story_of_record(
    connection: Connection, object_: str, record: str, *, before: int | None = None, limit: int = 40
) -> RecordStory | None:
    """What happened to it, within ``tenant_reading``; None where nothing is known of it."""
    values: dict[str, Any] = {"object": object_, "record": record, "before": before, "limit": limit + 1}
    events = await _rows(connection, _EVENTS, values)
    more, events = len(events) > limit, events[:limit]
    state = next(iter(await _rows(connection, _STATE, values)), None)
    if not events and state is None and before is None:
        return None
    chapters = [_arrived(row) for row in events]
    outcomes = await _rows(
        connection,
        _OUTCOMES,
        {"deliveries": [e["delivery"] for e in events], "ordinals": [e["ordinal"] for e in events]},
    )
    chapters += [_became(row) for row in outcomes]
    executions = list({row["execution"] for row in outcomes})
    effects = await _rows(connection, _EFFECTS, {"executions": executions, "record": record})
    ended = {row["execution"]: row["at"] for row in outcomes}
    chapters += [_written(row, ended[row["execution"]]) for row in effects]
    chapters += [_waits(row) for row in await _rows(connection, _WAITING, {"numbers": [e["id"] for e in events]})]
    oldest = min((each.at for each in chapters), default=None)
    newest = max((each.at for each in chapters), default=None) if before is not None else None
    for row in await _rows(connection, _LETTERS, values):
        chapters += [each for each in _died(row) if _within(each.at, oldest if more else None, newest)]
    chapters.sort(key=lambda each: (each.at, each.kind != "event"), reverse=True)
    story = RecordStory(object_, record, chapters, events[-1]["id"] if more else None)
    if state is None:
        return story
    return RecordStory(object_, record, chapters, story.older, **state)


def _within(at: datetime, oldest: datetime | None, newest: datetime | None) -> bool:
    return (oldest is None or at >= oldest) and (newest is None or at <= newest)


def _arrived(row: Mapping[str, Any]) -> Chapter:
    at = row["received_at"] or time_of(row["delivery"])
    more = {key: row[key] for key in ("source", "account", "bytes", "delivery", "ordinal", "handled")}
    return Chapter(at, "event", row["event"], "" if row["handled"] else "unrouted", more={**more, "number": row["id"]})


def _became(row: Mapping[str, Any]) -> Chapter:
    return Chapter(row["at"], "outcome", row["handler"], row["status"], row["reason"], row["execution"])


def _written(row: Mapping[str, Any], ended: datetime) -> Chapter:
    more = {key: row[key] for key in ("connector", "target", "attempts", "id")}
    title = f"{row['operation']} {row['target']}".strip()
    return Chapter(row["settled_at"] or ended, "effect", title, row["status"], row["reason"], row["execution"], more)


def _waits(row: Mapping[str, Any]) -> Chapter:
    at = row["not_before"] or time_of(row["delivery"])
    more = {"attempts": row["attempts"], "not_before": row["not_before"], "number": row["id"]}
    return Chapter(at, "waiting", row["handler"], "waiting", row["waits_for"] or None, more=more)


def _died(row: Mapping[str, Any]) -> list[Chapter]:
    more = {"letter": row["id"], "attempts": row["attempts"], "status": row["status"]}
    found = [Chapter(row["at"], "letter", f"Dead letter {row['id']}", "dead", row["reason"], more=more)]
    if row["closed_at"] is not None:
        title = f"{row['by']} {row['status']} it"
        found.append(Chapter(row["closed_at"], "closed", title, "", row["why"], more=more))
    return found


async def find_records(connection: Connection, record: str, objects: Iterable[str] = ()) -> list[RecordFound]:
    """Records of that very id, of whatever object, within ``tenant_reading``; those that no event is about are
    looked for among ``objects``."""
    found = [row["object"] for row in await _rows(connection, _FIND, {"record": record})]
    stored = await _rows(connection, _STORED, {"record": record, "objects": sorted({"Contact", *found, *objects})})
    found += [row["object"] for row in stored if row["object"] not in found]
    return [RecordFound(object_, record) for object_ in found]


async def latest_records(connection: Connection, limit: int = 30) -> list[RecordFound]:
    """Those that were handled last, within ``tenant_reading``."""
    rows = sorted(await _rows(connection, _LATEST, {}), key=lambda row: row["at"], reverse=True)
    return [RecordFound(row["object"], row["record"], row["status"], row["at"]) for row in rows[:limit]]


async def _rows(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()
