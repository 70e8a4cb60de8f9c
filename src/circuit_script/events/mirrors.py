"""Sources that an old service still answers: who acts on them, what it said, and how ours compares.

A delivery that the old service took stands in the ledger, without a row in the queue, and in ``circuit.mirrored`` with
the old answer. Any worker claims such rows, compares, and settles each once. A move says from when on ours acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from circuit_script.db.binary_arrays import byteas, integers, smallints, texts
from circuit_script.db.pool import Connection
from circuit_script.errors import MirrorRefused
from circuit_script.events.ledger import Ledger, LedgerRow, row_parameters
from circuit_script.events.mirror_moves import OLD, MirrorState, one, read_states
from circuit_script.events.sources import Reason

State = Literal["same", "different", "incomparable", "silent"]

MOST_DIFFERENCES = 20  # of one delivery that are kept
MOST_KEPT = 2048  # characters of each value
KEPT_DAYS = 7
STALE = timedelta(seconds=60)  # after which what a living worker took and never settled is another's


_OPEN = 2000  # of the oldest that are not compared yet, among which a worker chooses

TAKE_IN = """
    SELECT * FROM circuit.take_in_mirrored(
        %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::jsonb[],
        %b::bytea[], %b::int[], %b::smallint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[],
        %b::smallint[], %b::smallint[], %b::smallint[], %b::text[], %b::bytea[], %b::int[])
"""
# One worker claims at a time: two at once would share out what belongs in one order.
LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('circuit.mirrored'))"
CLAIM = """
WITH open AS MATERIALIZED (
    SELECT delivery, tenant, order_hashes, worker, state = 'taken' AND taken_at > clock_timestamp() - %(stale)s
           AND worker IN (SELECT id FROM circuit.workers WHERE expires_at > clock_timestamp()) AS held
    FROM circuit.mirrored WHERE state IN ('pending', 'taken') ORDER BY delivery LIMIT %(open)s
), chosen AS (
    SELECT o.delivery FROM open o
    WHERE NOT o.held AND NOT EXISTS (
        SELECT FROM open e WHERE e.held AND e.worker <> %(worker)s AND e.delivery < o.delivery
        AND e.tenant = o.tenant AND e.order_hashes && o.order_hashes)
    ORDER BY o.delivery LIMIT %(limit)s
)
UPDATE circuit.mirrored m SET state = 'taken', worker = %(worker)s, taken_at = clock_timestamp()
FROM chosen c WHERE m.delivery = c.delivery RETURNING m.delivery
"""
CLAIMED = """
SELECT m.delivery, m.source, d.account, m.tenant, m.at, d.body, m.old_status, m.old_type, m.old_body, m.old_ms,
       m.order_hashes
FROM circuit.mirrored m JOIN circuit.deliveries d ON d.id = m.delivery
WHERE m.delivery = ANY(%s) ORDER BY m.delivery
"""
EVENTS = """
SELECT delivery, id, ordinal, object, event, record FROM circuit.events WHERE delivery = ANY(%s)
ORDER BY delivery, ordinal
"""
SETTLE = """
WITH judged AS (
    SELECT * FROM jsonb_to_recordset(%(judged)s::jsonb) AS j (
        delivery uuid, state text, release bigint, ours_ms real, why text, differences jsonb)
)
UPDATE circuit.mirrored m SET state = j.state, release = j.release, ours_ms = j.ours_ms, why = j.why,
    differences = j.differences, judged_at = clock_timestamp()
FROM judged j WHERE m.delivery = j.delivery AND m.state = 'taken' AND m.worker = %(worker)s
"""
COUNTS = """
SELECT count(*) FILTER (WHERE state IN ('pending', 'taken')), count(*) FILTER (WHERE state = 'same'),
       count(*) FILTER (WHERE state = 'different'), count(*) FILTER (WHERE state = 'incomparable'),
       count(*) FILTER (WHERE state = 'silent'),
       percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY old_ms),
       percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ours_ms)
FROM circuit.mirrored
WHERE source = %(source)s AND at >= %(since)s
  AND (release IS NULL OR %(release)s::bigint IS NULL OR release = %(release)s)
"""
WHYS = """
SELECT why, count(*) FROM circuit.mirrored
WHERE source = %(source)s AND at >= %(since)s AND state IN ('incomparable', 'silent')
  AND (release IS NULL OR %(release)s::bigint IS NULL OR release = %(release)s)
