"""The watch over a release that has just gone live: its errors beside those of the one before, and the way back.

Of all workers one looks at a time, every few seconds. A release is taken back when more of its executions fail than of
the release before, by more than a tenth of a percentage point, and chance would hardly do that: were its true share of
errors just at that bound, it would see so many in less than one of a hundred cases. One event that fails again and
again is one error; fewer than three tell nothing. Nothing is taken back to what no worker can run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseRefused
from circuit_script.events.chores import GUARDIAN, succeeded
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import AUTOMATIC, FAILED, Move, go_live, hosts_of
from circuit_script.telemetry.guardian import Finding

BY = "the watch"
ALLOWED = 0.001  # share of executions that may fail more than before
CHANCE = 0.01  # of a release that just keeps to it to be taken back
FEWEST = 3  # errors, below which nothing is said
BEFORE = timedelta(minutes=30)  # of the release before, that are compared
LOOKED = 1000  # errors of which it is looked whether one event failed again and again
PASSED = "passed"
NOTE = f"{GUARDIAN} release watch"

# The open watch, for whoever asks first in a while.
CLAIM = """
UPDATE circuit.moves m SET looked_at = clock_timestamp()
WHERE m.watch_until IS NOT NULL AND m.watched IS NULL AND m.id = (SELECT max(id) FROM circuit.moves)
  AND (m.looked_at IS NULL OR m.looked_at < clock_timestamp() - %s)
RETURNING m.id, m.release, m.before, m.at, m.watch_until <= clock_timestamp()
"""
COUNTS = """
SELECT count(*), count(*) FILTER (WHERE x.status IN ('failed', 'partial', 'breached'))
FROM circuit.executions x
WHERE x.id >= circuit.uuid_floor(%(since)s) AND x.id < circuit.uuid_floor(%(until)s) AND x.release = %(release)s
  AND x.started_at >= %(since)s AND x.status NOT IN ('held', 'cancelled', 'deferred', 'echo')
"""
# Events that failed, each once, and calls of endpoints. A batch that runs again in parts has told of no event yet.
APART = """
SELECT count(DISTINCT (o.delivery, o.ordinal, o.handler)) FILTER (WHERE o.delivery IS NOT NULL)
     + count(*) FILTER (WHERE o.delivery IS NULL AND x.object = '')
FROM (SELECT id, object FROM circuit.executions
      WHERE id >= circuit.uuid_floor(%(since)s) AND id < circuit.uuid_floor(%(until)s) AND release = %(release)s
        AND started_at >= %(since)s AND status IN ('failed', 'partial', 'breached') ORDER BY id LIMIT %(most)s) x
LEFT JOIN circuit.outcomes o ON o.execution = x.id AND o.execution >= circuit.uuid_floor(%(since)s)
                            AND o.status IN ('retry', 'dead')
