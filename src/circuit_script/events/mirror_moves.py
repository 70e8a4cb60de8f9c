"""Who acts on a mirrored source: moves from the old service to ours and back, and the watch over the latest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from circuit_script.db.pool import Connection
from circuit_script.errors import MirrorRefused

OLD: Literal["old"] = "old"
NEW: Literal["new"] = "new"
Acts = Literal["old", "new"]
_LOOKED = 100_000  # of the latest deliveries of all sources, by which ours is watched

STATE = """
SELECT source, acts, since, by_whom, reason, old_of, old_errors, watch_until, watched FROM circuit.mirrors
"""
OLD_COUNTS = """
SELECT count(*), count(*) FILTER (WHERE old_status = 0 OR old_status >= 500) FROM circuit.mirrored
WHERE source = %(source)s
"""
MOVE = """
INSERT INTO circuit.mirrors AS m (source, acts, by_whom, reason, old_of, old_errors, watch_until)
VALUES (%(source)s, %(to)s, %(by)s, %(reason)s, %(old_of)s, %(old_errors)s, clock_timestamp() + %(watch)s)
ON CONFLICT (source) DO UPDATE SET acts = excluded.acts, since = clock_timestamp(), by_whom = excluded.by_whom,
    reason = excluded.reason, old_of = excluded.old_of, old_errors = excluded.old_errors,
    watch_until = excluded.watch_until, looked_at = NULL, watched = NULL
WHERE m.acts <> excluded.acts RETURNING m.source
"""
NOTE = "INSERT INTO circuit.mirror_moves (source, acts, by_whom, reason) VALUES (%s, %s, %s, %s)"
MOVES = "SELECT at, source, acts, by_whom, reason FROM circuit.mirror_moves WHERE source = %s ORDER BY id DESC LIMIT %s"
LIVE = "SELECT release FROM circuit.live"
CLAIM_WATCH = """
UPDATE circuit.mirrors m SET looked_at = clock_timestamp()
WHERE m.source = (
    SELECT source FROM circuit.mirrors WHERE acts = 'new' AND watch_until IS NOT NULL AND watched IS NULL
    AND (looked_at IS NULL OR looked_at < clock_timestamp() - %s) ORDER BY looked_at NULLS FIRST LIMIT 1)
  AND (m.looked_at IS NULL OR m.looked_at < clock_timestamp() - %s)
RETURNING m.source, m.watch_until <= clock_timestamp()
"""
# What an event's handler made of it in the end counts once, however often it was tried.
OURS = """
SELECT count(*), count(*) FILTER (WHERE bad) FROM (
    SELECT bool_or(o.status IN ('retry', 'dead', 'failed')) AS bad
    FROM (SELECT id, source FROM circuit.deliveries WHERE id >= circuit.uuid_floor(%(since)s)
          ORDER BY id DESC LIMIT %(most)s) d
    JOIN circuit.outcomes o ON o.delivery = d.id AND o.delivery >= circuit.uuid_floor(%(since)s)
    WHERE d.source = %(source)s AND o.status IN ('succeeded', 'retry', 'dead', 'failed')
      AND NOT EXISTS (SELECT FROM circuit.mirrored m WHERE m.delivery = d.id)
    GROUP BY o.delivery, o.ordinal, o.handler) AS each
"""
SAY = "UPDATE circuit.mirrors SET watched = %s WHERE source = %s AND acts = 'new' AND watched IS NULL"


@dataclass(frozen=True, slots=True)
class MirrorState:
    """Who acts on a source. ``since`` is None while nobody has ever moved it."""

    source: str
    acts: Acts
    since: datetime | None = None
    by: str = ""
    reason: str = ""
    old_of: int = 0
    old_errors: int = 0
    watch_until: datetime | None = None
    watched: str | None = None


async def read_states(connection: Connection) -> dict[str, MirrorState]:
    """Of each source that was ever moved. Raises psycopg.Error."""
    return {row[0]: MirrorState(*row) for row in await (await connection.execute(STATE)).fetchall()}


async def move(
    connection: Connection,
    source: str,
    to: Acts,
    *,
    by: str,
    reason: str = "",
    watch: timedelta | None = None,
    expected: datetime | None = None,
) -> MirrorState:
    """From now on this side acts on the source's deliveries; gateways hear of it within a second. With ``watch`` the
    errors of ours are watched. Raises MirrorRefused where it does already, or where the last move was not the
    ``expected``, and psycopg.Error."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.mirrors IN SHARE ROW EXCLUSIVE MODE")
        before = (await read_states(connection)).get(source, MirrorState(source, OLD))
        if before.acts == to:
            who = "The old service acts" if to == OLD else "This app acts"
            raise MirrorRefused(f"{who} on deliveries of {source} already.", cure="circuit-script mirror")
        if expected is not None and before.since != expected:
            raise MirrorRefused(f"Somebody moved {source} meanwhile.", cure="circuit-script mirror")
        of, errors = await one(connection, OLD_COUNTS, {"source": source})
        values = {
            "source": source, "to": to, "by": by, "reason": reason, "watch": watch, "old_of": of, "old_errors": errors,
        }  # fmt: skip
        await connection.execute(MOVE, values)
        await connection.execute(NOTE, [source, to, by, reason])
        return (await read_states(connection))[source]


async def live_of(connection: Connection) -> int | None:
    """The release of ours that counts."""
    row = await (await connection.execute(LIVE)).fetchone()
    return None if row is None else int(row[0])


async def claim_watch(connection: Connection, every: timedelta) -> tuple[MirrorState, bool] | None:
    """A source whose errors are to be looked at now, for one worker of all; and whether its watch is over."""
    row = await (await connection.execute(CLAIM_WATCH, [every, every])).fetchone()
    return None if row is None else ((await read_states(connection))[row[0]], row[1])


async def ours_of(connection: Connection, state: MirrorState, since: datetime | None = None) -> tuple[int, int]:
    """Of what ours took since then, or since it acts: events by handler, and those of them that failed."""
    values = {"source": state.source, "since": since or state.since, "most": _LOOKED}
    of, errors = await one(connection, OURS, values)
    return of, errors


async def end_watch(connection: Connection, source: str, what: str) -> None:
    """Say what came of it."""
    await connection.execute(SAY, [what, source])


async def one(connection: Connection, statement: str, values: Mapping[str, Any] | Sequence[Any]) -> tuple[Any, ...]:
    """The row of a statement that always has one."""
    row = await (await connection.execute(statement, values)).fetchone()
    assert row is not None
    return row
