"""What whoever deploys asks of the place: what is live there, how far workers are, what became of a move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseUnknown
from circuit_script.jobs.schedules import now_of
from circuit_script.releases.figures import Counts, counts_of
from circuit_script.releases.kept import live_release, note_validated
from circuit_script.releases.moving import ONE_MOVE, HostState, Move, hosts_of, last_started, moves, previous, wanted
from circuit_script.releases.store import NewRelease, ReleaseRow, find_release, list_releases, put_release, release_of

HISTORY = 1000  # moves that are looked through for one release


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand. ``before`` was live before what is; ``last`` is the number of the latest move, 0 where there
    was none: until then workers run what their folder holds. ``now`` is the clock that all hosts share."""

    platform: str
    live: ReleaseRow | None
    before: ReleaseRow | None
    last: int
    workers: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far each worker is with a release; ``instead`` are names of those that workers make ready in its place."""

    hosts: Sequence[HostState]
    instead: Sequence[str]


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a move until ``now``: executions of its release since then, and the latest move."""

    counts: Counts
    latest: Move
    now: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """The latest releases, how each did lately by its number, and the latest moves."""

    releases: Sequence[ReleaseRow]
    counts: Mapping[int, Counts]
    moves: Sequence[Move]


@dataclass(frozen=True, slots=True)
class Shown:
    """One release: its moves, workers, executions since it was made, and when the last one of these began that began
    since some moment, of those that have ended."""

    release: ReleaseRow
    moves: Sequence[Move]
    hosts: Sequence[HostState]
    counts: Counts
    last_started: datetime | None = None


async def standing_of(connection: Connection) -> Standing:
    """Raises psycopg.Error."""
    live = await live_release(connection)
    try:
        before = await previous(connection)
    except ReleaseUnknown:
        before = None
    last = max((each.id for each in await moves(connection, 1)), default=0)
    workers = len(await hosts_of(connection, 0))
    return Standing(version("circuit-script"), live, before, last, workers, await now_of(connection))


async def keep_release(connection: Connection, new: NewRelease) -> ReleaseRow:
    """Keep it with its report; the same files are the release that is there, with the later report. Raises
    ReleaseRefused."""
    release = await put_release(connection, new)
    await note_validated(connection, release, new.report)
    return release


async def listed_of(connection: Connection, limit: int, since: datetime) -> Listed:
    """Executions are those that began since then. Raises psycopg.Error."""
    found = await list_releases(connection, limit)
    counts = await counts_of(connection, [each.id for each in found], since)
    return Listed(found, counts, await moves(connection, limit))


async def shown_of(connection: Connection, name: str, since: datetime | None = None, *, whole: bool = True) -> Shown:
    """By version, number or the beginning of its hash; unless ``whole`` without what takes long to count. Raises
    ReleaseUnknown."""
    found = await find_release(connection, name)
    last = None if since is None else await last_started(connection, found, since)
    if not whole:
        return Shown(found, (), (), Counts(), last)
    history = [each for each in await moves(connection, HISTORY) if found.id in (each.release, each.before)]
    counts = await counts_of(connection, [found.id], found.created)
    return Shown(found, history, await hosts_of(connection, found), counts.get(found.id, Counts()), last)


async def readiness_of(connection: Connection, release: ReleaseRow) -> Readiness:
    """Workers have few releases ready at a time: later ones may take its place."""
    hosts = await hosts_of(connection, release)
    now = await wanted(connection)
    if release.id == now.live or release.id in now.warm:
        return Readiness(hosts, ())
    return Readiness(hosts, [(await release_of(connection, each)).name for each in now.warm])


async def course_of(connection: Connection, move: int) -> Course:
    """Raises ReleaseUnknown where there is no such move."""
    rows = await (await connection.execute(ONE_MOVE, [move])).fetchall()
    if not rows:
        raise ReleaseUnknown(f"{move} is no move.", cure="`circuit-script releases` lists what there is.")
    found = Move(*rows[0])
    counts = await counts_of(connection, [found.release], found.at)
    return Course(counts.get(found.release, Counts()), (await moves(connection, 1))[0], await now_of(connection))
