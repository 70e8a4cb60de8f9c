"""The guardian: looks every few minutes at all that the road stands on, and notes what is wrong.

Every worker looks at its own host, and one of them all at what concerns everybody. What they find is noted in the
database, so that each of them, `doctor`, `status` and the dashboard know of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.clock import now
from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.health import clock_apart, read_health
from circuit_script.db.pool import Connection, Pool
from circuit_script.effects.oldest import oldest_waiting
from circuit_script.events.chores import GUARDIAN, done_at, drop_notes, due_in, notes_of, succeeded
from circuit_script.events.hearts import read_hearts
from circuit_script.settings_spans import seconds_of
from circuit_script.supervised import Standing, told
from circuit_script.telemetry.guardian import (
    DiskSeen,
    Finding,
    RoleSeen,
    api_findings,
    carried,
    clock_findings,
    database_findings,
    disk_findings,
    dropped_findings,
    expiry_findings,
    role_findings,
    wait_findings,
    worker_findings,
)
from circuit_script.wiring.outlook import look_outside, places_of

log = structlog.get_logger()

TICK = 10.0  # seconds between two looks at what is due, and at what others have found
LONGEST, PER_PLACE = 60.0, 5.0  # seconds that one look may take, and more for each address
PART = 8.0  # seconds that one part of a look may take, of which there are up to five
STALE = 3  # rounds after which what was noted counts no more
FORGOTTEN = 7 * 86400.0  # seconds after which a host that notes nothing is forgotten
HOUR = 3600.0
GATEWAY_PATIENCE = 5.0  # seconds


class Unseen(Exception):
    """Nobody knows what there would be to find."""


class Guardian:
    """Looks, notes, and knows what was found. ``dropped`` gives totals of what telemetry has lost, by kind."""

    def __init__(self, settings: Settings, pool: Pool, dropped: Callable[[], Mapping[str, int]] = dict) -> None:
        self._settings = settings
        self._pool = pool
        self._dropped = dropped
        self._counted: dict[str, int] = {}
        self._every = seconds_of(settings.guardian.every)
        self._patience = LONGEST + PER_PLACE * len(places_of(settings))
        self._host = f"{GUARDIAN} {socket.gethostname()}"
        self._found: list[Finding] = []

    def findings(self) -> Sequence[Finding]:
        """What is wrong, the worst first, as far as this worker knows."""
        return self._found

    async def run(self) -> None:
        """Until it is cancelled. A look that fails is tried again; it never ends the worker."""
        await asyncio.sleep(random.uniform(0.5, 1.0) * min(TICK, self._every))  # a start has other things to do
        while True:
            try:
                async with asyncio.timeout(self._patience):  # a table that is locked holds a connection back
                    await self.tick()
            except (psycopg.Error, PoolTimeout, OSError) as error:
                log.warning("guardian", error=" ".join(str(error).split()) or "no answer", next="looking again")
            except Exception:
                log.exception("guardian", next="looking again")
            await asyncio.sleep(random.uniform(0.9, 1.1) * min(TICK, self._every))

    async def tick(self) -> None:
        """Look at what is due, and read what everybody has found."""
        if await self._due(self._host):
            await self._note(self._host, await self._look_here())
        if await self._due(GUARDIAN):
            await self._note(GUARDIAN, await self._look_at_all())
        async with self._pool.connection() as connection:
            self._found = await read_findings(connection, self._every)

    async def _due(self, chore: str) -> bool:
        async with self._pool.connection() as connection:
            return await due_in(connection, chore, every=self._every, again=self._every) <= 0

    async def _note(self, chore: str, found: list[Finding]) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            before = list(_rows((await notes_of(connection, chore, FORGOTTEN)).get(chore, {})))
            kept = carried(found, before)
            await succeeded(connection, chore, findings=[each.as_row() for each in kept])
            await drop_notes(connection, GUARDIAN, FORGOTTEN)
        old = {each.name for each in before}
        for each in kept:
            if each.name not in old:
                log.warning("guardian.found", name=each.name, severity=each.severity, what=each.what, next=each.next)

    async def _look_here(self) -> list[Finding]:
        """Disk, clock and roles of this host, and what this worker has dropped."""
        at, here = now(), socket.gethostname()
        own = [
            *await _part("disk", self._disks, at),
            *await _part("clock", self._clock, at),
            *await _part("roles", self._role_findings, at),
            *dropped_findings(self._newly_dropped(), at),
        ]
        return [replace(each, name=f"{each.name}@{here}", what=f"{here}: {each.what}") for each in own]

    async def _disks(self, at: datetime) -> list[Finding]:
        return disk_findings(_disks(self._settings), at, self._settings.guardian.disk_free)

    async def _clock(self, at: datetime) -> list[Finding]:
        async with self._pool.connection() as connection:
            return clock_findings(await clock_apart(connection), at)

    async def _role_findings(self, at: datetime) -> list[Finding]:
        return role_findings(await self._roles(), at)

    async def _look_at_all(self) -> list[Finding]:
        """The database, the workers of all hosts, the vendors, the credentials."""
        at = now()
        return [
            *await _part("vendors", self._vendors, at, max(PART, self._patience - 5 * PART)),
            *await _part("database", self._database, at),
            *await _part("workers", self._workers, at),
            *await _part("effects", self._waits, at),
            *expiry_findings(self._settings.guardian.expiries, at, self._early),
        ]

    async def _vendors(self, at: datetime) -> list[Finding]:
        return api_findings(await look_outside(places_of(self._settings)), at, self._early)

    async def _database(self, at: datetime) -> list[Finding]:
        async with self._pool.connection() as connection:
            return database_findings(await read_health(connection), at)

    async def _workers(self, at: datetime) -> list[Finding]:
        async with self._pool.connection() as connection:
            return worker_findings(await read_hearts(connection), at)

    async def _waits(self, at: datetime) -> list[Finding]:
        async with self._pool.connection() as connection:
            return wait_findings(await oldest_waiting(connection), at)

    @property
    def _early(self) -> timedelta:
        return timedelta(seconds=seconds_of(self._settings.guardian.expires_in))

    def _newly_dropped(self) -> dict[str, int]:
        totals = dict(self._dropped())
        fresh = {kind: total - self._counted.get(kind, 0) for kind, total in totals.items()}
        self._counted = totals
        return fresh

    async def _roles(self) -> list[RoleSeen]:
        """As the supervisor tells of them; the gateway is also asked."""
        roles, since, seen = told(self._settings.state), time.time() - HOUR, []
        for name, each in (roles.roles if roles else {}).items():
            down = each.down or (await _silence(each) if name == "gateway" else "")
            seen.append(RoleSeen(name, down, each.restarts_since(since)))
        return seen


async def _part(
    name: str, look: Callable[[datetime], Awaitable[list[Finding]]], at: datetime, patience: float = PART
) -> list[Finding]:
    """What one part of a look finds. One that fails, or waits for a locked table, blinds no other: it is found."""
    try:
        async with asyncio.timeout(patience):
            return await look(at)
    except (PoolTimeout, psycopg.OperationalError):
        raise  # nothing could be noted either
    except Exception as error:
        log.exception("guardian", part=name, next="looking again")
        what = f"The guardian cannot look at the {name}: {type(error).__name__}: {error}"[:500]
        return [Finding(f"look:{name}", "warning", what, at, "circuit-script doctor")]


async def last_look(connection: Connection) -> datetime | None:
    """When the guardian last looked at what concerns everybody."""
    return await done_at(connection, GUARDIAN)


async def read_findings(connection: Connection, every: float) -> list[Finding]:
    """What is known to be wrong, the worst first. What was noted too long ago says nothing of now."""
    notes = await notes_of(connection, GUARDIAN, max(STALE * every, 60.0))
    found = [each for note in notes.values() for each in _rows(note)]
    return carried(found, ())


async def fresh_findings(connection: Connection, every: float) -> list[Finding]:
    """The same, for who tells that something is over. Raises Unseen when the guardian has not looked for long."""
    found, at = await read_findings(connection, every), await last_look(connection)
    if at is not None and GUARDIAN not in await notes_of(connection, GUARDIAN, max(STALE * every, 60.0)):
        raise Unseen(f"the guardian has not looked since {at:%Y-%m-%d %H:%M} UTC")
    return found


async def _silence(role: Standing) -> str:
    """Why the gateway does not answer, though its process runs; nothing when it does."""
    if not role.said.startswith("http"):
        return ""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=GATEWAY_PATIENCE) as client:
            await client.get(f"{role.said}/healthz")
    except httpx.HTTPError as error:
        return f"it does not answer ({type(error).__name__})"
    return ""


def _disks(settings: Settings) -> Iterator[DiskSeen]:
    """Of the app's own folder, and of the embedded database's."""
    folders = [settings.state if settings.state.exists() else settings.folder]
    if settings.database_url is None and (home := EmbeddedPostgres(settings.folder).home) is not None:
        folders.append(home)
    devices = set()
    for each in folders:
        try:
            device, room = each.stat().st_dev, os.statvfs(each)
        except OSError:
            continue
        if device not in devices:
            devices.add(device)
            size = room.f_frsize
            yield DiskSeen(str(each), room.f_blocks * size, room.f_bavail * size, room.f_files, room.f_favail)


def _rows(note: Mapping[str, Any]) -> Iterator[Finding]:
    for row in note.get("findings", ()):
        try:
            yield Finding.of_row(row)
        except (KeyError, ValueError, TypeError):  # of another version
            continue
