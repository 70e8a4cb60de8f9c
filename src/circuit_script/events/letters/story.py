"""Everything that is known of one dead letter: what it was about, every attempt, and what its executions said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.events.letters.letter import Letter, reading, rows
from circuit_script.events.letters.payload import Payload, payload_of
from circuit_script.governor import Limits

MOST = 100  # log lines that are told, the latest

# All that the event went through for its handler, also after it was put on the road again.
_OF_EVENT = """
SELECT o.at, o.execution, o.status, o.reason, x.detail, x.usage, x.records, x.release, r.manifest,
       coalesce(h.name, '') AS handler
FROM circuit.outcomes o
LEFT JOIN circuit.executions x ON x.id = o.execution
LEFT JOIN circuit.releases r ON r.id = x.release
LEFT JOIN circuit.handlers h ON h.id = o.handler
WHERE o.delivery = ANY(%(deliveries)s::uuid[]) AND o.ordinal = %(ordinal)s AND o.handler = %(handler)s
ORDER BY o.at, o.execution
"""
# Of an effect: the execution that asked for it.
_OF_EFFECT = """
SELECT x.ended_at AS at, x.id AS execution, x.status, x.reason, x.detail, x.usage, x.records, x.release, r.manifest,
       coalesce(h.name, '') AS handler
FROM circuit.executions x
LEFT JOIN circuit.releases r ON r.id = x.release
LEFT JOIN circuit.handlers h ON h.id = x.handler
WHERE x.id = %(execution)s
"""
_HANDLER = "SELECT handler FROM circuit.dead_letters WHERE id = %(id)s"
_LINES = f"""
SELECT * FROM (
    SELECT at, level, message, context, execution, record FROM circuit.circuit_logs
    WHERE execution = ANY(%(executions)s::uuid[]) AND (record = %(record)s OR record IS NULL)
    ORDER BY at DESC LIMIT {MOST}
) latest ORDER BY at
"""
_WAITS = "SELECT attempts, not_before FROM circuit.queue WHERE id = %(again)s AND handler = %(handler)s"
_ENDED = """
SELECT o.status, o.at FROM circuit.outcomes o
WHERE o.delivery = %(delivery)s AND o.ordinal = %(ordinal)s AND o.handler = %(handler)s AND o.at >= %(closed_at)s
ORDER BY o.at DESC LIMIT 1
"""
_EFFECT = "SELECT status FROM circuit.effects WHERE id = %(effect)s"
# The letter that a retry ended in, if it died again.
_NEXT = """
SELECT id FROM circuit.dead_letters
WHERE id > %(id)s AND ((kind = 'event' AND event_id = %(again)s AND delivery = %(delivery)s AND handler = %(handler)s)
                       OR (kind = 'effect' AND effect = %(effect)s))
ORDER BY id LIMIT 1
"""
_ANSWERS = (
    "SELECT at, attempt, status, said FROM circuit.effect_answers WHERE effect = %(effect)s ORDER BY at LIMIT 100"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution. ``used`` maps a limit to (what was used, its ceiling); those of batches are of the whole batch."""

    at: datetime
    execution: UUID
    handler: str
    status: str
    reason: str | None
    detail: str | None
    records: int
    release: int | None
    used: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log of one of these executions."""

    at: datetime
    level: str
    message: str
    context: Mapping[str, Any] | None
    execution: UUID
    record: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the vendor said to one attempt to deliver an effect, and what the effect was then: pending, delivered, dead,
    in doubt."""

    at: datetime
    attempt: int
    status: str
    said: str


@dataclass(frozen=True, slots=True)
class Story:
    """``now`` says where it stands: in the queue, on its way to the vendor, or how the latest attempt ended."""

    letter: Letter
    payload: Payload
    attempts: Sequence[Attempt]
    lines: Sequence[Line]
    answers: Sequence[Answer] = ()
    now: str = ""


