"""A worker's own connections: to dispatch on, and to hear what is said on a channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import psycopg
import structlog

from circuit_script.db.listen import notifications
from circuit_script.db.pool import Connection, open_connection, prefer_indexes
from circuit_script.errors import DatabaseUnavailable

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def own_connection(url: str, pooler: bool) -> AsyncIterator[Connection]:
    """One of its own, outside of the pool. Raises DatabaseUnavailable."""
    connection = await open_connection(url, pooler=pooler, name="circuit dispatcher")
    try:
        if not pooler:
            await prefer_indexes(connection)
        yield connection
    finally:
        await connection.close()


async def listen(url: str, wakes: Mapping[str, Callable[[], None]]) -> None:
    """Wake who waits for what is said on a channel: a gateway says that something arrived, a verb that there is a
    replay, or another release. Polling covers what is missed."""
    while True:
        try:
            async with own_connection(url, False) as connection:
                for channel in wakes:
                    await connection.execute(f"LISTEN {channel}".encode())
                async for notice in notifications(connection):
                    wakes[notice.channel]()
        except (psycopg.Error, OSError, DatabaseUnavailable) as error:
            log.warning("listen", error=str(error), next="polling until it is back")
        await asyncio.sleep(1.0)
