"""What becomes of effects by what their vendor said, and how it is told to the database."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    InDoubt,
    Later,
    Refused,
    SlowDown,
    Unknown,
)
from circuit_script.db.pool import Connection
from circuit_script.effects.due import Due, Group
from circuit_script.effects.order import order_hash

LONGEST_PAUSE = 300.0  # seconds, where a vendor asks for one and does not say how long
LONGEST_WISH = 86_400.0  # seconds that a vendor is granted at most
FORGOTTEN = "forgotten"  # the reason of an effect that was blanked: nothing more is kept of it
TOO_LATE = "it was on its way when it was cancelled, and its vendor has done it"
DONE_AFTER_ALL = "somebody discarded it before the answer of its vendor came, and its vendor has done it"

# Who has lost the lane changes nothing, also while it is being lost: the statement sees lanes as they were when it
# began, but a row that it waited for as it is, and one that another worker has marked or settled meanwhile is that
# worker's. But what is known to be done is not in doubt any more, not discarded, and not to be sent again under this
# worker's mark. What somebody cancelled or discarded while it was on its way ends by its answer, and nothing leaves
# after it; what a person discarded in doubt or dead, and its vendor has done, says so from then on.
SETTLE = f"""
WITH told AS (
    SELECT t.*, l.lane IS NOT NULL AS ours
    FROM unnest(%s::uuid[], %s::text[], %s::smallint[], %s::smallint[], %s::float8[], %s::text[], %s::text[],
                %s::boolean[], %s::timestamptz[], %s::timestamptz[], %s::smallint[], %s::bigint[])
        AS t (id, status, before, attempts, wait, reason, vendor_id, doubtful, left_at, mark, lane, epoch)
    LEFT JOIN circuit.lanes l ON l.lane = t.lane AND l.epoch = t.epoch AND l.owner = %s
), settled AS (
    UPDATE circuit.effects e
    SET status = CASE WHEN told.status = 'delivered' THEN 'delivered' WHEN e.status = 'discarded' THEN 'discarded'
                      WHEN e.cancelled AND told.status = 'pending' AND NOT told.doubtful THEN 'discarded'
                      ELSE told.status END,
        attempts = CASE WHEN e.status = 'discarded' THEN greatest(told.attempts, e.attempts) ELSE told.attempts END,
        next_at = now() + make_interval(secs => told.wait),
        reason = CASE WHEN told.status <> 'delivered' THEN told.reason
                      WHEN e.status = 'discarded' AND told.attempts <= e.attempts THEN '{DONE_AFTER_ALL}'
                      WHEN e.cancelled OR e.status = 'discarded' THEN '{TOO_LATE}' ELSE told.reason END,
        vendor_id = told.vendor_id, left_at = CASE WHEN told.doubtful THEN e.left_at END,
        settled_at = CASE WHEN told.status = 'pending' AND e.status = 'pending' AND (told.doubtful OR NOT e.cancelled)
                          THEN NULL ELSE now() END
    FROM told WHERE e.id = told.id
    AND (told.ours AND e.status = 'pending' AND e.attempts = told.before
         AND (e.left_at IS NOT DISTINCT FROM told.left_at OR e.left_at = told.mark)
         OR told.status = 'delivered' AND (e.status = 'in_doubt' OR e.status = 'pending' AND e.left_at = told.mark)
         OR e.status = 'discarded' AND (told.status = 'delivered' OR told.attempts > e.attempts)
            AND e.reason IS DISTINCT FROM '{FORGOTTEN}')
    RETURNING e.id, e.tenant, e.order_hash, e.seq, e.execution, e.record, e.attempts, e.status, e.next_at, e.reason
), postponed AS (  -- those behind it cannot leave before it, and need not be looked at again and again
    UPDATE circuit.effects e SET next_at = s.next_at
    FROM settled s WHERE s.status = 'pending' AND e.status = 'pending'
    AND e.tenant = s.tenant AND e.order_hash = s.order_hash AND e.seq > s.seq AND e.next_at < s.next_at
), heard AS (  -- it counts no attempt, so nothing else keeps it among its vendor's answers
    INSERT INTO circuit.effect_answers (effect, tenant, attempt, status, said)
    SELECT s.id, s.tenant, s.attempts, s.status, s.reason FROM settled s WHERE s.reason = '{DONE_AFTER_ALL}'
)
INSERT INTO circuit.dead_letters (kind, tenant, effect, execution, record, attempts, reason)
SELECT 'effect', s.tenant, s.id, s.execution, s.record, s.attempts, coalesce(s.reason, '')
FROM settled s WHERE s.status = 'dead'
"""
RESOLVE = "SELECT circuit.resolve(%s::uuid[])"
CONFIRM = "SELECT circuit.confirm(%s::uuid[], %s::timestamptz[], %s::bigint[])"

# Before what must not be repeated blindly: only those that are returned may leave. A mark that has come since it was
# read is another worker's: the statement sees lanes as they were when it began, but a row that it waited for as it is.
MARK = """
UPDATE circuit.effects e SET left_at = t.mark
FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::smallint[], %s::bigint[])
    AS t (id, left_at, mark, lane, epoch)
JOIN circuit.lanes l ON l.lane = t.lane AND l.epoch = t.epoch AND l.owner = %s
WHERE e.id = t.id AND e.status = 'pending' AND NOT e.cancelled AND e.left_at IS NOT DISTINCT FROM t.left_at
RETURNING e.id
"""

# A vendor's wish counts for every worker.
ASKED = """
INSERT INTO circuit.courier_waits AS w (tenant, connector, target, kind, worker, until, reason)
SELECT a.tenant, a.connector, a.target, 'asked', '00000000-0000-0000-0000-000000000000',
       now() + make_interval(secs => max(a.seconds)), min(a.reason)
