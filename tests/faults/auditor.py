"""The auditor: holds what senders were told against what the vendor saw and what the database keeps.

It shares no code with the platform: it reads the database by plain SQL, and knows the events by the marks that the
senders gave them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import psycopg

from tests.faults.story import HANDLERS, Acked, Findings, Kept, Seen

EVENTS = """
SELECT d.vendor_id, count(*), min(d.id::text) FROM circuit.deliveries d
JOIN circuit.events e ON e.delivery = d.id WHERE d.vendor_id = ANY(%s) GROUP BY 1
"""
OUTCOMES = """
SELECT d.vendor_id, h.name, o.status, count(*) FROM circuit.deliveries d
JOIN circuit.outcomes o ON o.delivery = d.id JOIN circuit.handlers h ON h.id = o.handler
WHERE d.vendor_id = ANY(%s) GROUP BY 1, 2, 3
"""
ROWS = """
SELECT data ->> 'mark', data ->> 'handler', count(*) FROM circuit.records
WHERE object = 'Tally' AND data ->> 'mark' = ANY(%s) GROUP BY 1, 2
"""
QUIET = """
SELECT (SELECT count(*) FROM circuit.queue) + (SELECT count(*) FROM circuit.delayed_jobs),
       (SELECT count(*) FROM circuit.effects WHERE status = 'pending'), (SELECT count(*) FROM circuit.dead_letters),
       (SELECT count(*) FROM circuit.replays WHERE status = 'running'),
       (SELECT coalesce(sum(id), 0) FROM circuit.queue), (SELECT coalesce(sum(attempts), 0) FROM circuit.effects)
"""
GIVE_UP = (
    "DELETE FROM circuit.queue",
    "DELETE FROM circuit.delayed_jobs",
    "DELETE FROM circuit.dead_letters",
    "UPDATE circuit.effects SET status = 'discarded' WHERE status = 'pending'",
    "UPDATE circuit.replays SET status = 'cancelled', ended_at = now() WHERE status = 'running'",
)
PASSING = frozenset({"retry", "deferred"})


def audit(acked: Sequence[Acked], seen: Sequence[Seen], kept: Mapping[str, Kept]) -> Findings:
    """Compare the three stories of one schedule, once nothing is left to do."""
    found = Findings()
    known = {each.mark: each for each in acked}
    keys: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for each in seen:
        keys[each.mark, each.handler].add(each.key)
        origin = known.get(each.mark)
        if origin is None:
            found.strange.append(f"{each.mark} came to the vendor, and its sender was never told that it was taken")
        elif (origin.tenant, origin.record) != (each.tenant, each.record):
            found.strange.append(f"{each.mark} of {origin.tenant} came as {each.tenant}'s {each.record}")
        elif each.handler not in origin.callers:
            found.strange.append(f"{each.mark} came from {each.handler}, which nobody had asked")
    for mark, origin in known.items():
        for handler in origin.callers:
            if not keys.get((mark, handler)):
                found.lost.append(f"{mark} (acknowledged as {origin.id}) never came to the vendor from {handler}")
        of_the_database(found, origin, kept.get(mark))
    for (mark, handler), several in keys.items():
        if len(several) > 1:
            found.doubled.append(f"{mark} came from {handler} under {len(several)} keys: {sorted(several)}")
    _order(found, known, seen)
    return found


def of_the_database(found: Findings, origin: Acked, kept: Kept | None) -> None:
    """What the database keeps of one delivery: its event once, and of each caller one success and one row."""
    mark = origin.mark
    if kept is None:
        found.lost.append(f"{mark} (acknowledged as {origin.id}) is not in the ledger")
        return
    if kept.events != 1:
        found.doubled.append(f"{mark} is in the ledger {kept.events} times")
    elif kept.id != origin.id:
        found.strange.append(f"{mark} was acknowledged as {origin.id} and stands in the ledger as {kept.id}")
    for handler in HANDLERS:
        times, ends = kept.succeeded.get(handler, 0), kept.ended.get(handler, [])
        if times != 1 or ends:
            (found.lost if times == 0 else found.doubled).append(
                f"{mark} succeeded {times} times in {handler}" + (f", and ended as {ends}" if ends else "")
            )
    for handler in origin.callers:
        if (rows := kept.rows.get(handler, 0)) != 1:
            (found.lost if rows == 0 else found.doubled).append(f"{mark} of {handler} has {rows} rows in the CRM")


def _order(found: Findings, known: Mapping[str, Acked], seen: Sequence[Seen]) -> None:
    """Per record and handler, by what came first under each mark. Jobs have no order among each other."""
    ranks: dict[tuple[str, str, str], tuple[int, str]] = {}
    first: set[tuple[str, str]] = set()
    for each in seen:
        origin = known.get(each.mark)
        if origin is None or each.handler not in HANDLERS or (each.mark, each.handler) in first:
            continue
        first.add((each.mark, each.handler))
        lane = origin.tenant, origin.record, each.handler
        rank, before = ranks.get(lane, (-1, ""))
        if origin.rank < rank:
            found.disordered.append(f"{each.mark} came from {each.handler} after {before}")
        else:
            ranks[lane] = origin.rank, each.mark


def read(url: str, marks: Sequence[str]) -> dict[str, Kept]:
    """What the database at ``url`` keeps of these marks."""
    listed = list(marks)
    kept: dict[str, Kept] = {}
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        for mark, events, id_ in connection.execute(EVENTS, [listed]):
            kept[mark] = Kept(events, {}, {}, {}, id_)
        for mark, name, status, times in connection.execute(OUTCOMES, [listed]):
            handler = name.rpartition(".")[2]
            if status == "succeeded":
                kept[mark].succeeded[handler] = times
            elif status not in PASSING:
                kept[mark].ended.setdefault(handler, []).append(status)
        for mark, handler, count in connection.execute(ROWS, [listed]):
            if mark in kept:
                kept[mark].rows[handler] = count
    return kept


def routed(url: str) -> int:
    """How many handlers of the live release have events to expect."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        row = connection.execute("SELECT count(DISTINCT handler) FROM circuit.routes").fetchone()
        assert row is not None
        return int(row[0])


def waiting(url: str) -> tuple[Counter[str], tuple[int, ...]]:
    """How many queue rows, effects and dead letters there are; and what changes with whatever is done about them."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        row = connection.execute(QUIET).fetchone()
        assert row is not None
        return Counter({"queue": row[0], "effects": row[1], "dead": row[2], "replays": row[3]}), tuple(map(int, row))


def give_up(url: str) -> None:
    """Take off what got stuck, so that no later schedule mistakes it for its own."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        for statement in GIVE_UP:
            connection.execute(statement.encode())