GROUP BY why ORDER BY 2 DESC, 1 LIMIT 10
"""
SHOWN = """
SELECT delivery, source, tenant, at, state, why, old_status, old_ms, ours_ms, release, old_body, differences
FROM circuit.mirrored
"""
EXAMPLES = f"""{SHOWN} WHERE source = %(source)s AND at >= %(since)s AND state = 'different'
  AND (release IS NULL OR %(release)s::bigint IS NULL OR release = %(release)s) ORDER BY delivery LIMIT 10
"""
REFUSED = """
SELECT coalesce(sum(n) FILTER (WHERE reason <> ALL(%(ours)s)), 0)::bigint,
       coalesce(sum(n) FILTER (WHERE reason = %(unkept)s), 0)::bigint,
       coalesce(sum(n) FILTER (WHERE reason = %(took)s), 0)::bigint
FROM circuit.refusals WHERE source = %(source)s AND day >= %(since)s::date
"""
# A delivery that ours took, and not the old service.
OURS_ALREADY = """
SELECT s.delivery FROM circuit.seen s
WHERE s.source = %s AND s.account = %s AND s.vendor_id = %s
  AND NOT EXISTS (SELECT FROM circuit.mirrored m WHERE m.delivery = s.delivery)
"""
_NOT_ITS_FAULT = [
    str(each)
    for each in (
        Reason.OVERLOADED, Reason.DATABASE_AWAY, Reason.KEYS_AWAY, Reason.TOO_LARGE, Reason.UNSTORABLE,
        Reason.OLD_AWAY, Reason.NOT_MIRRORED, Reason.OLD_TOOK,
    )
]  # fmt: skip


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value of the old answer beside ours. ``said`` is the line for people: "Flask score 78, ours 77"."""

    record: str
    field: str
    old: str
    ours: str
    said: str


@dataclass(frozen=True, slots=True)
class MirroredEvent:
    """An event of a mirrored delivery, as the queue would have had it."""

    id: int
    ordinal: int
    object: str
    event: str
    record: str
    order_hash: int


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A delivery that the old service took (2xx), to be compared. ``old_body`` are at most 64 KB, decompressed;
    ``old_ms`` is how long its answer took."""

    delivery: UUID
    source: str
    account: str
    tenant: str
    at: datetime
    body: bytes
    old_status: int
    old_type: str
    old_body: bytes
    old_ms: float
    events: tuple[MirroredEvent, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one. ``why`` is said of those that are not compared (incomparable, silent)."""

    delivery: UUID
    state: State
    release: int
    ours_ms: float
    why: str = ""
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class OldAnswer:
    """What the old service said: status 0 is nothing at all. ``body`` are its first 64 KB, decompressed."""

    status: int
    content_type: str
    body: bytes
    ms: float


@dataclass(frozen=True, slots=True)
class Shown:
    """One mirrored delivery as people see it. ``old_answer`` is what of its body is text."""

    delivery: UUID
    source: str
    tenant: str | None
    at: datetime
    state: str
    why: str
    old_status: int
    old_ms: float
    ours_ms: float | None
    release: int | None
    old_answer: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """Both sides of a source since ``since``. ``parity`` is the share of those compared (same, different,
    incomparable) that are the same, None while there are none; times are p50 and p95 in milliseconds.
    ``unverified`` were forwarded and not kept, ``taken_unverified`` are those of them that the old service took (2xx);
    ``unkept`` could not be written. These three are counted by day."""

    state: MirrorState
    since: datetime
    pending: int
    same: int
    different: int
    incomparable: int
    silent: int
    unverified: int
    taken_unverified: int
    unkept: int
    old_ms: tuple[float, float] | None
    ours_ms: tuple[float, float] | None
    whys: tuple[tuple[str, int], ...]
    examples: tuple[Shown, ...]

    @property
    def compared(self) -> int:
        return self.same + self.different + self.incomparable

    @property
    def parity(self) -> float | None:
        return self.same / self.compared if self.compared else None


async def keep(ledger: Ledger, rows: Sequence[LedgerRow], answers: Sequence[OldAnswer]) -> None:
    """Commit deliveries that the old service was given, with what it said to each; what came before is left out.
    Raises LedgerAway and Unstorable."""
    answered = (
        smallints([each.status for each in answers]),
        texts([each.content_type for each in answers]),
        byteas([each.body for each in answers]),
        integers([min(int(each.ms * 1000), 2**31 - 1) for each in answers]),
    )
    await ledger.run(TAKE_IN, (*row_parameters(rows), *answered), binary=True)


async def ours_already(ledger: Ledger, row: LedgerRow) -> UUID | None:
    """Our delivery, where ours has taken this one before and the old service has not. Raises LedgerAway."""
    if row.vendor_id is None:
        return None
    rows = await ledger.run(OURS_ALREADY, (row.source, row.account, row.vendor_id))
    return rows[0][0] if rows else None


