"""Of the releases that are kept: the live one, and when one last passed every gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from circuit_script.db.pool import Connection
from circuit_script.releases.store import ReleaseRow, release_of

LIVE = "SELECT circuit.live_release()"
SAY = "UPDATE circuit.releases SET report = %s WHERE id = %s"


async def live_release(connection: Connection) -> ReleaseRow | None:
    """What is live; None where nothing ever was. Raises psycopg.Error."""
    row = await (await connection.execute(LIVE)).fetchone()
    return None if row is None or row[0] is None else await release_of(connection, row[0])


async def note_validated(connection: Connection, release: ReleaseRow, report: Mapping[str, Any]) -> None:
    """Keep the latest report of a release that was there already: its files never change, what tests say of them may be
    said again. Raises psycopg.Error."""
    if release.report != report:
        await connection.execute(SAY, [Jsonb(dict(report)), release.id])
