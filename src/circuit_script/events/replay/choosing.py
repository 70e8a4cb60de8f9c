"""Which past events a replay takes: a filter, and the ledger read by it in bounded memory.

What it takes are pairs of an event and a handler that it is routed to now. So an event that nobody handled when it came
goes to the handler that there is by now, and one whose handler is gone goes nowhere.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from circuit_script.clock import time_of
from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.errors import ReplayRefused
from circuit_script.events.requeue import Past
from circuit_script.tenants.accounts import TenantMap

CHUNK = 1000  # items in memory at once

ROUTES = """
SELECT r.object, r.event, r.handler, h.name FROM circuit.routes r JOIN circuit.handlers h ON h.id = r.handler
ORDER BY h.name, r.object, r.event
"""
RECORDED = """
SELECT DISTINCT t.route ->> 0 AS object, t.route ->> 1 AS event, h.id, h.name
FROM circuit.releases r CROSS JOIN jsonb_array_elements(r.manifest) AS m
JOIN circuit.handlers h ON h.name = m ->> 'name' CROSS JOIN jsonb_array_elements(m -> 'routes') AS t (route)
WHERE r.id = %s ORDER BY h.name, object, event
"""
# What was put back and waits is known by `past`; what waits since it arrived, by its own id.
ITEMS = """
SELECT e.id AS past, e.delivery, e.ordinal, e.tenant, e.object, e.event, e.record, e.order_key,
       d.source, d.account, d.received_at, r.handler, latest.execution,
       CASE WHEN e.tenant IS NULL THEN 'unassigned' WHEN latest.status IS NULL THEN 'unrouted'
            WHEN latest.status IN ('retry', 'deferred') THEN 'failed' ELSE latest.status END AS state,
       CASE WHEN r.handler IS NULL THEN 'no handler is there for it'
            WHEN EXISTS (SELECT FROM circuit.queue q WHERE q.id = e.id AND q.handler = r.handler)
              OR EXISTS (SELECT FROM circuit.queue q WHERE q.past = e.id AND q.handler = r.handler)
            THEN 'it waits in the queue already'
            WHEN octet_length(d.body) = 0 THEN 'whom it concerns was forgotten'
            WHEN latest.status = 'echo' THEN 'it is an echo of our own write'
            WHEN c.deleted AND e.event <> 'afterDelete' THEN 'its record was deleted since' END AS left_out,
       CASE WHEN e.object = 'Job' AND d.source = 'circuit' AND octet_length(d.body) > 0
            THEN convert_from(d.body, 'UTF8')::jsonb #>> '{data,job,execution}' END AS caused_by
FROM circuit.events e
JOIN circuit.deliveries d ON d.id = e.delivery
LEFT JOIN unnest(%(objects)s::text[], %(events)s::text[], %(handlers)s::smallint[]) AS r (object, event, handler)
  ON r.object = e.object AND r.event = e.event
LEFT JOIN LATERAL (
    SELECT o.status, o.execution FROM circuit.outcomes o
    WHERE o.delivery = e.delivery AND o.ordinal = e.ordinal AND o.handler = r.handler
    ORDER BY o.execution DESC LIMIT 1) AS latest ON true
LEFT JOIN circuit.records c ON c.tenant = e.tenant AND c.object = e.object AND c.id = e.record
"""
# A name by which a condition is asked for, and the condition.
CONDITIONS: Mapping[str, str] = {
    "since": "e.delivery >= circuit.uuid_floor(%(since)s)",
    "until": "e.delivery < circuit.uuid_floor(%(until)s)",
    "record": "e.record = %(record)s",
    "tenant": "e.tenant = %(tenant)s",
    "source": "d.source = %(source)s",
    "trigger": "r.handler IS NOT NULL",
    "text": "(position(%(text)s::bytea IN d.body) > 0 OR position(%(escaped)s::bytea IN d.body) > 0)",
    # It cannot be older than what it handled, but for clocks of hosts that differ.
    "execution": """e.delivery < %(beyond)s AND (e.delivery, e.ordinal, r.handler) IN (
        SELECT x.delivery, x.ordinal, x.handler FROM circuit.outcomes x
        WHERE x.execution = %(execution)s AND x.delivery < %(beyond)s)""",
}
# Of a choice that was shown beforehand: what has arrived since was not shown.
NEWEST = "SELECT pg_sequence_last_value('circuit.event_ids')"
SHOWN = "e.id <= %(newest)s"
OWNED, UNOWNED = "e.tenant IS NOT NULL", "e.tenant IS NULL"
# A job whose enqueuer is taken, too, is enqueued anew by it, as is the finalizer of a job: by itself it would be done
# twice. Of the executions of what is taken nothing is looked up where there are no jobs.
AGAIN = "what enqueued it runs again, and enqueues it again"
CHOSEN = """
WITH items AS MATERIALIZED ({items}),
again AS (
    SELECT DISTINCT x.execution::text AS execution FROM items p
    JOIN circuit.outcomes x ON x.delivery = p.delivery AND x.ordinal = p.ordinal AND x.handler = p.handler
    WHERE p.left_out IS NULL AND EXISTS (SELECT FROM items j WHERE j.caused_by IS NOT NULL))
