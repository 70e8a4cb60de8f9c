"""Effects in doubt: the vendor may or may not have done them. A person who has looked says which.

They keep what stands behind them waiting for nothing: an effect in doubt is not pending.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.effects.doubt import send_again, settle_delivered, settle_discarded
from circuit_script.effects.results import DONE_AFTER_ALL
from circuit_script.errors import LetterRefused
from circuit_script.events.letters.letter import reading, rows
from circuit_script.events.letters.story import Answer, Attempt, Line, answers_of, lines_of, of_execution

_DOUBTS = """
SELECT e.id, e.tenant, e.connector, e.operation, e.target, e.record, e.payload, e.attempts, e.reason,
       e.settled_at AS at, e.execution, e.status,
       (SELECT h.name FROM circuit.executions x JOIN circuit.handlers h ON h.id = x.handler
        WHERE x.id = e.execution) AS handler
FROM circuit.effects e
"""
_LIST = f"""{_DOUBTS} WHERE e.status = 'in_doubt' AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
  AND (%(record)s::text IS NULL OR e.record = %(record)s)
  AND (%(connector)s::text IS NULL OR e.connector = %(connector)s)
  AND (%(before)s::uuid IS NULL OR e.id < %(before)s)
ORDER BY e.id DESC LIMIT %(limit)s
"""
_MEANT = f"""{_DOUBTS} WHERE e.status = 'in_doubt' AND starts_with(e.id::text, %(which)s) ORDER BY e.id LIMIT 2"""
_ANY = f"{_DOUBTS} WHERE e.id = %(id)s"
_OF_LETTER = "SELECT effect FROM circuit.dead_letters WHERE id = %(letter)s AND effect IS NOT NULL"
_LATEST = """
SELECT status, by, closed_at, why FROM circuit.dead_letters WHERE effect = %(effect)s ORDER BY id DESC LIMIT 1
"""
_HEARD = f"SELECT id FROM circuit.effects WHERE id = %(effect)s AND reason = '{DONE_AFTER_ALL}'"
_LOCK = "SELECT id FROM circuit.effects WHERE id = %(id)s AND status = 'in_doubt' FOR UPDATE"
_CLOSE = """
UPDATE circuit.dead_letters SET status = %(letter)s, by = %(by)s, closed_at = now(), why = %(why)s
WHERE effect = %(id)s AND status = 'open'
"""
# Who said what is kept, also where the courier wrote no letter.
_KEPT = """
INSERT INTO circuit.dead_letters
    (kind, tenant, effect, execution, record, attempts, reason, status, by, closed_at, why)
VALUES ('effect', %(tenant)s, %(id)s, %(execution)s, %(record)s, %(attempts)s, %(reason)s, %(letter)s, %(by)s, now(),
        %(why)s)
"""


_ID = re.compile(r"[0-9a-fA-F-]{1,36}|[0-9]{1,18}")


class Decision(StrEnum):
    """What a person says of an effect in doubt: the vendor did it; send it (again); leave it."""

    done = "done"
    repeat = "repeat"
    discard = "discard"


_LETTERS = {
    Decision.done: ("discarded", "the vendor had done it"),
    Decision.repeat: ("retried", "sent again"),
    Decision.discard: ("discarded", "left"),
}


@dataclass(frozen=True, slots=True)
class Doubt:
    """An effect of which nobody knows whether the vendor did it. ``reason`` is what was heard last, ``at`` when."""

    id: UUID
    tenant: str
    connector: str
    operation: str
    target: str
    record: str | None
    payload: dict[str, Any]
    attempts: int
    reason: str | None
    at: datetime | None
    execution: UUID
    status: str
    handler: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the effect itself."""

    doubt: Doubt
    answers: Sequence[Answer]
    attempts: Sequence[Attempt]
    lines: Sequence[Line]


async def doubts(
    connection: Connection,
    limit: int,
    *,
    tenant: str | None = None,
    record: str | None = None,
    connector: str | None = None,
    before: UUID | None = None,
) -> list[Doubt]:
    """Effects in doubt, the newest first; with ``tenant`` as that tenant may read them. ``before`` is the last one of
    the page before."""
    values = {"tenant": tenant, "record": record, "connector": connector, "before": before, "limit": limit}
    async with reading(connection, tenant):
        return [Doubt(**row) for row in await rows(connection, _LIST, values)]


