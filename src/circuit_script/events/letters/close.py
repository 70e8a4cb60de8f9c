"""Closing dead letters: retried, or discarded. Each is closed once, and says by whom and when.

Every call is one short transaction: it locks its letters in one order, so that two people who retry the same ones at
once wait for each other, and the second is told what the first did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.effects.doubt import send_again, settle_discarded
from circuit_script.errors import LetterRefused
from circuit_script.events.letters.letter import LARGEST, OPEN, missing, rows
from circuit_script.events.letters.payload import ERASED, FORGOTTEN, GONE, UNREADABLE, read_all
from circuit_script.events.requeue import Past, requeue

CHUNK = 200  # letters in one transaction: intake waits while their events are put back on the queue

_LOCK = """
SELECT d.id, d.kind, d.tenant, d.status, d.by, d.closed_at, d.delivery, d.ordinal, d.handler, d.event_id, d.effect,
       d.object, d.event, d.record, d.execution, h.name
FROM circuit.dead_letters d LEFT JOIN circuit.handlers h ON h.id = d.handler
WHERE d.id = ANY(%(ids)s::bigint[]) AND (%(tenant)s::text IS NULL OR d.tenant = %(tenant)s)
ORDER BY d.event_id NULLS LAST, d.id FOR UPDATE OF d
"""
_LIVE = """
SELECT m ->> 'name' AS name FROM circuit.live l JOIN circuit.releases r ON r.id = l.release,
       jsonb_array_elements(r.manifest) AS m
"""
_EVENTS = """
SELECT e.delivery, e.ordinal FROM unnest(%(deliveries)s::uuid[], %(ordinals)s::smallint[]) AS w (delivery, ordinal)
JOIN circuit.events e ON e.delivery = w.delivery AND e.ordinal = w.ordinal
"""
# One after the other: a body may be large, and have brought all that died.
_BODY = "SELECT source, body FROM circuit.deliveries WHERE id = %(delivery)s"
# A replay may have done what a retry is asked for.
_SUCCEEDED = """
SELECT w.id, max(o.at) AS at
FROM unnest(%(ids)s::bigint[], %(deliveries)s::uuid[], %(ordinals)s::smallint[], %(handlers)s::smallint[])
     AS w (id, delivery, ordinal, handler)
JOIN circuit.dead_letters d ON d.id = w.id
JOIN circuit.outcomes o ON o.delivery = w.delivery AND o.ordinal = w.ordinal AND o.handler = w.handler
WHERE o.status = 'succeeded' AND o.at > d.at GROUP BY 1
"""
# What has been paid for in an earlier life of the event.
_JOURNAL = """
INSERT INTO circuit.journal (event, handler, key, tenant, reply)
SELECT n.again, j.handler, j.key, j.tenant, j.reply
FROM unnest(%(before)s::bigint[], %(handlers)s::smallint[], %(again)s::bigint[]) AS n (before, handler, again)
JOIN circuit.journal j ON j.event = n.before AND j.handler = n.handler
ON CONFLICT DO NOTHING
"""
_CLOSE = """
UPDATE circuit.dead_letters d SET status = %(status)s, by = %(by)s, closed_at = now(), why = %(why)s,
       again = c.again, edited = %(edited)s::uuid, was = %(was)s::jsonb
