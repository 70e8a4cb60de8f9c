"""One poll: a CRM is asked what has changed in an object of a tenant since the cursor, and a little before it.

The cursor moves when what it leaves behind is committed. Where the vendor orders by the moment of the change, each page
asks anew from the last moment on, so that a record that changes meanwhile moves to the end and is seen there; where it
does not, all that has changed is read, and the cursor moves no further than to when the poll began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Connector, Fields, SlowDown
from circuit_script.connectors.homes import Vendor
from circuit_script.connectors.query import Condition, Order, Query, matches
from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import CircuitError, NotConnected, SecretMissing
from circuit_script.events.reconcile.feed import Fed, Place, feed
from circuit_script.events.reconcile.known import NO_TWINS, moment_of
from circuit_script.failpoints import areach

CHORE = "reconcile"
OVERLAP = timedelta(minutes=5)  # before the cursor: vendors' clocks, and commits that show later than their moment
PAGE = 200  # rows
MOST = 10_000  # rows of a poll where the vendor orders, changes that are taken in where it does not
MOST_PAGES = 2_000
WINDOW = 50_000  # rows that a query may speak of; a poll never comes there, as it asks anew
SHARE = 10  # a poll uses one request in so many of what the vendor allows
UNSAID = 0.1  # seconds between two requests to a vendor that says nothing of its limit
LONGEST_PAUSE = 60.0
CLAIM_FOR = timedelta(minutes=3)  # without a sign of whoever polls; a request and its pauses take less
FEW = 10  # records that are read again at once: to some vendors each is a request
TRIES = 2  # times that a record which changes under our eyes is read again

CLAIM = """
INSERT INTO circuit.reconcile_cursors AS c (tenant, connector, object, starts, cursor, claim, claimed)
VALUES (%(tenant)s, %(connector)s, %(object)s, now() - coalesce(%(back)s::interval, interval '0'),
        now() - coalesce(%(back)s::interval, interval '0'), %(claim)s, now() + %(hold)s)
ON CONFLICT (tenant, connector, object) DO UPDATE
SET claim = excluded.claim, claimed = excluded.claimed,
    starts = CASE WHEN %(back)s::interval IS NULL THEN c.starts ELSE least(c.starts, excluded.starts) END,
    cursor = CASE WHEN %(back)s::interval IS NULL THEN c.cursor ELSE least(c.cursor, excluded.cursor) END
WHERE (c.claimed IS NULL OR c.claimed < now())
  AND (c.more OR c.polled_at IS NULL OR %(every)s::interval IS NULL OR c.polled_at <= now() - %(every)s::interval)
RETURNING c.starts, c.cursor, c.more, c.polled_at IS NULL AND %(back)s::interval IS NULL
"""
DUE = """
SELECT tenant, connector, object FROM circuit.reconcile_cursors
WHERE claimed >= now() OR (NOT more AND polled_at > now() - %s::interval)
"""
MOVE = """
UPDATE circuit.reconcile_cursors SET cursor = greatest(cursor, %(cursor)s), claimed = now() + %(hold)s
WHERE tenant = %(tenant)s AND connector = %(connector)s AND object = %(object)s AND claim = %(claim)s
RETURNING true
"""
DONE = """
UPDATE circuit.reconcile_cursors
SET claimed = NULL, claim = NULL, polled_at = now(), more = %(more)s, found = found + %(found)s, trouble = %(trouble)s
WHERE tenant = %(tenant)s AND connector = %(connector)s AND object = %(object)s AND claim = %(claim)s
"""
WHERE_IT_STANDS = """
SELECT cursor, starts FROM circuit.reconcile_cursors WHERE tenant = %(tenant)s AND connector = %(connector)s
AND object = %(object)s
"""
CURSORS = """
SELECT tenant, connector, object, cursor, polled_at, more, found, trouble FROM circuit.reconcile_cursors
ORDER BY tenant, connector, object
"""
LEFT = """
UPDATE circuit.reconcile_cursors SET starts = greatest(starts, now()), cursor = greatest(cursor, now()), more = false
WHERE connector = ANY(%s)
"""
NOW = "SELECT clock_timestamp()"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a tenant, and the CRM that keeps it. ``stamp`` is the field of the last change."""

    tenant: str
    object: str
    crm: Vendor
    stamp: str

    @property
    def place(self) -> Place:
        return Place(self.tenant, self.crm.name, self.object, self.stamp)