"""
COUNTS = f"""{CHOSEN}SELECT i.tenant, i.source, i.account, i.handler, (i.received_at AT TIME ZONE 'UTC')::date,
       coalesce(i.left_out, CASE WHEN a.execution IS NOT NULL THEN '{AGAIN}' END), count(*)
FROM items i LEFT JOIN again a ON a.execution = i.caused_by GROUP BY 1, 2, 3, 4, 5, 6
"""
PICKED = f"""{CHOSEN}SELECT i.* FROM items i LEFT JOIN again a ON a.execution = i.caused_by
WHERE i.left_out IS NULL AND i.handler IS NOT NULL AND a.execution IS NULL {{order}}
"""


class State(StrEnum):
    """What became of an event for a handler, as its last attempt says. ``failed`` is also what is dead."""

    succeeded = "succeeded"
    failed = "failed"
    dead = "dead"
    cancelled = "cancelled"
    unrouted = "unrouted"
    unassigned = "unassigned"


def check_text(name: str, said: object) -> None:
    """Raises ReplayRefused for text that PostgreSQL does not take."""
    if isinstance(said, str) and ("\0" in said or said.encode("utf-8", "replace").decode() != said):
        raise ReplayRefused(f"--{name} {said!a} is no text.", cure="Write it in UTF-8, without NUL.")


@dataclass(frozen=True, slots=True)
class Filter:
    """What all of an item must be. ``trigger`` is a handler's name, its end, or its class; ``until`` is not included;
    ``limit`` takes the first of them to arrive."""

    execution: UUID | None = None
    record: str | None = None
    trigger: str | None = None
    tenant: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    status: State | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raises ReplayRefused for what no event can have: text that cannot be stored, an end before its beginning."""
        for each in fields(self):
            check_text(each.name, getattr(self, each.name))
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ReplayRefused("It would end before it begins.", cure="--until is the later of the two moments.")

    def as_dict(self) -> dict[str, Any]:
        """What was asked for, by name, as JSON has it."""
        said = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value if isinstance(value, int) else str(value) for name, value in said if value is not None}

    @property
    def bounds(self) -> bool:
        """Whether it leaves out anything."""
        return bool(self.as_dict().keys() - {"limit"})


@dataclass(frozen=True, slots=True)
class Route:
    """Events of ``object`` and ``event`` go to ``handler``, which has this name."""

    object: str
    event: str
    handler: int
    name: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """One item: an event for one handler. ``last`` is the execution that handled it last."""

    past: int
    delivery: UUID
    ordinal: int
    handler: int
    tenant: str
    object: str
    event: str
    record: str
    order_key: str
    last: UUID | None

    def as_past(self) -> Past:
        return Past(self.delivery, self.ordinal, self.handler, self.tenant)


@dataclass(frozen=True, slots=True)
class Counted:
    """So many items of one handler (its name) and day (UTC) are taken, or ``left_out`` says why not."""

    handler: str
    day: date
    left_out: str | None
    items: int


async def live_routes(connection: Connection) -> list[Route]:
    """The routes of the live release. Raises psycopg.Error."""
    return [Route(*row) for row in await (await connection.execute(ROUTES)).fetchall()]


async def recorded_routes(connection: Connection, release: int) -> list[Route]:
    """The routes of a recorded release; none of one that is unknown. Raises psycopg.Error."""
    return [Route(*row) for row in await (await connection.execute(RECORDED, [release])).fetchall()]


def fitting(routes: Sequence[Route], trigger: str | None) -> list[Route]:
    """The routes of the handlers that ``trigger`` names. Raises ReplayRefused when it names none."""
    if trigger is None:
        return list(routes)
    wanted = f".{trigger.strip().lower()}."
    found = [route for route in routes if wanted in f".{route.name.lower()}."]
    if not found:
        names = ", ".join(dict.fromkeys(route.name for route in routes)) or "none"
        raise ReplayRefused(f"The release has no trigger {trigger!r}.", cure=f"It has {names}.")
    return found


