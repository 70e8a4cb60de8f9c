"""Releases: one immutable version of the author's app, known by the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.execution.outcome import HandlerSpec

IGNORED = frozenset({
    ".circuit", ".git", ".venv", "__pycache__", "node_modules", ".pytest_cache", ".ruff_cache", "circuit.toml",
})  # fmt: skip
KEPT = frozenset({".py", ".toml", ".json", ".txt", ".csv", ".yaml", ".yml", ".md"})

RECORD = """
INSERT INTO circuit.releases AS r (content_hash, platform, manifest) VALUES (%s, %s, %s)
ON CONFLICT (content_hash) DO UPDATE SET platform = r.platform RETURNING id
"""
# Known names are left out beforehand: each row that ON CONFLICT skips would use up one of 32,767 ids.
NAMES = """
INSERT INTO circuit.handlers (name)
SELECT n.name FROM unnest(%s::text[]) AS n (name)
WHERE NOT EXISTS (SELECT 1 FROM circuit.handlers h WHERE h.name = n.name)
ON CONFLICT DO NOTHING
"""
IDS = "SELECT id, name FROM circuit.handlers WHERE name = ANY(%s)"
LIVE = """
INSERT INTO circuit.live (release) VALUES (%s)
ON CONFLICT (only_row) DO UPDATE SET release = excluded.release, since = now()
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A recorded release. ``handlers`` maps the queue's handler ids to what they are."""

    id: int
    content_hash: str
    handlers: Mapping[int, HandlerSpec]


def content_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the app's source and data files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix in KEPT and not IGNORED.intersection(parts) and path.is_file():
            name = "/".join(parts).encode()
            data = path.read_bytes()
            digest.update(b"%d:%s%d:" % (len(name), name, len(data)) + data)
    return digest.hexdigest()


async def make_live(connection: Connection, digest: str, handlers: Sequence[HandlerSpec]) -> Release:
    """Record the release and route events to its handlers, in one transaction."""
    manifest = [
        {"name": each.name, "routes": [list(route) for route in each.routes], "batch_size": each.batch_size,
         "file": each.file, "line": each.line, "doc": each.doc}
        for each in handlers
    ]  # fmt: skip
    names = [each.name for each in handlers]
    async with connection.transaction():
        await connection.execute("LOCK TABLE circuit.live IN EXCLUSIVE MODE")
        row = await (await connection.execute(RECORD, [digest, version("circuit-script"), Jsonb(manifest)])).fetchone()
        assert row is not None
        await connection.execute(NAMES, [names])
        ids = {name: id_ for id_, name in await (await connection.execute(IDS, [names])).fetchall()}
        await connection.execute(LIVE, [row[0]])
        await connection.execute("DELETE FROM circuit.routes")
        routes = [(*route, ids[each.name]) for each in handlers for route in dict.fromkeys(each.routes)]
        async with connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO circuit.routes (object, event, handler) VALUES (%s, %s, %s)", routes)
    return Release(row[0], digest, {ids[each.name]: each for each in handlers})
