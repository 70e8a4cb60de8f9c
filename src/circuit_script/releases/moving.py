"""What is live, and how that changes: workers are asked to have a release ready, and then a move makes it live.

A move is one transaction: the live release, routes, schedules, and the move's own row. Workers hear of it by a
notification, and look by themselves, too. While no move was ever made, workers run the files of their folder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.releases.records import Release, ids_of, make_live, route
from circuit_script.releases.store import ReleaseRow, find_release, release_of

CHANNEL = "circuit_release"
DEPLOY, ROLLBACK, AUTOMATIC, FOLDER = "deploy", "rollback", "automatic rollback", "folder"
PREPARING, READY, FAILED = "preparing", "ready", "failed"
UNHEARD = "it has not said anything yet"
WARM = 2  # releases beside the live one that workers have ready
NOTHING = 0  # is expected where nothing was ever deployed

WANT = "UPDATE circuit.releases SET wanted_at = clock_timestamp() WHERE id = %s"
FORGET_FAILED = "DELETE FROM circuit.release_hosts WHERE release = %s AND state = 'failed'"
NOTIFY = "SELECT pg_notify(%s, %s)"
HOSTS = """
SELECT w.id, w.host, coalesce(h.state, 'preparing'), coalesce(h.detail, %(unheard)s), coalesce(h.since, w.started_at)
FROM circuit.workers w LEFT JOIN circuit.release_hosts h ON h.worker = w.id AND h.release = %(release)s
WHERE w.expires_at > now() ORDER BY w.host, w.id
"""
LIVE = "SELECT release FROM circuit.live"
STORED = "SELECT content_hash, manifest FROM circuit.releases WHERE id = %s"
HAS_SOURCE = "SELECT FROM circuit.release_sources WHERE release = %s"
TENANTS = "SELECT DISTINCT tenant FROM circuit.schedule_tenants"
ENDED = "UPDATE circuit.moves SET watched = 'another move came' WHERE watch_until IS NOT NULL AND watched IS NULL"
NOTE = """
INSERT INTO circuit.moves (release, before, kind, by_whom, reason, watch_until)
VALUES (%s, %s, %s, %s, %s, clock_timestamp() + %s) RETURNING id
"""
MOVES = """
SELECT m.id, m.at, m.release, m.before, m.kind, m.by_whom, m.reason, r.version, b.version, m.watch_until, m.watched
FROM circuit.moves m JOIN circuit.releases r ON r.id = m.release LEFT JOIN circuit.releases b ON b.id = m.before
"""
LATEST_MOVES = f"{MOVES} ORDER BY m.id DESC LIMIT %s"
ONE_MOVE = f"{MOVES} WHERE m.id = %s"
BEFORE = "SELECT before FROM circuit.moves ORDER BY id DESC LIMIT 1"
STARTED = """
SELECT max(started_at) FROM circuit.executions
WHERE id >= circuit.uuid_floor(%(since)s::timestamptz - interval '5 s') AND release = %(release)s
  AND started_at > %(since)s
"""
# What is live, and what else is to be ready: what was live before, then what was asked for last.
WANTED = """
WITH live AS (SELECT release FROM circuit.live), last AS (SELECT before FROM circuit.moves ORDER BY id DESC LIMIT 1)
SELECT (SELECT release FROM live), EXISTS (SELECT FROM circuit.moves), w.id, w.wanted_at
FROM (SELECT) AS one LEFT JOIN LATERAL (
    SELECT r.id, r.wanted_at FROM circuit.releases r
    WHERE r.id IS DISTINCT FROM (SELECT release FROM live)
      AND (r.id = (SELECT before FROM last) OR r.wanted_at > now() - interval '1 day')
    ORDER BY (r.id = (SELECT before FROM last)) IS TRUE DESC, r.wanted_at DESC NULLS LAST LIMIT %s) AS w ON true
