"""Settings → CircuitMonitor: its channels, and the readers of everything that it looks at."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import structlog

from circuit_script.clock import now as present
from circuit_script.config import Settings
from circuit_script.connectors.untaken import untaken
from circuit_script.db.pool import Connection, Pool
from circuit_script.effects.watched import doubtful, down
from circuit_script.events.watched import aged, kept, open_letters, rates, refused_by_us, taken
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor.money import nanos
from circuit_script.governor.spending import accounts
from circuit_script.llm.budgets import held
from circuit_script.settings_see import ChannelSettings
from circuit_script.settings_spans import seconds_of
from circuit_script.telemetry.alerts.counts import Minute, Sources, advance, forget_counts, windows
from circuit_script.telemetry.alerts.look import BudgetUse, Counted, Look, Unread
from circuit_script.telemetry.alerts.monitor import CircuitMonitor, MonitorParts
from circuit_script.telemetry.alerts.notices import Channel, Wording
from circuit_script.telemetry.alerts.slo import Objective, objectives
from circuit_script.telemetry.alerts.state import AlertState, Lost, briefly
from circuit_script.telemetry.alerts.tell import must_have_apprise
from circuit_script.wiring.guardian import fresh_findings

log = structlog.get_logger()

UNREAD = 60.0  # seconds without some of the figures after which somebody is told

T = TypeVar("T")
Handlers = Callable[[], Iterable[HandlerSpec]]


def make_monitor(
    settings: Settings, pool: Pool, handlers: Handlers, *, clock: Callable[[], datetime] = present
) -> CircuitMonitor:
    """A monitor of the app. ``handlers`` are those that are live, for their budgets; ``clock`` is another in tests.
    Raises StartError where channels are wanted without apprise."""
    if settings.alerts.channels:
        must_have_apprise()
    return CircuitMonitor(
        MonitorParts(
            pool=pool,
            settings=settings.alerts,
            channels=channels_of(settings),
            look=Looker(settings, handlers).look,
            wording=wording_of(settings),
            clock=clock,
            sweep=forget_counts,
        )
    )


def channels_of(settings: Settings) -> list[Channel]:
    """The channels of circuit.toml, with their addresses."""
    return [_channel(name, each) for name, each in settings.alerts.channels.items()]


def _channel(name: str, said: ChannelSettings) -> Channel:
    url = os.environ.get(said.url_env, "").strip() if said.url_env else said.url
    fault = "" if url else f"{said.url_env} is not set" if said.url_env else "it has neither url nor url_env"
    return Channel(
        name=name,
        url=url,
        at_least=said.at_least,
        delay=said.delay,
        tenants=frozenset(said.tenants),
        quiet=said.quiet,
        fault=fault,
    )


def wording_of(settings: Settings) -> Wording:
    """How messages are written: with the dashboard's address, in the time zone of the quiet hours."""
    dashboard = settings.dashboard
    here = f"http://{dashboard.host}:{dashboard.port}" if dashboard.enabled and dashboard.port else ""
    return Wording(url=settings.alerts.url or dashboard.url or here, zone=ZoneInfo(settings.alerts.quiet.timezone))


class Looker:
    """Gathers the figures. One that cannot be read is left out, so that the others are still judged."""

    def __init__(self, settings: Settings, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._promises = objectives(settings.alerts.slos)
        self._sources = _sources(self._promises)
        self._unread: dict[str, tuple[float, str]] = {}  # figures → since when they cannot be read, and why

    async def look(self, connection: Connection, state: AlertState, now: datetime) -> Look:
        """Everything that rules judge. Raises Lost when another worker looks now."""
        alerts = self._settings.alerts
        hot, every = seconds_of(alerts.hot_lead), seconds_of(self._settings.guardian.every)

        async def read(what: str, reader: Callable[[], Awaitable[T]]) -> T | None:
            await state.keep(connection)  # each may take seconds, and together they would outlast the lease
            return await self._read(connection, what, reader)

        look = Look(
            at=now,
            rates=await read("executions", lambda: rates(connection, now, alerts.latency)),
            counted=await read("objectives", lambda: self._counted(connection, state, now)),
            letters=await read("dead letters", lambda: open_letters(connection)),
            doubts=await read("doubts", lambda: doubtful(connection)),
            budgets=await read("budgets", lambda: self._budgets(connection)),
            down=await read("vendors", lambda: down(connection)),
            aged=await read("queue", lambda: aged(connection, now)),
            leads=await read("leads", lambda: untaken(connection, alerts.hot_grade, hot, now)),
            findings=await read("findings", lambda: fresh_findings(connection, every)),
        )
        return replace(look, unread=self._long_unread())

    async def _read(self, connection: Connection, what: str, reader: Callable[[], Awaitable[T]]) -> T | None:
        """What is read within seconds; else None, and the log says why."""
        try:
            async with briefly(connection):
                found = await reader()
        except Lost:
            raise
        except Exception as error:  # one that cannot be read, for whatever reason, must not blind the others
            if connection.closed or connection.broken:
                raise
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._unread[what] = (self._unread.get(what, (time.monotonic(), ""))[0], failure)
            log.warning("monitor.not_read", what=what, error=failure, exc_info=not isinstance(error, psycopg.Error))
            return None
        self._unread.pop(what, None)
        return found

    def _long_unread(self) -> list[Unread]:
        moment = time.monotonic()
        return [Unread(what, said) for what, (since, said) in self._unread.items() if moment - since >= UNREAD]

    async def _counted(self, connection: Connection, state: AlertState, now: datetime) -> list[Counted]:
        if not await state.lease(connection):  # in this transaction: the mark moves for who holds it only
            raise Lost
        young = await advance(connection, self._sources, now)
        return await windows(connection, young, now)

    async def _budgets(self, connection: Connection) -> list[BudgetUse]:
        ceilings = {each.name: None if each.budget is None else nanos(each.budget) for each in self._handlers()}
        return [
            BudgetUse(
                scope=each.scope,
                tenant=each.whose if each.scope.startswith("tenant") else "",
                handler=each.whose if each.scope == "trigger" else "",
                used=each.spent + each.reserved,
                ceiling=each.ceiling,
                resets_at=each.resets_at,
            )
            for each in held(await accounts(connection), self._settings, ceilings)
        ]


def _sources(promises: Sequence[Objective]) -> Sources:
    async def executions(connection: Connection, low: UUID, high: UUID) -> list[Minute]:
        return await kept(connection, promises, low, high)

    async def deliveries(connection: Connection, low: UUID, high: UUID) -> list[Minute]:
        return await taken(connection, promises, low, high)

    return Sources(executions, deliveries, refused_by_us, [each.name for each in promises if each.deliveries])
