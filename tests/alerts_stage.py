"""What the tests of alerts stand on: a clock that they move, rows of a road, monitors, and real receivers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any
from uuid import UUID

from aiosmtpd.smtp import SMTP

from circuit_script.config import Settings
from circuit_script.db.pool import Pool, open_pool
from circuit_script.settings_see import AlertSettings
from circuit_script.telemetry import CircuitMonitor
from circuit_script.wiring.monitor import make_monitor
from tests.receiver import Got, Receiver, receiving, response

with warnings.catch_warnings():  # its plugins are loaded once, and one of them wants a module that Python will drop
    warnings.simplefilter("ignore")
    import apprise

    apprise.Apprise.instantiate("json://127.0.0.1/")

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@dataclass
class Stage:
    """A database with a clock of its own."""

    pool: Pool
    folder: Path
    now: datetime = NOON
    handlers: dict[str, int] = field(default_factory=dict)

    def clock(self) -> datetime:
        return self.now

    def monitor(self, **alerts: Any) -> CircuitMonitor:
        """A worker's monitor; what is not said is told at once."""
        settings = Settings(folder=self.folder, alerts=AlertSettings(**{"group": 0, "slos": {}, **alerts}))
        return make_monitor(settings, self.pool, lambda: (), clock=self.clock)

    async def look(self, *monitors: CircuitMonitor, after: float = 0) -> None:
        """Each looks once, so many seconds later, and what it tells has been told."""
        self.now += timedelta(seconds=after)
        for each in monitors:
            await each.once()
            await each.settled()

    async def looks(self, *monitors: CircuitMonitor, seconds: float, every: float = 20) -> None:
        """They look again and again for so long."""
        for _ in range(round(seconds / every)):
            await self.look(*monitors, after=every)

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def executed(
        self, handler: str, tenant: str, n: int, status: str = "succeeded", *, seconds: float = 0.1, ago: float = 1
    ) -> None:
        """So many executions of that handler that ended so."""
        number = await self.handler(handler)
        began = self.now - timedelta(seconds=ago)
        async with self.pool.connection() as connection, connection.cursor() as cursor:
            await cursor.executemany(
                """INSERT INTO circuit.executions
                   (id, tenant, release, handler, object, event, records, status, started_at, ended_at, usage)
                   VALUES (%s, %s, 1, %s, 'Contact', 'afterInsert', 1, %s, %s, %s, '{}')""",
                [
                    (id_at(began, nth), tenant, number, status, began, began + timedelta(seconds=seconds))
                    for nth in range(n)
                ],
            )

    async def handler(self, name: str) -> int:
        if name not in self.handlers:
            ((self.handlers[name],),) = await self.run(
                "INSERT INTO circuit.handlers (name) VALUES (%s) ON CONFLICT (name) DO UPDATE SET name = excluded.name "
                "RETURNING id",
                name,
            )
        return self.handlers[name]

    async def died(self, handler: str, tenant: str, n: int = 1, reason: str = "it raised") -> None:
        number = await self.handler(handler)
        await self.run(
            "INSERT INTO circuit.dead_letters (kind, tenant, handler, attempts, reason) "
            "SELECT 'event', %s, %s, 5, %s FROM generate_series(1, %s)",
            tenant,
            number,
            reason,
            n,
        )


def id_at(moment: datetime, nth: int = 0) -> UUID:
    """A version 7 UUID of that moment, one for each call."""
    return UUID(int=round(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | int.from_bytes(os.urandom(7)))


@contextlib.asynccontextmanager
async def staged(database: str, folder: Path) -> AsyncIterator[Stage]:
    pool = await open_pool(database, min_size=1, max_size=3, name="alerts")
    try:
        yield Stage(pool, folder)
    finally:
        await pool.close()


def accepted(_: Got) -> bytes:
    return response(200)


@contextlib.asynccontextmanager
async def heard() -> AsyncIterator[Receiver]:
    """A receiver that takes everything."""
    async with receiving(accepted) as receiver:
        yield receiver


def channel(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {"url": receiver.url.replace("http://", "json://"), **more}


def said(receiver: Receiver) -> list[dict[str, str]]:
    """Title and message of each that was received."""
    return [json.loads(each.body) for each in receiver.got]


class Mailbox:
    """An SMTP server's handler, which keeps what came."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content)
        parts = [each for each in mail.walk() if each.get_content_maintype() == "text"]
        payload = parts[0].get_payload(decode=True)
        assert isinstance(payload, bytes)
        self.mails.append((str(make_header(decode_header(mail["Subject"]))), payload.decode()))
        return "250 OK"


@contextlib.asynccontextmanager
async def mailbox() -> AsyncIterator[tuple[Mailbox, str]]:
    """A mailbox, and the address by which apprise reaches it."""
    box = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield box, f"mailto://127.0.0.1:{port}/?from=circuit@example.com&to=ann@example.com&mode=insecure"