@dataclass(slots=True)
class Polled:
    """What a poll has come to. ``note`` says why it did not run to its end, ``stop`` that nothing more is to be asked
    of this vendor for this tenant now; ``oldest`` is the moment of the oldest change that no webhook had told."""

    tenant: str
    connector: str
    object: str
    read: int = 0
    inserts: int = 0
    updates: int = 0
    oldest: datetime | None = None
    since: datetime | None = None
    more: bool = False
    note: str = ""
    stop: bool = field(default=False, repr=False)
    connected: bool = field(default=True, repr=False)

    @property
    def found(self) -> int:
        return self.inserts + self.updates

    def add(self, fed: Fed) -> None:
        self.inserts += fed.found.get("afterInsert", 0)
        self.updates += fed.found.get("afterUpdate", 0)
        if fed.oldest is not None:
            self.oldest = fed.oldest if self.oldest is None else min(self.oldest, fed.oldest)


class Lost(Exception):
    """Another host has taken the poll over."""


def changed_field(connector: Connector, object_: str) -> str | None:
    """The field in which a CRM says when a record was changed last; None for an object that cannot be polled."""
    said: Mapping[str, str] = getattr(connector, "changed_field", {})
    return said.get(object_)


async def leave_alone(connection: Connection, connectors: Collection[str]) -> None:
    """What has changed there until now is another service's, and is not looked for later. Raises psycopg.Error."""
    if connectors:
        await connection.execute(LEFT, [sorted(connectors)])


async def twins_of(target: Target) -> Mapping[str, str]:
    """Names under which the vendor's rows say the same value, both ways; of vendors that know of such."""
    ask: Callable[[str, str], Awaitable[Mapping[str, str]]] | None = getattr(target.crm, "twins", None)
    if ask is None:
        return NO_TWINS
    found = await ask(target.tenant, target.object)
    return {**found, **{other: one for one, other in found.items()}}


def pause_of(connector: Connector) -> float:
    """Seconds between two requests of a poll."""
    each = [rate.seconds / rate.calls for one in connector.operations.values() if (rate := one.rate) is not None]
    return min(LONGEST_PAUSE, SHARE * max(each)) if each else UNSAID


async def read_cursors(connection: Connection) -> list[tuple[Any, ...]]:
    """Tenant, connector, object, cursor, when it was polled last, whether there is more, found so far, trouble."""
    return await (await connection.execute(CURSORS)).fetchall()


async def not_due(database: Pool, every: float) -> set[tuple[str, str, str]]:
    """What was polled within ``every`` seconds, or is being polled."""
    async with database.connection() as connection:
        return set(await (await connection.execute(DUE, [timedelta(seconds=every)])).fetchall())