"""
VERSIONS = "SELECT id, coalesce(version, 'release ' || id) FROM circuit.releases WHERE id = ANY(%s)"
LOCK = "LOCK TABLE circuit.live IN EXCLUSIVE MODE"
OPEN = "SELECT FROM circuit.moves WHERE id = %s AND watched IS NULL"
SAY = "UPDATE circuit.moves SET watched = %s WHERE id = %s AND watched IS NULL"
ROLLED_BACK = "UPDATE circuit.moves SET watched = 'rolled back' WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Watching:
    """A move whose errors are watched. ``over`` says that its time is up."""

    move: int
    release: int
    before: int | None
    at: datetime
    over: bool


async def claim(connection: Connection, every: float) -> Watching | None:
    """What is to be looked at now, for one worker of all in so many seconds. Raises psycopg.Error."""
    row = await (await connection.execute(CLAIM, [timedelta(seconds=every)])).fetchone()
    return None if row is None else Watching(*row)


async def look(connection: Connection, watching: Watching) -> Move | None:
    """Judge its errors. The move back where it is one too many; the end of the watch is noted. Raises psycopg.Error."""
    now = datetime.max.replace(tzinfo=watching.at.tzinfo, year=2999)
    new = await _counts(connection, watching.release, watching.at, now)
    old = Counts()
    if watching.before is not None and new.errors >= FEWEST:
        old = await _counts(connection, watching.before, watching.at - BEFORE, watching.at)
    if is_worse(new, old):
        return await _back(connection, watching, new, old)
    if watching.over:
        await connection.execute(SAY, [PASSED, watching.move])
    return None


def is_worse(new: Counts, old: Counts) -> bool:
    """Whether ``new`` fails more often than ``old``, by more than is allowed and more than chance would have it."""
    bound = min(1.0, old.share + ALLOWED)
    return new.errors >= FEWEST and new.share > bound and _at_least(new.errors, new.executions, bound) < CHANCE


def _at_least(errors: int, of: int, share: float) -> float:
    """How likely so many errors or more are, of so many executions that each fail with this probability."""
    if share >= 1.0:
        return 1.0
    total, odds = 0.0, share / (1 - share)
    ways = math.lgamma(of + 1) - math.lgamma(errors + 1) - math.lgamma(of - errors + 1)
    term = math.exp(ways + errors * math.log(share) + (of - errors) * math.log1p(-share))
    for number in range(errors, of + 1):
        total += term
        term *= odds * (of - number) / (number + 1)
        if term < total * 1e-12:
            break
    return total


async def _counts(connection: Connection, release: int, since: datetime, until: datetime) -> Counts:
    """Its executions and errors, where what fails again and again counts once."""
    values = {"release": release, "since": since, "until": until}
    row = await (await connection.execute(COUNTS, values)).fetchone()
    executions, failed = row if row is not None else (0, 0)
    if failed < FEWEST:
        return Counts(executions, failed)
    row = await (await connection.execute(APART, {**values, "most": LOOKED})).fetchone()
    looked = min(failed, LOOKED)
    errors = failed * min(row[0] if row is not None else 0, looked) // looked
    return Counts(executions - failed + errors, errors)


async def _back(connection: Connection, watching: Watching, new: Counts, old: Counts) -> Move | None:
    """Take it back and have the channels of alerts told. None where somebody has moved, or there is no way back."""
    names: dict[int, str] = dict(
        await (await connection.execute(VERSIONS, [[watching.release, watching.before]])).fetchall()
    )
    bad = names[watching.release]
    what = f"{new.errors:,} of {new.executions:,} executions of {bad} failed ({new.share:.2%})"
    if watching.before is None:
        await _stays(connection, watching, what, "nothing was live before, there is no release before it")
        return None
    good = names[watching.before]
    hosts = await hosts_of(connection, watching.before)
    if hosts and all(each.state == FAILED for each in hosts):
        await _stays(connection, watching, what, f"no worker can run {good}: {hosts[0].detail}")
        return None
    reason = f"{what}; of {good} before it {old.errors:,} of {old.executions:,} ({old.share:.2%})"
    try:
        async with connection.transaction():
            await connection.execute(LOCK)  # as a move does: from now on none comes
            if await (await connection.execute(OPEN, [watching.move])).fetchone() is None:
                return None
            move = await go_live(
                connection, watching.before, kind=AUTOMATIC, by=BY, reason=reason, expected=watching.release
            )
            await connection.execute(ROLLED_BACK, [watching.move])
            next_ = f"circuit-script effects --release {bad}"
            await _tell(connection, watching, f"{bad} was rolled back to {good}: {reason}.", next_)
    except ReleaseRefused:
        return None
    return move


async def _stays(connection: Connection, watching: Watching, what: str, why: str) -> None:
    """Nobody can take it back: that is told, and the watch is over."""
    async with connection.transaction():
        await connection.execute(SAY, [f"{what}; {why}", watching.move])
        await _tell(connection, watching, f"{what}; {why}.", "circuit-script releases")


async def _tell(connection: Connection, watching: Watching, what: str, next_: str) -> None:
    """As the guardian tells of what it finds."""
    finding = Finding(f"release:{watching.move}", "critical", what, watching.at, next_)
    await succeeded(connection, NOTE, findings=[finding.as_row()])
