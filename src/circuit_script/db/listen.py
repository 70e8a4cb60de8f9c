"""Notifications of the server, without waking up when there are none.

The driver's own loop looks ten times a second, which is most of what an idle worker would use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from psycopg import Notify

from circuit_script.db.pool import Connection

READ = 0.05  # seconds for which more is expected once something has come


async def notifications(connection: Connection) -> AsyncIterator[Notify]:
    """What the connection LISTENs to, as it comes. Raises psycopg.Error when the connection is lost."""
    loop = asyncio.get_running_loop()
    while True:
        async for each in connection.notifies(timeout=READ):
            yield each
        readable = asyncio.Event()
        number = connection.fileno()
        loop.add_reader(number, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(number)