async def story_of(connection: Connection, letter: Letter, tenant: str | None = None) -> Story:
    """All of it, in one transaction; with ``tenant`` as that tenant may read it."""
    async with reading(connection, tenant):
        payload = await payload_of(connection, letter)
        found = await rows(connection, _HANDLER, {"id": letter.id})
        handler = found[0]["handler"] if found else None
        attempts = await _attempts(connection, letter, handler)
        lines = await lines_of(connection, [each.execution for each in attempts], letter.record)
        answers = await answers_of(connection, letter.effect) if letter.effect else []
        now = await _now(connection, letter, handler)
    return Story(letter, payload, attempts, lines, answers, now)


async def lines_of(connection: Connection, executions: Sequence[UUID], record: str | None) -> list[Line]:
    """What these executions logged about the record, or about none, the latest MOST."""
    values = {"executions": list(executions), "record": record}
    return [Line(**row) for row in await rows(connection, _LINES, values)]


async def answers_of(connection: Connection, effect: UUID) -> list[Answer]:
    """What the vendor said, attempt by attempt; nothing where the first one was delivered."""
    return [Answer(**row) for row in await rows(connection, _ANSWERS, {"effect": effect})]


async def of_execution(connection: Connection, execution: UUID | None) -> list[Attempt]:
    """The execution that asked for an effect; none when retention has dropped it."""
    return [_attempt(row) for row in await rows(connection, _OF_EFFECT, {"execution": execution})]


async def _attempts(connection: Connection, letter: Letter, handler: int | None) -> list[Attempt]:
    if letter.kind == "effect":
        return await of_execution(connection, letter.execution)
    deliveries = [each for each in (letter.delivery, letter.edited) if each]
    values = {"deliveries": deliveries, "ordinal": letter.ordinal, "handler": handler}
    return [_attempt(row) for row in await rows(connection, _OF_EVENT, values)]


def _attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(
        at=row["at"],
        execution=row["execution"],
        handler=row["handler"],
        status=row["status"],
        reason=row["reason"],
        detail=row["detail"],
        records=row["records"] or 0,
        release=row["release"],
        used=_used(row["usage"] or {}, row["manifest"] or [], row["handler"], row["records"] or 1),
    )


def _used(
    usage: Mapping[str, float], manifest: Sequence[Mapping[str, Any]], handler: str, records: int
) -> dict[str, tuple[float, float | None]]:
    """What was used of each limit, with its ceiling by the release that ran; what was not used is left out."""
    named = next((each.get("limits") or {} for each in manifest if each.get("name") == handler), {})
    known = {name: value for name, value in named.items() if name in Limits.__dataclass_fields__}
    ceilings = Limits(**known).of_batch(records) if manifest else {}
    return {name: (used, ceilings.get(name)) for name, used in usage.items() if used}


async def _now(connection: Connection, letter: Letter, handler: int | None) -> str:
    """Where it stands, if it was retried; of an effect, always."""
    sent = letter.edited or letter.delivery
    values = {
        "id": letter.id,
        "again": letter.again,
        "delivery": sent,
        "ordinal": 0 if letter.edited else letter.ordinal,
        "handler": handler,
        "effect": letter.effect,
        "closed_at": letter.closed_at,
    }
    if letter.status == "retried":
        for row in await rows(connection, _NEXT, values):
            return f"it died again: letter {row['id']}"
    if letter.kind == "effect":
        for row in await rows(connection, _EFFECT, values):
            return f"the effect is {row['status'].replace('_', ' ')}"
        return ""
    for row in await rows(connection, _WAITS, values):
        put_off = row["not_before"]
        until = f", the next attempt at {put_off.astimezone():%Y-%m-%d %H:%M:%S}" if put_off else ""
        return f"it waits in the queue as event {letter.again}{until}"
    for row in await rows(connection, _ENDED, values) if letter.again is not None else []:
        return f"{row['status']} at {row['at'].astimezone():%Y-%m-%d %H:%M:%S}"
    return ""
