"""The database of an app, for verbs that only look: they start nothing."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator

import structlog

from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection


@contextlib.asynccontextmanager
async def looking(settings: Settings, verb: str) -> AsyncIterator[Connection]:
    """A connection to ``DATABASE_URL``, or to the embedded server if it runs. Of what is logged meanwhile, warnings are
    shown, on standard error.

    Raises StartError when it does not, DatabaseUnavailable when it cannot be reached.
    """
    url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
    connection = await open_connection(url, name=f"circuit-script {verb}")
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield connection
    finally:
        structlog.configure(**before)
        await connection.close()
