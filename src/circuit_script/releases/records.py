"""Releases: one immutable version of the author's app, known by the hash of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import Limits
from circuit_script.jobs.schedules import follow
from circuit_script.tenants import DEFAULT

IGNORED = frozenset({
    ".circuit", ".git", ".venv", "__pycache__", "node_modules", ".pytest_cache", ".ruff_cache", "circuit.toml",
    ".mypy_cache", ".hypothesis", ".tox", ".nox", ".vscode", ".idea",
})  # fmt: skip
ENVIRONMENT = "pyvenv.cfg"  # in the folder of an environment, whatever that is called
KEPT = frozenset({".py", ".toml", ".json", ".txt", ".csv", ".yaml", ".yml", ".md"})

RECORD = """
INSERT INTO circuit.releases AS r (content_hash, platform, manifest) VALUES (%s, %s, %s)
ON CONFLICT (content_hash) DO UPDATE
SET manifest = CASE WHEN r.version IS NULL THEN excluded.manifest ELSE r.manifest END RETURNING id
"""
# Known names are left out beforehand: each row that ON CONFLICT skips would use up one of 32,767 ids.
NAMES = """
INSERT INTO circuit.handlers (name)
SELECT n.name FROM unnest(%s::text[]) AS n (name)
WHERE NOT EXISTS (SELECT 1 FROM circuit.handlers h WHERE h.name = n.name)
ON CONFLICT DO NOTHING
"""
HASH = "SELECT content_hash FROM circuit.releases WHERE id = %s"
REQUIREMENTS = "SELECT requirements FROM circuit.releases WHERE id = %s"
IDS = "SELECT id, name FROM circuit.handlers WHERE name = ANY(%s)"
LIVE = """
INSERT INTO circuit.live (release) VALUES (%s)
ON CONFLICT (only_row) DO UPDATE SET release = excluded.release, since = now()
"""
ENDPOINTS = """
SELECT EXISTS (SELECT 1 FROM circuit.live l JOIN circuit.releases r ON r.id = l.release,
               jsonb_array_elements(r.manifest) AS h WHERE jsonb_typeof(h -> 'endpoint') = 'object')
"""


LIVE_MANIFEST = "SELECT manifest FROM circuit.releases WHERE id = (SELECT circuit.live_release())"


@dataclass(frozen=True, slots=True)
class Declared:
    """A handler as the live release declares it. ``budget`` is US dollars in a day, None for no bound of its own."""

    name: str
    limits: Limits
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A recorded release. ``handlers`` maps the queue's handler ids to what they are."""

    id: int
    content_hash: str
    handlers: Mapping[int, HandlerSpec]


def content_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the app's source and data files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(files_of(folder)):
        name = "/".join(path.relative_to(folder).parts).encode()
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # an editor's file, gone by now
        digest.update(b"%d:%s%d:" % (len(name), name, len(data)) + data)
    return digest.hexdigest()


def is_part(path: Path) -> bool:
    """Whether the file at ``path``, relative to the app's folder, belongs to a release."""
    return path.suffix in KEPT and not IGNORED.intersection(path.parts)


def is_entered(folder: Path) -> bool:
    """Whether files in this folder of the app may belong to a release."""
    return folder.name not in IGNORED and not (folder / ENVIRONMENT).exists()


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a release. Ignored folders are not even entered: an environment has thousands of files."""
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if is_entered(Path(place, each))]
        for name in files:
            path = Path(place, name)
            if is_part(path.relative_to(folder)) and path.is_file():
                yield path


async def has_endpoints(connection: Connection) -> bool:
    """Whether the live release has endpoints. Raises psycopg.Error."""
    row = await (await connection.execute(ENDPOINTS)).fetchone()
    return bool(row and row[0])


async def live_handlers(connection: Connection) -> list[Declared]:
    """The handlers of the live release, by name; what another version of the platform has written is left out."""
    row = await (await connection.execute(LIVE_MANIFEST)).fetchone()
    found = []
    for each in row[0] if row else ():
        known = {
            name: value for name, value in (each.get("limits") or {}).items() if name in Limits.__dataclass_fields__
        }
        found.append(Declared(each["name"], Limits(**known), each.get("budget")))
    return sorted(found, key=lambda declared: declared.name)


async def requirements_of(connection: Connection, release: int) -> str:
    """The pinned packages of a recorded release, as pip reads them."""
    row = await (await connection.execute(REQUIREMENTS, [release])).fetchone()
    return str(row[0]) if row else ""


async def make_live(
    connection: Connection, digest: str, handlers: Sequence[HandlerSpec], tenants: Collection[str] = (DEFAULT,)
) -> Release:
    """Record the release and route events to its handlers, in one transaction. Its schedules fire for ``tenants``."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.live IN EXCLUSIVE MODE")
        release = await _recorded(connection, digest, handlers)
        await route(connection, release, tenants)
    return release


async def route(connection: Connection, release: Release, tenants: Collection[str]) -> None:
    """Make a recorded release live: its routes and schedules take the place of those before. Within a transaction that
    has locked ``circuit.live``."""
    await connection.execute(LIVE, [release.id])
    await connection.execute("DELETE FROM circuit.routes")
    routes = [(*each, id_) for id_, spec in release.handlers.items() for each in dict.fromkeys(spec.routes)]
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO circuit.routes (object, event, handler) VALUES (%s, %s, %s)", routes)
    await follow(connection, release.handlers.values(), tenants)


async def record_release(connection: Connection, digest: str, handlers: Sequence[HandlerSpec]) -> Release:
    """Record the release, so that executions can name it; what is live stays live."""
    async with connection.transaction():
        return await _recorded(connection, digest, handlers)


async def known_as(connection: Connection, release: int, handlers: Sequence[HandlerSpec]) -> Release:
    """A recorded release, whose handlers these are; those that the database has never met are left out."""
    names = [each.name for each in handlers]
    row = await (await connection.execute(HASH, [release])).fetchone()
    ids = {name: id_ for id_, name in await (await connection.execute(IDS, [names])).fetchall()}
    return Release(release, row[0] if row else "", {ids[each.name]: each for each in handlers if each.name in ids})


async def ids_of(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """The queue's ids of handlers; those that nobody has met yet are given one."""
    await connection.execute(NAMES, [list(names)])
    return {name: id_ for id_, name in await (await connection.execute(IDS, [list(names)])).fetchall()}


def manifest_of(handlers: Sequence[HandlerSpec]) -> list[dict[str, Any]]:
    """What is recorded of a release's handlers."""
    return [
        {"name": each.name, "routes": [list(route) for route in each.routes], "batch_size": each.batch_size,
         "limits": each.limits.as_dict(), "file": each.file, "line": each.line, "doc": each.doc,
         "endpoint": None if each.endpoint is None else asdict(each.endpoint),
         **({} if each.job is None else {"job": asdict(each.job)}),
         **({} if each.budget is None else {"budget": float(each.budget)})}
        for each in handlers
    ]  # fmt: skip


async def _recorded(connection: Connection, digest: str, handlers: Sequence[HandlerSpec]) -> Release:
    known = [digest, version("circuit-script"), Jsonb(manifest_of(handlers))]
    row = await (await connection.execute(RECORD, known)).fetchone()
    assert row is not None
    ids = await ids_of(connection, [each.name for each in handlers])
    return Release(row[0], digest, {ids[each.name]: each for each in handlers})