FROM unnest(%(ids)s::bigint[], %(agains)s::bigint[]) AS c (id, again) WHERE d.id = c.id
"""
_ERASED = f"""
SELECT id FROM circuit.effects WHERE id = ANY(%(effects)s::uuid[]) AND payload = '{{}}' AND reason = '{FORGOTTEN}'
"""
_DOUBTFUL = "SELECT id FROM circuit.effects WHERE id = ANY(%(effects)s::uuid[]) AND status = 'in_doubt'"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one letter: ``retried``, ``discarded``, ``before`` (somebody had closed it; ``said`` tells who and
    when) or ``refused`` (``said`` tells why, and what to do). ``otherwise``: it was closed before, and not as asked."""

    letter: int
    done: str
    said: str = ""
    again: int | None = None
    otherwise: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A letter that is locked."""

    id: int
    kind: str
    tenant: str
    status: str
    by: str | None
    closed_at: datetime | None
    delivery: UUID | None
    ordinal: int | None
    handler: int | None
    event_id: int | None
    effect: UUID | None
    object: str | None
    event: str | None
    record: str | None
    execution: UUID | None
    name: str | None

    def before(self, asked: str) -> Fate | None:
        """What there is to say when it is closed already, to who asks for it to be ``retried`` or ``discarded``."""
        if self.status == OPEN or self.closed_at is None:
            return None
        at = f"{self.closed_at.astimezone():%Y-%m-%d %H:%M:%S}"
        return Fate(self.id, "before", f"it was {self.status} by {self.by} at {at}", otherwise=self.status != asked)


async def retry(connection: Connection, ids: Sequence[int], by: str, *, tenant: str | None = None) -> list[Fate]:
    """Put the events of these letters back on the queue, and hand their effects to the courier again; at most CHUNK of
    them. Raises LetterRefused when there is none of one's number (of ``tenant``, if given)."""
    async with connection.transaction():
        held = await hold(connection, ids, tenant)
        fates = {each.id: before for each in held if (before := each.before("retried"))}
        waiting = [each for each in held if each.id not in fates]
        fates |= await _retry_effects(connection, [each for each in waiting if each.kind == "effect"], by)
        fates |= await _retry_events(connection, [each for each in waiting if each.kind == "event"], by)  # intake waits
    return [fates[each] for each in dict.fromkeys(ids)]


async def discard(
    connection: Connection, ids: Sequence[int], by: str, why: str, *, tenant: str | None = None
) -> list[Fate]:
    """Leave them as they are, for good; at most CHUNK of them. Raises LetterRefused as `retry` does."""
    async with connection.transaction():
        held = await hold(connection, ids, tenant)
        fates = {each.id: before for each in held if (before := each.before("discarded"))}
        waiting = [each for each in held if each.id not in fates]
        doubtful = await _in_doubt(connection, waiting)
        fates |= {each.id: _doubtful(each) for each in waiting if each.effect in doubtful}
        left = [each.id for each in waiting if each.id not in fates]
        effects = [each.effect for each in waiting if each.effect and each.id not in fates]
        await settle_discarded(connection, effects, by=by, note=why)
        await close(connection, left, "discarded", by, why=why)
        fates |= {each: Fate(each, "discarded") for each in left}
    return [fates[each] for each in dict.fromkeys(ids)]


async def hold(connection: Connection, ids: Sequence[int], tenant: str | None = None) -> list[Held]:
    """Lock these letters until the transaction ends. Raises LetterRefused when there is none of one's number."""
    for each in ids:
        if not 0 < each <= LARGEST:
            raise missing(each)
    found = [Held(**row) for row in await rows(connection, _LOCK, {"ids": list(ids), "tenant": tenant})]
    known = {each.id for each in found}
    for each in ids:
        if each not in known:
            raise missing(each)
    return found


async def close(
    connection: Connection,
    ids: Sequence[int],
    status: str,
    by: str,
    *,
    why: str | None = None,
    agains: Sequence[int | None] | None = None,
    edited: UUID | None = None,
    was: Jsonb | None = None,
) -> None:
    """Write down what became of them, inside the transaction that did it."""
    values = {
        "ids": list(ids),
        "status": status,
        "by": by,
        "why": why,
        "agains": list(agains or [None] * len(ids)),
        "edited": edited,
        "was": was,
    }
    if ids:
        await connection.execute(_CLOSE, values)


async def must_be_live(connection: Connection, held: Sequence[Held]) -> dict[int, Fate]:
    """Refusals of those whose handler the live release does not have: their events would wait for ever."""
    names = {row["name"] for row in await rows(connection, _LIVE, {})}
    return {each.id: _no_handler(each) for each in held if each.name not in names}


async def pay_nothing_twice(connection: Connection, held: Sequence[Held], agains: Sequence[int]) -> None:
    """Give the new events the replies of the calls that the old ones have made."""
    values = {
        "before": [each.event_id for each in held],
        "handlers": [each.handler for each in held],
        "again": list(agains),
    }
    await connection.execute(_JOURNAL, values)


