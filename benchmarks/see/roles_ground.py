"""What two tenants have, one of each: for who tries to get at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection

TENANTS = ("acme", "globex")

_RELEASE = """
WITH r AS (INSERT INTO circuit.releases (content_hash, platform, manifest)
           VALUES ('h', 'p', '[{"name": "score", "routes": [["Contact", "afterInsert"]]}]') RETURNING id),
     l AS (INSERT INTO circuit.live (release) SELECT id FROM r),
     h AS (INSERT INTO circuit.handlers (name) VALUES ('score') RETURNING id),
     o AS (INSERT INTO circuit.routes SELECT 'Contact', 'afterInsert', id FROM h)
SELECT r.id, h.id FROM r, h
"""
_DELIVERY = """
INSERT INTO circuit.deliveries (id, source, account, tenant, vendor_id, headers, body)
VALUES (%(delivery)s, 'gohighlevel', %(account)s, %(tenant)s, %(account)s, '{}', %(body)s)
"""
_EVENT = """
INSERT INTO circuit.events (delivery, ordinal, id, tenant, object, event, record, order_key, handled)
VALUES (%(delivery)s, 0, nextval('circuit.event_ids'), %(tenant)s, 'Contact', 'afterInsert', %(record)s, %(record)s, 1)
RETURNING id
"""
_EXECUTION = """
INSERT INTO circuit.executions
    (id, tenant, release, handler, object, event, records, status, reason, started_at, usage)
VALUES (%(execution)s, %(tenant)s, %(release)s, %(handler)s, 'Contact', 'afterInsert', 1, 'failed', %(reason)s, now(),
        '{"wall_time": 0.5}')
"""
_OUTCOME = """
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
VALUES (%(delivery)s, 0, %(handler)s, %(execution)s, %(tenant)s, 'dead', %(reason)s)
"""
_RECORD = "INSERT INTO circuit.records (tenant, object, id, data) VALUES (%(tenant)s, 'Contact', %(record)s, %(data)s)"
_LINE = """
INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant, record)
VALUES (now(), 'error', %(reason)s, %(execution)s, 'score', %(tenant)s, %(record)s)
"""
_EFFECT = """
INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, record,
                             payload, status, reason, attempts)
VALUES (%(effect)s, %(tenant)s, %(execution)s, %(release)s, 1, 1, 'webhook', 'post', 'https://example.com',
        %(record)s, %(data)s, 'in_doubt', %(reason)s, 1)
"""
_LETTER = """
INSERT INTO circuit.dead_letters (kind, tenant, delivery, ordinal, handler, execution, record, attempts, reason,
                                  event_id, object, event)
VALUES ('event', %(tenant)s, %(delivery)s, 0, %(handler)s, %(execution)s, %(record)s, 5, %(reason)s, %(event)s,
        'Contact', 'afterInsert')
RETURNING id
"""
_ALERT = """
INSERT INTO circuit.alerts (key, rule, severity, tenant, what, since, last)
VALUES (%(alert)s, 'dead_letter', 'warning', %(tenant)s, %(reason)s, now(), now())
"""
_STANDS = """
SELECT (SELECT string_agg(concat_ws(' ', id, status, by), ';' ORDER BY id) FROM circuit.dead_letters),
       (SELECT string_agg(concat_ws(' ', id, status), ';' ORDER BY id) FROM circuit.effects),
       (SELECT string_agg(concat_ws(' ', key, acknowledged_by, silenced_by), ';' ORDER BY key) FROM circuit.alerts),
       (SELECT count(*) FROM circuit.queue), (SELECT count(*) FROM circuit.replays)
"""
_RESTORE = (
    """UPDATE circuit.dead_letters
    SET status = 'open', by = NULL, closed_at = NULL, why = NULL, again = NULL, edited = NULL""",
    "DELETE FROM circuit.dead_letters WHERE kind = 'effect'",
    "UPDATE circuit.effects SET status = 'in_doubt', settled_at = NULL, settled_by = NULL, note = NULL",
    """UPDATE circuit.alerts
    SET acknowledged_by = NULL, acknowledged_at = NULL, silenced_by = NULL, silenced_until = NULL""",
    "DELETE FROM circuit.queue",
    "DELETE FROM circuit.replay_items",
    "DELETE FROM circuit.replays",
)


@dataclass(slots=True)
class Ground:
    """``of`` says by tenant what it has. Every text of a tenant's says whose it is."""

    connection: Connection
    of: dict[str, dict[str, Any]] = field(default_factory=dict)
    stands: tuple[Any, ...] = ()

    async def is_untouched(self) -> bool:
        return await self._look() == self.stands

    async def restore(self) -> None:
        """As it was at first."""
        for statement in _RESTORE:
            await self.connection.execute(statement.encode())
        if not self.stands:
            self.stands = await self._look()

    async def _look(self) -> tuple[Any, ...]:
        row = await (await self.connection.execute(_STANDS)).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        return row


async def lay(connection: Connection) -> Ground:
    """Make it, in an empty database."""
    row = await (await connection.execute(_RELEASE)).fetchone()
    assert row is not None
    ground = Ground(connection)
    for tenant in TENANTS:
        ground.of[tenant] = await _of(connection, tenant, *row)
    await ground.restore()
    return ground


async def _of(connection: Connection, tenant: str, release: int, handler: int) -> dict[str, Any]:
    record = f"c-{tenant}"
    data = {"id": record, "note": f"payload of {tenant}"}
    values: dict[str, Any] = {
        "tenant": tenant, "release": release, "handler": handler, "record": record, "account": f"L-{tenant}",
        "delivery": uuid7(), "execution": uuid7(), "effect": uuid7(), "alert": f"dead_letter/{tenant}",
        "data": Jsonb(data), "reason": f"trouble of {tenant}",
        "body": msgspec.json.encode({"type": "ContactCreate", "locationId": f"L-{tenant}", **data}),
    }  # fmt: skip
    await connection.execute(_DELIVERY, values)
    event = await (await connection.execute(_EVENT, values)).fetchone()
    assert event is not None
    values["event"] = event[0]
    for statement in (_EXECUTION, _OUTCOME, _RECORD, _LINE, _EFFECT, _ALERT):
        await connection.execute(statement.encode(), values)
    letter = await (await connection.execute(_LETTER, values)).fetchone()
    assert letter is not None
    return {**values, "letter": letter[0]}
