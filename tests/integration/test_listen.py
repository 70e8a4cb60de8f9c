from __future__ import annotations

import asyncio

import psycopg
import pytest

from circuit_script.db.listen import notifications
from circuit_script.db.pool import open_connection
from tests.servers import Server


async def test_what_is_notified_is_heard_one_by_one_and_all_of_it(database: str) -> None:
    async with await open_connection(database) as ears, await open_connection(database) as mouth:
        await ears.execute("LISTEN news")
        heard: list[str] = []

        async def listen() -> None:
            async for each in notifications(ears):
                heard.append(each.payload)
                if each.payload == "end":
                    return

        listening = asyncio.create_task(listen())
        for word in ("one", "two", "three", "end"):
            await mouth.execute("SELECT pg_notify('news', %s)", [word])
        await asyncio.wait_for(listening, 30)
        assert heard == ["one", "two", "three", "end"]


async def test_a_lost_connection_is_told(database: str, server: Server) -> None:
    async with await open_connection(database) as ears:
        await ears.execute("LISTEN news")
        pid = ears.info.backend_pid

        async def listen() -> None:
            async for _ in notifications(ears):
                pass

        listening = asyncio.create_task(listen())
        server.run(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(listening, 30)