"""
TELL = """
INSERT INTO circuit.release_hosts AS h (release, worker, state, detail)
VALUES (%(release)s, %(worker)s, %(state)s, %(detail)s)
ON CONFLICT (release, worker) DO UPDATE SET state = excluded.state, detail = excluded.detail, since = clock_timestamp()
WHERE (h.state, h.detail) <> (excluded.state, excluded.detail)
"""
UNTELL = "DELETE FROM circuit.release_hosts WHERE worker = %s AND release <> ALL(%s)"
# A worker may say something before its first heartbeat.
BURY = """
DELETE FROM circuit.release_hosts h WHERE h.since < now() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM circuit.workers w WHERE w.id = h.worker)
"""


@dataclass(frozen=True, slots=True)
class HostState:
    """How far one worker is with a release: ``state`` is "preparing", "ready" or "failed", ``detail`` says why."""

    worker: UUID
    host: str
    state: str
    detail: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """One change of what is live. ``kind`` is "deploy", "rollback", "automatic rollback" or "folder"; ``watched`` says
    what came of the watch, None while it goes on and where there was none."""

    id: int
    at: datetime
    release: int
    before: int | None
    kind: str
    by: str
    reason: str
    version: str | None
    before_version: str | None
    watch_until: datetime | None
    watched: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What workers are to run and to have ready. ``deployed`` says whether anything ever was: before, each runs the
    files of its folder. ``warm`` are the releases to have ready, each with when that was last asked."""

    live: int | None
    deployed: bool
    warm: Mapping[int, datetime | None]


async def warm_up(connection: Connection, release: ReleaseRow | int) -> None:
    """Ask every worker to have it ready, also those that have failed to. Raises ReleaseUnknown, and ReleaseRefused
    where its files were not kept."""
    row = await release_of(connection, _id(release))
    if await (await connection.execute(HAS_SOURCE, [row.id])).fetchone() is None:
        raise ReleaseRefused(f"The files of {row.name} were not kept.", cure="Deploy them again.")
    async with connection.transaction():
        await connection.execute(WANT, [row.id])
        await connection.execute(FORGET_FAILED, [row.id])
        await connection.execute(NOTIFY, [CHANNEL, str(row.id)])


async def hosts_of(connection: Connection, release: ReleaseRow | int) -> list[HostState]:
    """How far each worker that lives is with it."""
    rows = await (await connection.execute(HOSTS, {"release": _id(release), "unheard": UNHEARD})).fetchall()
    return [HostState(worker, host.split(" ", 1)[0], *more) for worker, host, *more in rows]


async def go_live(
    connection: Connection,
    release: ReleaseRow | int,
    *,
    kind: str,
    by: str,
    reason: str = "",
    watch: timedelta | None = None,
    expected: int | None = None,
    tenants: Collection[str] | None = None,
) -> Move:
    """Make it live from the commit on. Its schedules fire for ``tenants``, None for those of the schedules before
    (workers add who is missing). Raises ReleaseUnknown, and ReleaseRefused where it is live already, or another release
    than ``expected`` would be replaced: NOTHING says that something was deployed, None that anything may be."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.live IN EXCLUSIVE MODE")
        before = await _live(connection)
        deployed = await (await connection.execute(BEFORE)).fetchone() is not None
        if expected is not None and (deployed if expected == NOTHING else before != expected):
            raise ReleaseRefused(f"Release {before} went live meanwhile.", cure="See who did: circuit-script releases")
        stored = await _stored(connection, _id(release))
        if before == stored.id:
            if deployed:
                raise ReleaseRefused(f"Release {before} is live already.", cure="See `circuit-script releases`.")
            before = None  # it ran from its folder until now
        if tenants is None:
            tenants = [name for (name,) in await (await connection.execute(TENANTS)).fetchall()]
        await route(connection, stored, tenants)
        return await note_move(connection, stored.id, before, kind=kind, by=by, reason=reason, watch=watch)


async def run_folder(
    connection: Connection, digest: str, handlers: Sequence[HandlerSpec], tenants: Collection[str], *, by: str = ""
) -> Release | None:
    """Make live what runs from a folder, as workers do while nothing was deployed. Once something was, that is a move,
    which somebody asks for (``by``): else None, and nothing changes."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.live IN EXCLUSIVE MODE")
        deployed = await (await connection.execute(BEFORE)).fetchone() is not None
        if deployed and not by:
            return None
        before = await _live(connection)
        release = await make_live(connection, digest, handlers, tenants)
        if deployed and release.id != before:
            await note_move(connection, release.id, before, kind=FOLDER, by=by, reason="", watch=None)
        return release


