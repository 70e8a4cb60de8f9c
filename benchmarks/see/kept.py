"""A database that is made once and kept for further runs; another schema, or another maker, makes it anew."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import MIGRATIONS

Make = Callable[[str, str, int], Awaitable[None]]


@asynccontextmanager
async def kept_database(folder: Path, rows: int, maker: Path, make: Make) -> AsyncIterator[str]:
    """The URL of a database with so many rows, in a PostgreSQL of its own below ``folder`` that runs meanwhile.

    ``make`` fills an empty one (its URL, the superuser's, how many rows); ``maker`` is the file in which it stands.
    """
    place, marker, wanted = folder / str(rows), folder / f"{rows}.json", _stamp(maker)
    known = json.loads(marker.read_text()) if marker.is_file() else {}
    if known.get("stamp") != wanted:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    server = EmbeddedPostgres(place)
    url = await server.start()
    try:
        if known.get("stamp") != wanted:
            began = time.monotonic()
            await make(url, server.superuser_url, rows)
            marker.write_text(json.dumps({"stamp": wanted, "made_s": round(time.monotonic() - began, 1)}))
        yield url
    finally:
        await server.stop()


def _stamp(maker: Path) -> str:
    found = sha256(maker.read_bytes())
    for path in sorted(MIGRATIONS.glob("*.sql")):
        found.update(path.read_bytes())
    return found.hexdigest()
