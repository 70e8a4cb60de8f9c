"""One execution: its events, what became of each, its limits, its effects and its model calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection
from circuit_script.events.letters.payload import read
from circuit_script.governor import Limits

SOON = timedelta(hours=1)  # within which most deliveries are handled
EVER = datetime(1970, 1, 1, tzinfo=UTC)
MOST = 200  # events, effects and model calls that are told
NANO = Decimal(10) ** -9

_EXECUTION = """
SELECT x.id, coalesce(h.name, x.handler::text) AS handler, x.object, x.event, x.records, x.status, x.reason, x.detail,
       x.started_at, x.ended_at, x.release, x.usage, x.tenant,
       (SELECT each -> 'limits'
        FROM jsonb_array_elements(CASE jsonb_typeof(r.manifest) WHEN 'array' THEN r.manifest END) each
        WHERE each ->> 'name' = h.name LIMIT 1) AS limits
FROM circuit.executions x
LEFT JOIN circuit.handlers h ON h.id = x.handler
LEFT JOIN circuit.releases r ON r.id = x.release
WHERE x.id = %(id)s
"""
# What it settled came before its end, mostly not long before its beginning.
_EVENTS = f"""
SELECT o.delivery, o.ordinal, o.status, o.reason, e.id AS number, e.object, e.event, e.record
FROM circuit.outcomes o LEFT JOIN circuit.events e ON e.delivery = o.delivery AND e.ordinal = o.ordinal
WHERE o.execution = %(id)s AND o.delivery <= circuit.uuid_floor(%(ended)s::timestamptz + interval '1 minute')
  AND o.delivery >= circuit.uuid_floor(%(since)s::timestamptz)
ORDER BY (o.status = 'succeeded'), o.delivery, o.ordinal LIMIT {MOST}
"""
_EFFECTS = f"""
SELECT id, connector, operation, target, record, status, attempts, next_at, left(reason, 1000) AS reason, settled_at
FROM circuit.effects WHERE execution = %(id)s ORDER BY seq LIMIT {MOST}
"""
_CALLS = f"""
SELECT id, provider, coalesce(answered, model) AS model, tokens_in, tokens_out, cost, status, at, record
FROM circuit.llm_calls WHERE execution = %(id)s ORDER BY at LIMIT {MOST}
"""
_PAYLOAD = "SELECT source, body, headers, received_at FROM circuit.deliveries WHERE id = %s"
_EFFECT_PAYLOADS = "SELECT id, payload FROM circuit.effects WHERE execution = %s ORDER BY seq LIMIT 20"


@dataclass(frozen=True, slots=True)
class EventSeen:
    """An event that it handled and what became of it; ``record`` is None where retention has dropped the event."""

    delivery: UUID
    ordinal: int
    status: str
    reason: str | None
    number: int | None
    object: str | None
    event: str | None
    record: str | None


@dataclass(frozen=True, slots=True)
class EffectSeen:
    """A write that it asked for."""

    id: UUID
    connector: str
    operation: str
    target: str
    record: str | None
    status: str
    attempts: int
    next_at: datetime
    reason: str | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call of a model, and what it cost in US dollars."""

    id: UUID
    provider: str
    model: str
    tokens_in: int | None
    tokens_out: int | None
    cost: Decimal | None
    status: str
    at: datetime
    record: str | None


@dataclass(frozen=True, slots=True)
class ExecutionStory:
    """All that is stored of an execution but its payloads, log and trace. ``used`` maps a limit to what was used of it
    and its ceiling, which is of the whole batch where it grows with it."""

    id: UUID
    tenant: str
    handler: str
    object: str
    event: str
    records: int
    status: str
    reason: str | None
    detail: str | None
    started_at: datetime
    ended_at: datetime
    release: int
    used: Mapping[str, tuple[float, float | None]]
    events: list[EventSeen]
    effects: list[EffectSeen]
    calls: list[ModelCall]


async def read_execution(connection: Connection, id_: UUID) -> ExecutionStory | None:
    """The execution, within ``tenant_reading``; None where there is none, or it is another tenant's."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(_EXECUTION, {"id": id_})).fetchone()
        if row is None:
            return None
        values = {"id": id_, "ended": row["ended_at"]}
        for since in (row["started_at"] - SOON, EVER):
            found = await (await cursor.execute(_EVENTS, {**values, "since": since})).fetchall()
            if len(found) >= min(row["records"], MOST):
                break
        events = [EventSeen(**each) for each in found]
        effects = [EffectSeen(**each) for each in await (await cursor.execute(_EFFECTS, values)).fetchall()]
        calls = [ModelCall(**_priced(each)) for each in await (await cursor.execute(_CALLS, values)).fetchall()]
    used = _used(row.pop("usage") or {}, row.pop("limits") or {}, row["records"] or 1)
    return ExecutionStory(**row, used=used, events=events, effects=effects, calls=calls)


async def payload_of_event(connection: Connection, delivery: UUID, ordinal: int) -> tuple[object, str]:
    """The record as its delivery brought it, within ``tenant_reading``, and "", or why it cannot be told. What is no
    record any more is shown as the body that came."""
    row = await (await connection.execute(_PAYLOAD, [delivery])).fetchone()
    if row is None:
        return None, "Its delivery is no longer in the ledger."
    body = bytes(row[1])
    fields, fault = read(row[0], body, ordinal)
    if fields is not None:
        return fields, ""
    return (body or None), f"{fault[:1].upper()}{fault[1:]}."


async def effect_payloads(connection: Connection, id_: UUID) -> dict[UUID, Any]:
    """What the first of its effects were to write, within ``tenant_reading``."""
    return dict(await (await connection.execute(_EFFECT_PAYLOADS, [id_])).fetchall())


def _priced(row: dict[str, Any]) -> dict[str, Any]:
    cost = row["cost"]
    return {**row, "cost": None if cost is None else Decimal(cost) * NANO}


def _used(usage: Mapping[str, float], named: Mapping[str, Any], records: int) -> dict[str, tuple[float, float | None]]:
    known = {name: value for name, value in named.items() if name in Limits.__dataclass_fields__}
    ceilings = Limits(**known).of_batch(records) if named else {}
    return {name: (used, ceilings.get(name)) for name, used in usage.items() if used}