async def claim_mirrored(connection: Connection, worker: UUID, limit: int) -> list[Mirrored]:
    """Take up to so many, the oldest first; none of an order key of which another worker has an earlier one, so that a
    record's deliveries are compared in their order. Raises psycopg.Error."""
    async with connection.transaction():
        if not (await one(connection, LOCK, []))[0]:
            return []
        values = {"worker": worker, "stale": STALE, "open": _OPEN, "limit": limit}
        taken = [id_ for (id_,) in await (await connection.execute(CLAIM, values)).fetchall()]
    if not taken:
        return []
    rows = await (await connection.execute(CLAIMED, [taken])).fetchall()
    found = await (await connection.execute(EVENTS, [taken])).fetchall()
    events: dict[UUID, list[tuple[Any, ...]]] = {}
    for delivery, *event in found:
        events.setdefault(delivery, []).append(tuple(event))
    return [_mirrored(row, events.get(row[0], [])) for row in rows]


def _mirrored(row: tuple[Any, ...], events: Sequence[tuple[Any, ...]]) -> Mirrored:
    paired = zip(events, row[-1], strict=False)  # a delivery whose events are gone has none
    made: dict[str, Any] = {"events": tuple(MirroredEvent(*(*event, each)) for event, each in paired)}
    return Mirrored(*row[:-1], **made)


async def settle_mirrored(connection: Connection, worker: UUID, judged: Sequence[Judged]) -> int:
    """Store what came of those that this worker has; how many counted. What another has taken meanwhile does not.
    Raises psycopg.Error."""
    rows = [
        {
            "delivery": str(each.delivery), "state": each.state, "release": each.release, "ours_ms": each.ours_ms,
            "why": _short(each.why), "differences": [_kept(one) for one in each.differences[:MOST_DIFFERENCES]],
        }
        for each in judged
    ]  # fmt: skip
    values = {"judged": msgspec.json.encode(rows).decode(), "worker": worker}
    return (await connection.execute(SETTLE, values)).rowcount if rows else 0


def _kept(difference: Difference) -> Mapping[str, str]:
    return {name: _short(value) for name, value in msgspec.to_builtins(difference).items()}


def _short(text: str) -> str:
    """What PostgreSQL can hold of it."""
    return text[:MOST_KEPT].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


async def report_of(
    connection: Connection, source: str, since: datetime, *, release: int | None = None
) -> MirrorReport:
    """Both sides of a source since then, of comparisons with this release of ours only where one is said."""
    values = {"source": source, "since": since, "release": release}
    state = (await read_states(connection)).get(source, MirrorState(source, OLD))
    pending, same, different, incomparable, silent, old_ms, ours_ms = await one(connection, COUNTS, values)
    refused = {"source": source, "since": since, "ours": _NOT_ITS_FAULT, "unkept": str(Reason.NOT_MIRRORED),
               "took": str(Reason.OLD_TOOK)}  # fmt: skip
    unverified, unkept, taken_unverified = await one(connection, REFUSED, refused)
    whys = await (await connection.execute(WHYS, values)).fetchall()
    examples = await (await connection.execute(EXAMPLES, values)).fetchall()
    return MirrorReport(
        state, since, pending, same, different, incomparable, silent, unverified, taken_unverified, unkept,
        _pair(old_ms), _pair(ours_ms),
        tuple((why, n) for why, n in whys), tuple(_shown(row) for row in examples),
    )  # fmt: skip


async def shown(connection: Connection, delivery: UUID) -> Shown:
    """One mirrored delivery. Raises MirrorRefused where there is none of that id."""
    row = await (await connection.execute(f"{SHOWN} WHERE delivery = %s", [delivery])).fetchone()
    if row is None:
        raise MirrorRefused(
            f"No old service was given a delivery {delivery}, or it was more than {KEPT_DAYS} days ago.",
            cure="`circuit-script mirror` shows some that differ, with their ids.",
        )
    return _shown(row)


def _shown(row: tuple[Any, ...]) -> Shown:
    return Shown(*row[:-2], **_answered(*row[-2:]))


def _answered(old_body: bytes, differences: Any) -> dict[str, Any]:
    answer = bytes(old_body).decode("utf-8", "replace")[:MOST_KEPT]
    return {"old_answer": answer, "differences": tuple(msgspec.convert(differences, list[Difference]))}


def _pair(values: Sequence[float | None] | None) -> tuple[float, float] | None:
    match values:
        case [float() as half, float() as most]:
            return half, most
        case _:
            return None