async def note_move(
    connection: Connection,
    release: int,
    before: int | None,
    *,
    kind: str,
    by: str,
    reason: str,
    watch: timedelta | None,
) -> Move:
    """Note a change of what is live and tell the workers: within the transaction that makes it."""
    await connection.execute(ENDED)
    row = await (await connection.execute(NOTE, [release, before, kind, by, reason, watch])).fetchone()
    assert row is not None
    if before is not None:
        await connection.execute(WANT, [before])  # it stays ready: the way back
    await connection.execute(NOTIFY, [CHANNEL, str(release)])
    (found,) = await (await connection.execute(ONE_MOVE, [row[0]])).fetchall()
    return Move(*found)


async def previous(connection: Connection) -> ReleaseRow:
    """What was live before the last move. Raises ReleaseUnknown."""
    row = await (await connection.execute(BEFORE)).fetchone()
    if row is None or row[0] is None:
        raise ReleaseUnknown(
            "Nothing was live before what is live now." if row else "Nothing was deployed yet.",
            cure="`circuit-script releases` lists what there is.",
        )
    return await find_release(connection, str(row[0]))


async def moves(connection: Connection, limit: int = 20) -> list[Move]:
    """The latest first."""
    return [Move(*row) for row in await (await connection.execute(LATEST_MOVES, [limit])).fetchall()]


async def last_started(connection: Connection, release: ReleaseRow | int, since: datetime) -> datetime | None:
    """When the last of its executions began that began after ``since``, of those that have ended; None: none did."""
    query = {"release": _id(release), "since": since}
    row = await (await connection.execute(STARTED, query)).fetchone()
    return row[0] if row else None


async def wanted(connection: Connection) -> Wanted:
    """What workers are to run and to have ready."""
    rows = await (await connection.execute(WANTED, [WARM])).fetchall()
    return Wanted(rows[0][0], rows[0][1], {id_: asked for _, _, id_, asked in rows if id_ is not None})


async def tell_state(connection: Connection, release: int, worker: UUID, state: str, detail: str = "") -> None:
    """Note how far a worker is with a release."""
    await connection.execute(TELL, {"release": release, "worker": worker, "state": state, "detail": detail[:4000]})


async def keep_states(connection: Connection, worker: UUID, releases: Collection[int]) -> None:
    """Forget what a worker said of other releases than these, and what those said that are gone."""
    await connection.execute(UNTELL, [worker, list(releases)])
    await connection.execute(BURY)


async def _live(connection: Connection) -> int | None:
    row = await (await connection.execute(LIVE)).fetchone()
    return row[0] if row else None


async def _stored(connection: Connection, release: int) -> Release:
    """As much of a recorded release as routes and schedules need."""
    row = await (await connection.execute(STORED, [release])).fetchone()
    if row is None:
        raise ReleaseUnknown(f"{release} is none.", cure="`circuit-script releases` lists what there is.")
    handlers = [_spec(each) for each in row[1]]
    ids = await ids_of(connection, [each.name for each in handlers])
    return Release(release, row[0], {ids[each.name]: each for each in handlers})


def _spec(stored: dict[str, Any]) -> HandlerSpec:
    routes = tuple((object_, event) for object_, event in stored.get("routes") or ())
    job = stored.get("job")
    return HandlerSpec(stored["name"], routes, job=None if job is None else msgspec.convert(job, JobSpec))


def _id(release: ReleaseRow | int) -> int:
    return release if isinstance(release, int) else release.id