FROM unnest(%s::text[], %s::text[], %s::text[], %s::float8[], %s::text[])
    AS a (tenant, connector, target, seconds, reason)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (tenant, connector, target, kind, operation, worker) DO UPDATE
SET until = greatest(w.until, excluded.until), reason = excluded.reason
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """How results of one operation are judged. ``attempts`` in all; delays double from ``backoff`` seconds;
    ``can_look``: what is in doubt can be looked up; ``counts``: what fails has used up an attempt."""

    in_doubt: InDoubt
    attempts: int
    backoff: float
    can_look: bool = False
    makes_ids: bool = False
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """A vendor's wish to be left alone, for so many seconds."""

    group: Group
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """What becomes of one effect; ``wait`` are the seconds until its next attempt."""

    due: Due
    status: str
    attempts: int
    wait: float = 0.0
    reason: str | None = None
    vendor_id: str | None = None
    doubtful: bool = False
    resolves: bool = False
    asked: Asked | None = None


def judge(due: Due, result: Delivery, rule: Rule) -> Told:
    """What a result means for its effect."""
    before = due.effect.attempts
    attempts = before + 1
    if not rule.counts and isinstance(result, Later | Unknown):
        attempts = before
    match result:
        case Delivered(vendor_id=made):
            return Told(due, "delivered", attempts, vendor_id=made, resolves=rule.makes_ids)
        case Refused(reason=reason):
            return Told(due, "dead", attempts, reason=reason, resolves=rule.makes_ids)
        case SlowDown(reason=reason, after=after):
            # Of no time at all, too, it would hear 429 again and again.
            seconds = _granted(after) or min(LONGEST_PAUSE, rule.backoff) * random.uniform(0.5, 1.0)
            # It is not the effect's fault: it stays as it is, and its target waits.
            return Told(due, "pending", before, reason=reason, asked=Asked(due.group, seconds, reason))
        case Unknown(reason=reason) if rule.in_doubt is not InDoubt.REPEAT and (
            not rule.can_look or attempts >= rule.attempts
        ):
            return Told(due, "in_doubt", attempts, reason=reason)
        case Unknown(reason=reason) | Later(reason=reason) if attempts >= rule.attempts:
            return Told(due, "dead", attempts, reason=reason, resolves=rule.makes_ids)
        case Unknown(reason=reason):
            looks = rule.in_doubt is InDoubt.LOOK_UP
            return Told(due, "pending", attempts, delay(rule, attempts), reason, doubtful=looks)
        case Later(reason=reason, after=asked):
            return Told(due, "pending", attempts, max(_granted(asked), delay(rule, attempts)), reason)


def delay(rule: Rule, attempts: int) -> float:
    """Seconds before the next attempt, between half and all of the doubled step, an hour at most."""
    step = min(3600.0, rule.backoff * 2.0 ** max(0, attempts - 1))
    return step * random.uniform(0.5, 1.0)  # spreads load, guards nothing


def _granted(wish: float | None) -> float:
    """The seconds that a vendor asks for; a day at most, and none for what is no number."""
    return float(min(wish, LONGEST_WISH)) if wish is not None and wish > 0 else 0.0  # an array has one type


async def settle(connection: Connection, told: Sequence[Told], worker: UUID) -> None:
    """Store what became of effects, where their lanes are still this worker's; what vendors asked for in any case."""
    homed = [each for each in told if each.due.homed]
    if homed:  # of records, rows are locked in one order
        told = sorted(told, key=lambda each: (each.due.group, each.vendor_id or each.due.effect.record or ""))
    values = [
        [each.due.effect.id for each in told],
        [each.status for each in told],
        [each.due.effect.attempts for each in told],
        [each.attempts for each in told],
        [each.wait for each in told],
        [plain(each.reason) for each in told],
        [plain(each.vendor_id) for each in told],
        [each.doubtful for each in told],
        [each.due.left_at for each in told],
        [each.due.mark for each in told],
        [each.due.lane for each in told],
        [each.due.epoch for each in told],
        worker,
    ]
    asked = [each.asked for each in told if each.asked is not None]
    made = [each.due.effect.id for each in told if each.resolves]
    if not asked and not made and not homed:
        await connection.execute(SETTLE, values)
        return
    async with connection.transaction():
        if asked:
            await connection.execute(ASKED, _asked(asked))
        await connection.execute(SETTLE, values)
        if done := [each for each in homed if each.status == "delivered"]:
            await connection.execute(CONFIRM, _confirmed(done))
        if made:
            await connection.execute(RESOLVE, [made])


async def mark(connection: Connection, due: Sequence[Due], worker: UUID) -> set[UUID]:
    """Say that these are about to leave; the ids of those that may."""
    values = [
        [each.effect.id for each in due],
        [each.left_at for each in due],
        [each.mark for each in due],
        [each.lane for each in due],
        [each.epoch for each in due],
        worker,
    ]
    return {row[0] for row in await (await connection.execute(MARK, values)).fetchall()}


def _confirmed(done: Sequence[Told]) -> list[object]:
    return [
        [each.due.effect.id for each in done],
        [each.due.mark for each in done],
        [order_hash(each.due.effect.tenant, plain(each.vendor_id) or each.due.effect.record or "") for each in done],
    ]


def _asked(asked: Sequence[Asked]) -> list[object]:
    return [
        [each.group.tenant for each in asked],
        [each.group.connector for each in asked],
        [each.group.target for each in asked],
        [each.seconds for each in asked],
        [plain(each.reason) for each in asked],
    ]


def plain(text: str | None) -> str | None:
    """Text that PostgreSQL takes: reasons quote what vendors answered."""
    return text and text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
