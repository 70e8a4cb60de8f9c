"""Releases that were deployed: put in once, never changed, found by version, number or hash."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from importlib.metadata import version as installed
from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases.records import ids_of, manifest_of

FIRST = "v1.0.0"
NEAR = 5  # names that are told to who asked for one that is not there
SHORTEST_HASH = 4  # characters of a hash that are taken for its beginning
_VERSION = re.compile(r"v(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")

COLUMNS = """
SELECT r.id, r.version, r.content_hash, r.platform, r.author, r.message, r.created_at,
       coalesce(r.id = circuit.live_release(), false), jsonb_array_length(r.manifest), r.report, r.requirements
FROM circuit.releases r
"""
# What only ever ran from a folder is told while it is live, or when a move has left or reached it.
TOLD = """
WHERE r.version IS NOT NULL OR r.id = circuit.live_release()
   OR EXISTS (SELECT FROM circuit.moves m WHERE r.id IN (m.release, m.before))
"""
LIST = f"{COLUMNS} {TOLD} ORDER BY r.id DESC LIMIT %s"
OF_ID = f"{COLUMNS} WHERE r.id = %s"
OF_VERSION = f"{COLUMNS} WHERE r.version = %s"
OF_HASH = f"{COLUMNS} WHERE starts_with(r.content_hash, %s) ORDER BY r.id DESC LIMIT {NEAR}"
NAMES = (
    f"SELECT coalesce(r.version, r.id::text), r.id::text FROM circuit.releases r {TOLD} ORDER BY r.id DESC LIMIT 100"
)
KNOWN = "SELECT id, version FROM circuit.releases WHERE content_hash = %s"
VERSIONS = "SELECT version FROM circuit.releases WHERE version IS NOT NULL"
PUT = """
INSERT INTO circuit.releases AS r
    (content_hash, platform, manifest, version, author, message, requirements, report)
VALUES (%(digest)s, %(platform)s, %(manifest)s, %(version)s, %(author)s, %(message)s, %(requirements)s, %(report)s)
ON CONFLICT (content_hash) DO UPDATE SET
    platform = excluded.platform, manifest = excluded.manifest, version = excluded.version, author = excluded.author,
    message = excluded.message, requirements = excluded.requirements, report = excluded.report
RETURNING id
"""
KEEP = "INSERT INTO circuit.release_sources (release, source) VALUES (%s, %s) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True)
class NewRelease:
    """An app that may be deployed. ``source`` is its archive (`archive.pack`), ``digest`` its content hash; ``version``
    is None for the next one; ``requirements`` are pinned packages, as pip reads them."""

    digest: str
    source: bytes
    handlers: Sequence[HandlerSpec]
    version: str | None
    author: str
    message: str
    requirements: str
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release as it is kept. ``version`` is None for what ran from its folder and was never deployed."""

    id: int
    version: str | None
    digest: str
    platform: str
    author: str
    message: str
    created: datetime
    live: bool
    handlers: int
    report: Mapping[str, Any]
    requirements: str

    @property
    def name(self) -> str:
        """Its version, or the beginning of its hash."""
        return self.version or self.digest[:12]


async def put_release(connection: Connection, new: NewRelease) -> ReleaseRow:
    """Keep a release. The same files are the same release: the row that is there, as it is. Raises ReleaseRefused for a
    version that other files have, or that is none."""
    async with connection.transaction():
        # Nobody counts versions at the same time, nor records what runs from a folder; readers go on.
        await connection.execute("LOCK TABLE circuit.releases IN SHARE ROW EXCLUSIVE MODE")
        known = await (await connection.execute(KNOWN, [new.digest])).fetchone()
        if known is not None and known[1] is not None:
            if new.version not in (None, known[1]):
                raise ReleaseRefused(
                    f"These files are {known[1]} already.", cure=f"Deploy {known[1]}, or change the app first."
                )
            await connection.execute(KEEP, [known[0], new.source])
            return await _one(connection, OF_ID, known[0])
        used = {each for (each,) in await (await connection.execute(VERSIONS)).fetchall()}
        values = {
            "digest": new.digest,
            "platform": installed("circuit-script"),
            "manifest": Jsonb(manifest_of(new.handlers)),
            "version": _checked(new.version, used) if new.version is not None else _next(used),
            "author": new.author,
            "message": new.message,
            "requirements": new.requirements,
            "report": Jsonb(dict(new.report)),
        }
        row = await (await connection.execute(PUT, values)).fetchone()
        assert row is not None
        await connection.execute(KEEP, [row[0], new.source])
        await ids_of(connection, [each.name for each in new.handlers])
        return await _one(connection, OF_ID, row[0])


async def list_releases(connection: Connection, limit: int = 20) -> list[ReleaseRow]:
    """The latest first; also what ran from its folder, where it is live or was."""
    return [ReleaseRow(*row) for row in await (await connection.execute(LIST, [limit])).fetchall()]


async def find_release(connection: Connection, name: str) -> ReleaseRow:
    """By version ("v1.4.2"), number ("4") or the beginning of its hash. Raises ReleaseUnknown, with near ones."""
    name = name.strip()
    if name.isdecimal() and len(name) < 19:
        found = await _some(connection, OF_ID, int(name))
    else:
        found = await _some(connection, OF_VERSION, name if name.startswith("v") else f"v{name}")
    if not found and len(name) >= SHORTEST_HASH and re.fullmatch(r"[0-9a-f]+", name):
        found = await _some(connection, OF_HASH, name)
    if len(found) == 1:
        return found[0]
    if found:
        those = ", ".join(f"{each.digest[:12]} ({each.version or each.id})" for each in found)
        raise ReleaseUnknown(f"{name!r} is the beginning of several: {those}.", cure="Type more of its hash.")
    raise ReleaseUnknown(f"{name!r} is none.", cure=await _near(connection, name))


async def release_of(connection: Connection, release: int) -> ReleaseRow:
    """By its number. Raises ReleaseUnknown."""
    return await find_release(connection, str(release))


async def _one(connection: Connection, query: str, value: object) -> ReleaseRow:
    (found,) = await _some(connection, query, value)
    return found


async def _some(connection: Connection, query: str, value: object) -> list[ReleaseRow]:
    return [ReleaseRow(*row) for row in await (await connection.execute(query.encode(), [value])).fetchall()]


async def _near(connection: Connection, name: str) -> str:
    rows = await (await connection.execute(NAMES.encode())).fetchall()
    there = [version for version, _ in rows]
    if not there:
        return "Nothing was deployed yet: circuit-script deploy"
    near = get_close_matches(name, [*there, *(number for _, number in rows)], n=NEAR, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"There are {', '.join(there[:NEAR])}{' and others' if len(there) > NEAR else ''}: circuit-script releases"


def _checked(version: str, used: set[str]) -> str:
    if _VERSION.fullmatch(version) is None:
        raise ReleaseRefused(f"{version!r} is no version.", cure=f"Versions are like {FIRST}; yours: {_next(used)}?")
    if version in used:
        raise ReleaseRefused(f"{version} is taken by other files.", cure=f"The next one is {_next(used)}.")
    return version


def _next(used: set[str]) -> str:
    """The patch after the highest version."""
    known = [tuple(map(int, found.groups())) for each in used if (found := _VERSION.fullmatch(each))]
    if not known:
        return FIRST
    major, minor, patch = max(known)
    return f"v{major}.{minor}.{patch + 1}"