async def find_doubt(connection: Connection, which: str, tenant: str | None = None) -> Doubt:
    """The effect in doubt of that id, of an id that begins so, or of that letter's number. Raises LetterRefused when
    there is none or several, and says so when it was settled."""
    async with reading(connection, tenant):
        found = await _meant(connection, which.lower())
    if len(found) > 1:
        raise LetterRefused(f"Several effects in doubt begin with {which!r}.", cure="Give more of the id.")
    if not found:
        looks = (
            "" if _ID.fullmatch(which) else " An effect's id looks like 01a1fda6, or longer; a letter's number like 12."
        )
        raise LetterRefused(
            f"No effect {which[:80]!r} is in doubt.{looks}", cure="circuit-script doubt list shows those that are."
        )
    doubt = Doubt(**found[0])
    if doubt.status != "in_doubt":
        raise await _settled(connection, doubt.id, doubt.status)
    return doubt


async def known_of(connection: Connection, doubt: Doubt, tenant: str | None = None) -> Known:
    """Everything that may help to decide."""
    async with reading(connection, tenant):
        attempts = await of_execution(connection, doubt.execution)
        return Known(
            doubt,
            await answers_of(connection, doubt.id),
            attempts,
            await lines_of(connection, [doubt.execution], doubt.record),
        )


async def settle_doubt(
    connection: Connection, doubt: Doubt, decision: Decision, by: str, why: str = "", *, vendor_id: str | None = None
) -> None:
    """Do as a person says, and keep who, when and why. ``vendor_id`` is the id of what the vendor made, if it did.
    Raises LetterRefused when somebody was quicker."""
    letter, said = _LETTERS[decision]
    values = {
        "id": doubt.id,
        "tenant": doubt.tenant,
        "execution": doubt.execution,
        "record": doubt.record,
        "attempts": doubt.attempts,
        "reason": doubt.reason or "",
        "letter": letter,
        "by": by,
        "why": f"{said}: {why}" if why else said,
    }
    async with connection.transaction():
        mine = await (await connection.execute(_LOCK, values)).fetchone()
        if mine is not None:
            match decision:
                case Decision.done:
                    await settle_delivered(connection, [doubt.id], by=by, note=why, vendor_id=vendor_id)
                case Decision.repeat:
                    await send_again(connection, [doubt.id], by=by, note=why)
                case Decision.discard:
                    await settle_discarded(connection, [doubt.id], by=by, note=why)
            if (await connection.execute(_CLOSE, values)).rowcount == 0:
                await connection.execute(_KEPT, values)
    if mine is None:
        raise await _settled(connection, doubt.id, "settled")


async def _meant(connection: Connection, which: str) -> list[dict[str, Any]]:
    if which.isdecimal() and not which.startswith("0"):  # an id begins with its time, and so with 0
        if len(which) > 18 or not which.isascii():
            return []
        found = await rows(connection, _OF_LETTER, {"letter": int(which)})
        return await rows(connection, _ANY, {"id": found[0]["effect"]}) if found else []
    found = await rows(connection, _MEANT, {"which": which}) if which else []
    if not found and len(which) == 36:
        try:
            return await rows(connection, _ANY, {"id": UUID(which)})
        except ValueError:
            return []
    return found


async def _settled(connection: Connection, effect: UUID, status: str) -> LetterRefused:
    """Who was quicker."""
    for row in await rows(connection, _LATEST, {"effect": effect}):
        if row["closed_at"] is not None:
            at = f"{row['closed_at'].astimezone():%Y-%m-%d %H:%M:%S}"
            later = (
                " Its vendor said later that it was done." if await rows(connection, _HEARD, {"effect": effect}) else ""
            )
            said = f"It is not in doubt any more: settled by {row['by']} at {at}, {row['why'] or ''}.{later}"
            return LetterRefused(said)
    return LetterRefused(f"The effect {effect} is not in doubt: it is {status}.")
