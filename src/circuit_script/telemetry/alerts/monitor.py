"""CircuitMonitor: looks every few seconds, keeps what is wrong, and tells who is to know.

One worker of all looks; when it dies another one does within 15 seconds. Whoever looks knows from the database what is
open and who was told, so nobody is told twice, and nothing is forgotten with a process. While the database itself does
not answer, who looked last tells of that from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.clock import now as present
from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection, Pool
from circuit_script.settings_see import AlertSettings
from circuit_script.settings_spans import seconds_of
from circuit_script.tasks import end
from circuit_script.telemetry.alerts.alert import Alert, Told
from circuit_script.telemetry.alerts.blind import Blind, blindness
from circuit_script.telemetry.alerts.look import Look
from circuit_script.telemetry.alerts.notices import (
    Channel,
    Item,
    Message,
    Plan,
    Wording,
    compose,
    hold,
    plan,
    told_of,
)
from circuit_script.telemetry.alerts.quiet import quiet_until
from circuit_script.telemetry.alerts.rules import judge
from circuit_script.telemetry.alerts.state import AlertState, Changes, Lost, mute
from circuit_script.telemetry.alerts.tell import CannotTell, tell

log = structlog.get_logger()

RENEW = 3.0  # seconds between two words of who holds the lease, and two questions of who does not
SHARE = 20  # a look that took 1 s is followed by 20 s without one: watching takes a twentieth of a core at most
LONGEST = 20.0  # seconds between two looks, however long they take
PATIENCE = 5.0  # seconds for a connection
BLIND = 20.0  # seconds without the database after which somebody is told
BACKOFF, LONGEST_BACKOFF = 5.0, 300.0  # seconds until a channel that could not be told is tried again
LAST_WORDS = 3.0  # seconds for what is being sent when the worker ends; less than `tasks.end` waits to ask again
SWEEP = 3600.0

Looks = Callable[[Connection, AlertState, datetime], Awaitable[Look]]
Tells = Callable[[str, Message], Awaitable[None]]
AWAY = (psycopg.Error, PoolTimeout, OSError)


@dataclass(slots=True)
class _Line:
    """What is known of one channel in memory. ``since`` is when something was first due that is still gathered."""

    channel: Channel
    since: datetime | None = None
    failures: int = 0
    again: float = 0.0  # monotonic
    sending: asyncio.Task[None] | None = None
    blindly: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        return [each for each in (self.sending, self.blindly) if each is not None and not each.done()]


@dataclass(frozen=True, slots=True)
class MonitorParts:
    """What a monitor is made of. ``look`` gathers the figures; ``wording`` says how messages are written; ``clock`` and
    ``tell`` are others in tests."""

    pool: Pool
    settings: AlertSettings
    channels: Sequence[Channel]
    look: Looks
    wording: Wording
    clock: Callable[[], datetime] = present
    tell: Tells = tell
    sweep: Callable[[Connection, datetime], Awaitable[None]] | None = None


class CircuitMonitor:
    """Judges what the platform does, and tells. `run` never ends by itself and raises nothing of what it watches."""

    def __init__(self, parts: MonitorParts, *, owner: UUID | None = None) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._state = AlertState(owner or uuid7())
        self._lines = [_Line(each) for each in parts.channels]
        self._repeat = seconds_of(parts.settings.repeat)
        self._blind = Blind()
        self._holds = False
        self._swept = 0.0

    @property
    def looks(self) -> bool:
        """Whether this monitor is the one that looks."""
        return self._holds

    async def run(self) -> None:
        """Look until cancelled; then another worker may at once."""
        due = 0.0
        try:
            while True:
                began = time.monotonic()
                if began >= due or not self._holds:
                    await self.once()
                    took = time.monotonic() - began
                    due = time.monotonic() + max(self._settings.every, min(SHARE * took, LONGEST))
                else:
                    await self._renew()
                await asyncio.sleep(max(0.1, min(RENEW, due - time.monotonic()) if self._holds else RENEW))
        finally:
            if self._sending():  # who is told and not noted is told again by the next one
                await asyncio.wait(self._sending(), timeout=LAST_WORDS)
            await end(self._sending())
            await self._leave()

    async def once(self) -> bool:
        """One look, if it is this monitor's turn, and what follows from it. Messages leave in tasks of their own."""
        now = self._parts.clock()
        try:
            async with self._parts.pool.connection(timeout=PATIENCE) as connection:
                if not await self._leads(connection):
                    await self._sees_again(connection, now)
                    return False
                idle = [each for each in self._lines if not each.under_way]
                alerts = await self._judge(connection, now)
                await self._plan(connection, alerts, now, idle)
                await self._sweep(connection, now)
        except Lost:
            self._holds = False
        except AWAY as error:
            self._away(error, now)
        except Exception as error:  # whatever it is: a look that fails must not be the last one
            log.exception("monitor.failed", next="looking again")
            self._away(error, now)
        return self._holds

    async def _leads(self, connection: Connection) -> bool:
        """Whether it is this monitor's turn. Who has just taken over was not blind before."""
        led, self._holds = self._holds, await self._state.lease(connection)
        if self._holds and not led:
            self._blind = replace(self._blind, seen=time.monotonic())
        return self._holds

    async def settled(self) -> None:
        """Return when nothing is being sent."""
        await asyncio.gather(*self._sending(), return_exceptions=True)

    def _sending(self) -> list[asyncio.Task[None]]:
        return [task for line in self._lines for task in line.under_way]

    async def _judge(self, connection: Connection, now: datetime) -> list[Alert]:
        """Look, write what is new and what is over; the alerts of which something may be told."""
        before = await self._state.load(connection)
        look = await self._parts.look(connection, self._state, now)
        silent = await mute(connection, [each.channel.name for each in self._lines])
        judged = judge(replace(look, mute=silent), self._settings)
        changes = Changes.between(before, judged, now)
        await self._state.write(connection, changes, now)
        self._say(changes)
        await self._sees_again(connection, now)
        return await self._state.load(connection)

    def _say(self, changes: Changes) -> None:
        for signal in changes.new:
            if signal.part_of is None:
                log.warning("alert", key=signal.key, severity=signal.severity, what=signal.what, next=signal.next)
        for alert in changes.over:
            if alert.part_of is None:
                log.info("alert.over", key=alert.key, what=alert.what, since=alert.since.isoformat())

    async def _plan(self, connection: Connection, alerts: Sequence[Alert], now: datetime, idle: list[_Line]) -> None:
        """``idle`` are the channels that were told nothing while the alerts were read: of others more is known now."""
        quiet = quiet_until(self._settings.quiet, now) is not None
        left: set[int] = set()
        for line in self._lines:
            planned = plan(line.channel, alerts, now, quiet=quiet, repeat=self._repeat)
            left |= {each.alert.id for each in planned.items} | {each.id for each in planned.held}
            held = {each.id: hold(each, line.channel, now) for each in planned.held if each.resolved is None}
            await self._state.hold(connection, line.channel.name, {id_: told for id_, told in held.items() if told})
            if line in idle:
                self._send(line, planned, now)
        await self._state.settle(connection, [each for each in alerts if each.resolved and each.id not in left])

    def _send(self, line: _Line, planned: Plan, now: datetime) -> None:
        """Send what has been gathered for long enough, unless the channel is at it, or has just failed."""
        if not planned.items:
            line.since = None
            return
        line.since = min(line.since or now, now)  # the clock may have been set back
        waited = (now - line.since).total_seconds()
        if waited < self._settings.group or time.monotonic() < line.again:
            return
        line.sending = asyncio.create_task(self._tell(line, planned.items), name=f"alerts {line.channel.name}")

    async def _tell(self, line: _Line, items: Sequence[Item]) -> None:
        now = self._parts.clock()
        failure = await self._sent(line, items, now)
        if not failure:
            line.since = None
        await self._note(line.channel.name, items, now, failure)

    async def _sent(self, line: _Line, items: Sequence[Item], now: datetime) -> str:
        """Send one message of them; why it could not be, if so, and then the channel is left in peace for a while."""
        name, failure = line.channel.name, line.channel.fault
        try:
            if not failure:
                await self._parts.tell(line.channel.url, compose(items, now, self._parts.wording))
        except CannotTell as error:
            failure = str(error)
        except Exception as error:
            failure = type(error).__name__
        if failure:
            line.again = time.monotonic() + min(LONGEST_BACKOFF, BACKOFF * 2 ** min(line.failures, 16))
            line.failures += 1
            log.warning("alerts.not_told", channel=name, error=failure, next="trying again")
        else:
            line.failures, line.again = 0, 0.0
        return failure

    async def _note(self, name: str, items: Sequence[Item], now: datetime, failure: str) -> None:
        """Keep who was told. While that cannot be written it is tried again: else it would be told again."""
        said = {} if failure else {each.alert.id: told_of(each, now) for each in items}
        while said:
            try:
                async with self._parts.pool.connection(timeout=PATIENCE) as connection:
                    await self._state.told(connection, name, said)
                break
            except AWAY:
                await asyncio.sleep(BACKOFF)
        with contextlib.suppress(*AWAY):
            async with self._parts.pool.connection(timeout=PATIENCE) as connection:
                await self._state.reached(connection, name, now, failure)

    def _away(self, error: Exception, now: datetime) -> None:
        """Nothing can be seen. Who looked last tells of it; the others do not know whether he does."""
        quietly = time.monotonic() - self._blind.seen
        log.warning("monitor.blind", error=" ".join(str(error).split())[:300], seconds=round(quietly, 1))
        if not self._holds or quietly < BLIND:
            return
        alert = self._blind.alert = self._blind.alert or blindness(error, now, quietly)
        for line in self._lines:
            items = plan(line.channel, [alert], now, quiet=False, repeat=self._repeat).items
            ready = time.monotonic() >= line.again and not line.channel.fault
            if items and ready and (line.blindly is None or line.blindly.done()):
                task = self._tell_blindly(line, items, self._blind)
                line.blindly = asyncio.create_task(task, name=f"alerts {line.channel.name}")

    async def _tell_blindly(self, line: _Line, items: Sequence[Item], blind: Blind) -> None:
        """Tell of what cannot be written down now; who was told is remembered until it can."""
        now = self._parts.clock()
        if not await self._sent(line, items, now):
            blind.told(line.channel.name, told_of(items[0], now))

    async def _sees_again(self, connection: Connection, now: datetime) -> None:
        """Write down what was told from memory; who looks, be it another one, tells that it is over."""
        blind = self._blind
        if blind.alert is not None:
            for line in self._lines:
                if line.blindly is not None and not line.blindly.done():  # most likely it arrives
                    blind.told(line.channel.name, Told(at=now, severity=blind.alert.severity))
            await self._state.remember(connection, blind.alert, now)
        self._blind = Blind()

    async def _renew(self) -> None:
        try:
            async with self._parts.pool.connection(timeout=PATIENCE) as connection:
                await self._leads(connection)
        except AWAY as error:
            self._away(error, self._parts.clock())

    async def _sweep(self, connection: Connection, now: datetime) -> None:
        if time.monotonic() - self._swept > SWEEP:
            self._swept = time.monotonic()
            await self._state.sweep(connection, now)
            if self._parts.sweep is not None:
                await self._parts.sweep(connection, now)

    async def _leave(self) -> None:
        if not self._holds:
            return
        try:
            async with self._parts.pool.connection(timeout=1.0) as connection:
                await self._state.release(connection)
        except AWAY:
            pass  # the lease ends by itself
