"""An edited retry: what a person changed goes on the road, what came stays as it came.

Of an event it is a new delivery of the source `circuit` that names the original, for the handler that gave up. An
effect keeps its id, and so its idempotency key, its order, and what refers to it; the letter keeps the old payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.effects.doubt import send_again
from circuit_script.errors import LetterRefused
from circuit_script.events.intake import order_hash
from circuit_script.events.letters.close import Held, close, hold, must_be_live, must_have_been_done, pay_nothing_twice
from circuit_script.events.letters.letter import Letter, rows
from circuit_script.events.letters.payload import ORIGINAL
from circuit_script.events.sources.circuit import Circuit
from circuit_script.events.sources.source import order_key
from circuit_script.execution.outcome import JOB

# The order of event ids is that of their commits: intake has the same lock, and must not wait for who stands still.
_LOCK = """
SELECT set_config('idle_in_transaction_session_timeout', '5000', true), pg_advisory_xact_lock(7207418001)
"""
_DELIVERY = """
INSERT INTO circuit.deliveries (id, source, account, tenant, headers, body)
VALUES (%(delivery)s, %(source)s, %(tenant)s, %(tenant)s, %(headers)s, %(body)s)
"""
_EVENT = """
WITH kept AS (
    INSERT INTO circuit.events (delivery, ordinal, id, tenant, object, event, record, order_key, handled)
    VALUES (%(delivery)s, 0, nextval('circuit.event_ids'), %(tenant)s, %(object)s, %(event)s, %(record)s, %(key)s, 1)
    RETURNING id
)
INSERT INTO circuit.queue (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event, record, depth)
SELECT %(lane)s, kept.id, %(handler)s, 0, %(order)s, %(delivery)s, %(tenant)s, %(object)s, %(event)s, %(record)s,
       greatest(0, coalesce((SELECT (x.usage ->> 'depth')::float8 FROM circuit.executions x WHERE x.id = %(execution)s),
                            1) - 1)
FROM kept RETURNING id
"""
_OF_EVENT = """
SELECT object, event FROM circuit.events WHERE delivery = %(delivery)s AND ordinal = %(ordinal)s
"""
_WAKE = """
SELECT pg_notify('circuit_queue', '') WHERE EXISTS (
    SELECT FROM circuit.workers w WHERE w.asleep AND w.expires_at > now())
"""
_PAYLOAD = "SELECT payload FROM circuit.effects WHERE id = %(effect)s AND status = 'dead' FOR UPDATE"


NO_OBJECT = 'A payload is a JSON object, like {"id": "c1"}.'


@dataclass(frozen=True, slots=True)
class Edited:
    """What goes on the road: a ``delivery`` with its event ``again``, or the ``effect``."""

    letter: int
    delivery: UUID | None = None
    again: int | None = None
    effect: UUID | None = None


def parsed(text: str) -> dict[str, Any]:
    """The payload that a person wrote: a JSON object. Raises LetterRefused with the place of the fault."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        msgspec.json.encode(value)
    except (ValueError, RecursionError) as error:
        raise LetterRefused(f"That is not JSON: {error}.", cure=NO_OBJECT) from None
    if not isinstance(value, dict):
        raise LetterRefused(f"That is a {type(value).__name__}.", cure=NO_OBJECT)
    return value


def must_have_place(letter: Letter, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """What a person gives a job is an argument: beside them nobody would read it. Raises LetterRefused."""
    new = sorted(after.keys() - before.keys() - {"id", "arguments", "job"})
    if letter.object == JOB and new:
        raise LetterRefused(
            f"A job has no {new[0]!r}: what it is given stands in its arguments.",
            cure=f"circuit-script dead edit {letter.id} --set arguments.{new[0]}=…",
        )


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


async def send_edited(
    connection: Connection, letter: int, fields: Mapping[str, Any], by: str, *, tenant: str | None = None
) -> Edited:
    """Retry a letter with these fields in the place of its own. Raises LetterRefused when it is closed, when its
    handler is gone, when the fields are those of another record, or no JSON that can be stored."""
    _must_be_json(fields)
    async with connection.transaction():
        (held,) = await hold(connection, [letter], tenant)
        if before := held.before("retried"):
            must_have_been_done(before)
        send = _send_event if held.kind == "event" else _send_effect
        return await send(connection, held, fields, by)


def _must_be_json(fields: Mapping[str, Any]) -> None:
    """Infinity would become null, and jsonb has no NUL."""
    try:
        json.dumps(fields, allow_nan=False)
        encoded = msgspec.json.encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise LetterRefused(f"That is no JSON: {error}.") from None
    if b"\\u0000" in encoded:
        raise LetterRefused("The payload holds a NUL character (\\u0000).", cure="Take it out.")


async def _send_event(connection: Connection, held: Held, fields: Mapping[str, Any], by: str) -> Edited:
    for refused in (await must_be_live(connection, [held])).values():
        must_have_been_done(refused)
    kind = await _kind(connection, held)
    record = held.record or ""
    if str(fields.get("id", record)) != record:
        raise LetterRefused(
            f"The letter is about the record {record!r}, the payload about {fields['id']!r}.",
            cure="Leave its id as it is.",
        )
    edited, body = uuid7(), {**fields, "id": record}
    key = order_key(kind[0], record, body)
    hashed = order_hash(held.tenant, key)
    values = {
        "delivery": edited,
        "source": Circuit.name,
        "tenant": held.tenant,
        "headers": Jsonb({ORIGINAL: str(held.delivery), "circuit-letter": str(held.id), "circuit-by": by}),
        "body": msgspec.json.encode({"type": ".".join(kind), "data": body}),
        "object": kind[0],
        "event": kind[1],
        "record": record,
        "key": key,
        "order": hashed,
        "lane": hashed % 64,
        "handler": held.handler,
        "execution": held.execution,
    }
    await connection.execute(_LOCK)
    await connection.execute(_DELIVERY, values)
    row = await (await connection.execute(_EVENT, values)).fetchone()
    assert row is not None  # an insert of one row
    again = int(row[0])
    await pay_nothing_twice(connection, [held], [again])
    await close(connection, [held.id], "retried", by, agains=[again], edited=edited)
    await connection.execute(_WAKE)
    return Edited(held.id, delivery=edited, again=again)


async def _kind(connection: Connection, held: Held) -> tuple[str, str]:
    """Object and event of the letter."""
    if held.object and held.event:
        return held.object, held.event
    found = await rows(connection, _OF_EVENT, {"delivery": held.delivery, "ordinal": held.ordinal})
    if not found:
        raise LetterRefused(
            "Nobody knows any more what event it was about: its delivery is no longer in the ledger.",
            cure=f"Send the record again, and discard the letter: circuit-script dead discard {held.id}",
        )
    return found[0]["object"], found[0]["event"]


async def _send_effect(connection: Connection, held: Held, fields: Mapping[str, Any], by: str) -> Edited:
    was = await rows(connection, _PAYLOAD, {"effect": held.effect})
    if not was or held.effect is None:
        raise LetterRefused(
            f"The effect of letter {held.id} is not dead.", cure=f"Look: circuit-script dead show {held.id}"
        )
    await send_again(connection, [held.effect], by=by, payload=dict(fields))
    await close(connection, [held.id], "retried", by, was=Jsonb(was[0]["payload"]))
    return Edited(held.id, effect=held.effect)