class Poll:
    """Polls of one process. ``every`` is how many seconds lie between two of the same object, None for now; ``back``
    sets the cursor back to so long ago; a ``dry`` one takes nothing in and moves nothing."""

    def __init__(
        self,
        database: Pool,
        *,
        every: float | None = None,
        back: timedelta | None = None,
        dry: bool = False,
        most: int = MOST,
        page: int = PAGE,
        told: Callable[[Polled], None] = lambda polled: None,
    ) -> None:
        self._database = database
        self._every = None if every is None else timedelta(seconds=every)
        self._back = back
        self._dry = dry
        self._most = most
        self._page = page
        self._told = told

    async def run(self, target: Target) -> Polled:
        """Ask, and take in what is news. What a vendor or a tenant's token does is noted in the answer, and so is a
        poll that is not due. Raises psycopg.Error."""
        polled = Polled(target.tenant, target.crm.name, target.object)
        claim = uuid4()
        begins = await self._claim(target, claim)
        if begins is None:
            polled.note = "another host polls it, or has"
            return polled
        since, first = begins
        polled.since = since
        try:
            if first:
                polled.note = "it begins now: what changes from here on is found"
            else:
                await _Run(self, target, polled, claim).read(since)
        except Lost:
            polled.note = "another host has taken it over"
            return polled
        except Failed as failed:
            polled.note, polled.stop = failed.delivery.reason[:300], True
            if isinstance(failed.delivery, SlowDown):
                polled.note = f"it is to be asked less: {polled.note}"
        except (NotConnected, SecretMissing) as error:
            polled.note, polled.stop, polled.connected = f"not connected: {error}"[:300], True, False
        except CircuitError as error:
            polled.note, polled.stop = str(error)[:300], True
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # what a vendor says can be anything
            log.exception("reconcile", tenant=target.tenant, connector=target.crm.name, object=target.object)
            polled.note, polled.stop = f"{type(error).__name__} in what it answered", True
        polled.note = polled.note.encode(errors="replace").decode().replace("\0", "")  # a vendor's words, to be stored
        await self._done(polled, claim, "" if first else polled.note)
        return polled

    async def _claim(self, target: Target, claim: UUID) -> tuple[datetime, bool] | None:
        """From when on to ask, and whether it is the first time; None where it is not for us now."""
        values = {**_names(target), "claim": claim, "every": self._every, "hold": CLAIM_FOR, "back": self._back}
        async with self._database.connection() as connection:
            if self._dry:
                row: Any = await (await connection.execute(WHERE_IT_STANDS, values)).fetchone()
                if self._back is not None:
                    return await _now(connection) - self._back, False
                return (await _now(connection), True) if row is None else (max(row[0] - OVERLAP, row[1]), False)
            row = await (await connection.execute(CLAIM, values)).fetchone()
            if row is None:
                return None
            starts, cursor, more, first = row
            if self._back is not None:
                return await _now(connection) - self._back, False
            return (cursor if more else max(cursor - OVERLAP, starts)), first

    async def _done(self, polled: Polled, claim: UUID, trouble: str) -> None:
        if self._dry:
            return
        values = {
            "tenant": polled.tenant, "connector": polled.connector, "object": polled.object, "claim": claim,
            "more": polled.more, "found": polled.found, "trouble": trouble or None,
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(DONE, values)
        if polled.found:
            log.warning("reconcile.found", tenant=polled.tenant, connector=polled.connector, object=polled.object,
                        inserts=polled.inserts, updates=polled.updates, oldest=str(polled.oldest),
                        next="they are handled as webhooks are")  # fmt: skip
        if trouble:
            tell = log.warning if polled.connected else log.debug
            tell("reconcile", tenant=polled.tenant, connector=polled.connector, object=polled.object,
                        trouble=trouble, next="asking again later")  # fmt: skip


class _Run:
    """The reading of one poll."""

    def __init__(self, poll: Poll, target: Target, polled: Polled, claim: UUID) -> None:
        self._poll = poll
        self._target = target
        self._place = target.place
        self._polled = polled
        self._claim = claim
        self._pause = pause_of(target.crm)
        self._asked = False
        self._held: datetime | None = None  # the change from which on something is to be looked at again

    async def read(self, since: datetime) -> None:
        crm, polled, stamp = self._target.crm, self._polled, self._target.stamp
        self._place = replace(self._place, twins=await twins_of(self._target))
        began = await self._now()
        low, after, high = since, None, since
        seen: set[tuple[str, str]] = set()
        ordered = crm.explain(self._query(low, True)).ordered
        for _ in range(MOST_PAGES):
            query = self._query(low, ordered)
            read_at = await self._turn()
            page = await crm.page(self._target.tenant, query, after, self._poll._page)
            matching = [row for row in page.rows if matches(row, query.where)]
            rows = [row for row in matching if _key(row, stamp) not in seen]
            polled.read += len(rows)
            await self._take(rows, read_at)
            high = max([high, *_moments(matching, stamp)])
            over = page.after is None
            enough = (polled.read if ordered else polled.found) >= self._poll._most
            if ordered:
                await self._move(min(high, began))
                top = max(_moments(matching, stamp), default=low)
                if top > low:
                    low, after, seen = top, None, {_key(row, stamp) for row in matching if _at(row, stamp) == top}
                else:
                    after = page.after
                    seen |= {_key(row, stamp) for row in matching}
                over = over and not rows
            else:
                await self._move(None)
                after = page.after
            if over or enough:
                polled.more = not over
                break
        else:
            polled.more = True
        if not polled.more:
            await self._move(min(high, began))

    async def _take(self, rows: list[Fields], read_at: datetime) -> None:
        """Take rows in; those that may have changed meanwhile are read again, each by its id."""
        database, place, dry = self._poll._database, self._place, self._poll._dry
        fed = await feed(database, place, rows, read_at, dry=dry)
        self._polled.add(fed)
        self._poll._told(self._polled)
        for _ in range(TRIES):
            if not fed.again:
                return
            before, kept = fed.again, set[str]()
            for start in range(0, len(before), FEW):
                ids, read_at = [str(each["id"]) for each in before[start : start + FEW]], await self._turn()
                there = await self._target.crm.get(self._target.tenant, self._target.object, ids)
                rows = [each for each in there if each is not None]
                fed = await feed(database, place, rows, read_at, sure=True, dry=dry)
                kept |= {str(each["id"]) for each in fed.again}
                self._polled.add(fed)
                self._poll._told(self._polled)
                await self._move(None)
            fed.again = [each for each in before if str(each["id"]) in kept]
        for each in _moments(fed.again, place.stamp):
            self._held = each if self._held is None else min(self._held, each)

    async def _move(self, cursor: datetime | None) -> None:
        """The cursor stands there from now on, unless something before it is to be looked at again; and we go on.
        Raises Lost."""
        if self._poll._dry:
            return
        if cursor is not None and self._held is not None:
            cursor = min(cursor, self._held)
        values = {**_names(self._target), "claim": self._claim, "cursor": cursor, "hold": CLAIM_FOR}
        async with self._poll._database.connection() as connection:
            if await (await connection.execute(MOVE, values)).fetchone() is None:
                raise Lost
        await areach("reconcile.moved")

    async def _turn(self) -> datetime:
        """When the vendor may be asked next, which is now."""
        if self._asked:
            await asyncio.sleep(self._pause)
        self._asked = True
        return await self._now()

    async def _now(self) -> datetime:
        async with self._poll._database.connection() as connection:
            return await _now(connection)

    def _query(self, low: datetime, ordered: bool) -> Query:
        text = low.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        order = (Order(self._target.stamp),) if ordered else ()
        return Query(self._target.object, Condition(self._target.stamp, "ge", text), order, WINDOW)


async def _now(connection: Connection) -> datetime:
    row: Any = await (await connection.execute(NOW)).fetchone()
    found: datetime = row[0]
    return found


def _names(target: Target) -> dict[str, Any]:
    return {"tenant": target.tenant, "connector": target.crm.name, "object": target.object}


def _key(row: Fields, stamp: str) -> tuple[str, str]:
    return str(row.get("id")), str(row.get(stamp))


def _at(row: Fields, stamp: str) -> datetime | None:
    return moment_of(row.get(stamp))


def _moments(rows: list[Fields], stamp: str) -> list[datetime]:
    return [at for row in rows if (at := _at(row, stamp)) is not None]