async def _retry_events(connection: Connection, held: Sequence[Held], by: str) -> dict[int, Fate]:
    if not held:
        return {}
    fates = await _succeeded(connection, held, by)
    fates |= await must_be_live(connection, [each for each in held if each.id not in fates])
    fates |= await _must_be_readable(connection, [each for each in held if each.id not in fates])
    good = [each for each in held if each.id not in fates]
    if good:
        past = [Past(each.delivery, each.ordinal or 0, each.handler) for each in good if each.delivery and each.handler]
        agains = await requeue(connection, past, journal=True, by=by)
        await pay_nothing_twice(connection, good, agains)
        await close(connection, [each.id for each in good], "retried", by, agains=agains)
        fates |= {each.id: Fate(each.id, "retried", again=again) for each, again in zip(good, agains, strict=True)}
    return fates


async def _succeeded(connection: Connection, held: Sequence[Held], by: str) -> dict[int, Fate]:
    """Those whose event has succeeded since: their letters are closed, and nothing is done twice."""
    values = {
        "ids": [each.id for each in held],
        "deliveries": [each.delivery for each in held],
        "ordinals": [each.ordinal for each in held],
        "handlers": [each.handler for each in held],
    }
    found = {row["id"]: row["at"] for row in await rows(connection, _SUCCEEDED, values)}
    await close(connection, list(found), "retried", by, why="it had succeeded since")
    return {
        letter: Fate(letter, "before", f"it has succeeded since, at {at.astimezone():%Y-%m-%d %H:%M:%S}")
        for letter, at in found.items()
    }


async def _must_be_readable(connection: Connection, held: Sequence[Held]) -> dict[int, Fate]:
    """Refusals of those of which there is nothing left that a handler could be given."""
    values = {"deliveries": [each.delivery for each in held], "ordinals": [each.ordinal for each in held]}
    events = {(row["delivery"], row["ordinal"]) for row in await rows(connection, _EVENTS, values)}
    fates = {each.id: _nothing_left(each, GONE) for each in held if (each.delivery, each.ordinal) not in events}
    together: dict[UUID | None, list[Held]] = {}
    for each in held:
        if each.id not in fates:
            together.setdefault(each.delivery, []).append(each)
    for delivery, several in together.items():
        found = await rows(connection, _BODY, {"delivery": delivery})
        records, fault = read_all(found[0]["source"], bytes(found[0]["body"])) if found else ([], GONE)
        lost = [each for each in several if (each.ordinal or 0) >= len(records)]
        fates |= {each.id: _nothing_left(each, fault or UNREADABLE) for each in lost}
    return fates


async def _retry_effects(connection: Connection, held: Sequence[Held], by: str) -> dict[int, Fate]:
    if not held:
        return {}
    doubtful = await _in_doubt(connection, held)
    fates = {each.id: _doubtful(each) for each in held if each.effect in doubtful}
    erased = {row["id"] for row in await rows(connection, _ERASED, {"effects": [each.effect for each in held]})}
    fates |= {each.id: _nothing_left(each, ERASED) for each in held if each.effect in erased}
    dead = [each.effect for each in held if each.id not in fates and each.effect]
    again = set(await send_again(connection, dead, by=by))
    good = [each.id for each in held if each.effect in again]
    await close(connection, good, "retried", by)
    fates |= {each: Fate(each, "retried") for each in good}
    gone = "its effect is not dead, or no longer there: circuit-script dead discard closes the letter"
    return {each.id: Fate(each.id, "refused", gone) for each in held} | fates


async def _in_doubt(connection: Connection, held: Sequence[Held]) -> set[UUID]:
    effects = [each.effect for each in held if each.effect]
    return {row["id"] for row in await rows(connection, _DOUBTFUL, {"effects": effects})} if effects else set()


def _doubtful(held: Held) -> Fate:
    return Fate(held.id, "refused", f"its effect is in doubt: circuit-script doubt settle {held.effect}")


def _nothing_left(held: Held, fault: str) -> Fate:
    return Fate(held.id, "refused", f"{fault}: circuit-script dead edit {held.id} sends what you say")


def _no_handler(held: Held) -> Fate:
    cure = "deploy a release that has it, or discard the letter"
    return Fate(held.id, "refused", f"the live release has no handler {held.name!r}: {cure}")


def must_have_been_done(fate: Fate) -> Fate:
    """Raises LetterRefused unless it was done now."""
    if fate.done in ("before", "refused"):
        said, _, cure = fate.said.partition(": ")
        raise LetterRefused(f"Letter {fate.letter}: {said}.", cure=f"{cure[:1].upper()}{cure[1:]}." if cure else "")
    return fate
