"""The database of an app, for verbs that only look: they start nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection


@contextlib.asynccontextmanager
async def looking(settings: Settings, verb: str) -> AsyncIterator[Connection]:
    """A connection to ``DATABASE_URL``, or to the embedded server if it runs.

    Raises StartError when it does not, DatabaseUnavailable when it cannot be reached.
    """
    url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
    connection = await open_connection(url, name=f"circuit-script {verb}")
    try:
        yield connection
    finally:
        await connection.close()
