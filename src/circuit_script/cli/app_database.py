"""The database of an app, for verbs that only look: they start nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import psycopg
import structlog

from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.errors import CircuitError, ConfigError, DatabaseUnavailable

T = TypeVar("T")
OWN = "DATABASE_URL"  # of the app itself
_NOT_OURS = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


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


def do(settings: Settings, verb: str, what: Callable[[Connection], Awaitable[T]]) -> T:
    """Do it with the app's database. Raises DatabaseUnavailable."""

    async def reach() -> T:
        try:
            async with looking(settings, verb) as connection:
                return await what(connection)
        except _NOT_OURS as error:
            raise DatabaseUnavailable(
                "It does not have the tables of this version of Circuit Script.", cure="circuit-script migrate"
            ) from error
        except psycopg.Error as error:
            raise unavailable(error) from error

    try:
        return asyncio.run(reach())
    except (DatabaseUnavailable, ConfigError) as error:
        raise _of_environment(error, settings) from error


def _of_environment(error: CircuitError, settings: Settings) -> CircuitError:
    """The error with the name of the variable that really has this URL: an environment's own (`environments`)."""
    url = settings.database_url
    names = [each.database_env for each in settings.env.values() if os.environ.get(each.database_env) == url]
    if not names or url in (None, os.environ.get(OWN)):
        return error
    detail, cure = (re.sub(rf"\b{OWN}\b", names[0], said) for said in (error.detail, error.cure))
    return type(error)(detail, cure=cure, page=error.page)