class Choice:
    """A filter before one database. Who asks for a tenant reads as that tenant may: row security leaves nothing else
    to be found; only what nobody owned is looked for by its account."""

    def __init__(self, wanted: Filter, routes: Sequence[Route], tenants: TenantMap) -> None:
        """``routes`` are those by which events find their handlers. Raises ReplayRefused for a trigger they lack."""
        self.filter = wanted
        self._routes = fitting(routes, wanted.trigger)
        self._names = {route.handler: route.name for route in self._routes}
        self._tenants = tenants
        self._newest: int | None = None  # the last event that had arrived when it was counted

    async def count(self, connection: Connection) -> list[Counted]:
        """What it would take, and what it would leave out (with a limit, only the former). From now on it takes nothing
        that arrives later. Raises psycopg.Error."""
        row = await (await connection.execute(NEWEST)).fetchone()
        self._newest = (row[0] if row is not None else None) or 0
        found: dict[tuple[str, date, str | None], int] = {}
        if self.filter.limit is not None:
            async for chunk in self.chunks(connection):
                for item in chunk:
                    taken = self._names[item.handler], time_of(item.delivery).date(), None
                    found[taken] = found.get(taken, 0) + 1
            return _lines(found)
        for unowned in self._passes():
            async with self._reading(connection, unowned):
                query, values = self._query(COUNTS, unowned)
                rows = await (await connection.execute(query.encode(), values)).fetchall()
            for tenant, source, account, handler, day, left_out, items in rows:
                why = left_out if unowned is False else self._unowned(tenant, source, account, left_out)
                if why != "":
                    key = self._names.get(handler, ""), day, why
                    found[key] = found.get(key, 0) + items
        return _lines(found)

    async def chunks(self, connection: Connection, size: int = CHUNK) -> AsyncIterator[list[Chosen]]:
        """The items, ``size`` at a time; in the order of their arrival where the filter has a limit."""
        left = self.filter.limit
        for unowned in self._passes():
            async with self._reading(connection, unowned), connection.cursor("circuit_replay") as cursor:
                query, values = self._query(PICKED, unowned)
                await cursor.execute(query.encode(), values)
                while rows := await cursor.fetchmany(size if left is None else min(size, left) or 1):
                    found = [item for row in rows if (item := self._item(row)) is not None]
                    if left is not None:
                        found = found[:left]
                        left -= len(found)
                    if found:
                        yield found
                    if left == 0:
                        return

    def _passes(self) -> Sequence[bool]:
        """What somebody owns, and what nobody does."""
        match self.filter.status:
            case State.unassigned:
                return (True,)
            case None:
                return (False, True)
            case _:
                return (False,)

    @contextlib.asynccontextmanager
    async def _reading(self, connection: Connection, unowned: bool) -> AsyncIterator[None]:
        if self.filter.tenant is not None and not unowned:
            async with tenant_reading(connection, self.filter.tenant):
                yield
        else:
            async with connection.transaction():
                yield

    def _query(self, template: str, unowned: bool) -> tuple[str, dict[str, Any]]:
        wanted = self.filter
        asked = [name for name in wanted.as_dict() if name in CONDITIONS and not (unowned and name == "tenant")]
        where = [UNOWNED if unowned else OWNED, *(CONDITIONS[name] for name in asked)]
        where += [SHOWN] if self._newest is not None else []
        items = f"{ITEMS} WHERE {' AND '.join(where)}"
        if wanted.status is not None:
            items = f"SELECT * FROM ({items}) AS s WHERE s.state = ANY(%(states)s)"
        order = "" if wanted.limit is None else "ORDER BY i.past, i.handler"
        return template.replace("{items}", items).replace("{order}", order), self._values()

    def _values(self) -> dict[str, Any]:
        wanted = self.filter
        text = (wanted.text or "").encode()
        return {
            **{each.name: getattr(wanted, each.name) for each in fields(wanted)},
            "beyond": _later(wanted.execution),
            "newest": self._newest,
            "text": text,
            "escaped": json.dumps(wanted.text or "")[1:-1].encode(),
            "states": _states(wanted.status),
            "objects": [route.object for route in self._routes],
            "events": [route.event for route in self._routes],
            "handlers": [route.handler for route in self._routes],
        }

    def _unowned(self, tenant: str | None, source: str, account: str, left_out: str | None) -> str | None:
        """Why an unowned event is left out; "" when nobody asked for it."""
        owner = self._tenants.tenant_of(source, account)
        if self.filter.tenant is not None and owner != self.filter.tenant:
            return ""
        return "its account belongs to no tenant" if owner is None else left_out

    def _item(self, row: Sequence[Any]) -> Chosen | None:
        past, delivery, ordinal, tenant, object_, event, record, key, source, account, _, handler, last, *_ = row
        owner = tenant if tenant is not None else self._tenants.tenant_of(source, account)
        if owner is None or self.filter.tenant not in (None, owner):
            return None
        return Chosen(past, delivery, ordinal, handler, owner, object_, event, record, key, last)


def _later(execution: UUID | None) -> UUID | None:
    """An id of an hour later."""
    return None if execution is None else UUID(int=min(execution.int + (3_600_000 << 80), (1 << 128) - 1))


def _states(status: State | None) -> list[str]:
    return ["failed", "dead"] if status is State.failed else [] if status is None else [status.value]


def _lines(found: Mapping[tuple[str, date, str | None], int]) -> list[Counted]:
    lines = [Counted(*key, items) for key, items in found.items()]
    return sorted(lines, key=lambda line: (line.left_out or "", line.day, line.handler))
