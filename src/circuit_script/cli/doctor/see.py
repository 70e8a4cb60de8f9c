"""What watches over the platform, and what it has found: guardian, heartbeat, alerts, dashboard."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from shlex import quote
from urllib.parse import urlsplit

import psycopg

from circuit_script.cli.doctor.check import Check, State, bad, good, warning
from circuit_script.config import Settings
from circuit_script.db.pool import Connection
from circuit_script.settings_spans import seconds_of
from circuit_script.supervised import told
from circuit_script.telemetry.alerts import alerts_of
from circuit_script.telemetry.alerts.state import mute
from circuit_script.telemetry.guardian import Finding
from circuit_script.wiring.guardian import last_look, read_findings

SHOWN = 12  # findings on one screen, the worst
_STATES = {"notice": State.good, "warning": State.warning, "critical": State.bad}


def watching(settings: Settings) -> Iterator[Check]:
    """What settings ask for, and whether what it needs is there."""
    yield _dashboard(settings)
    yield _alerts(settings)
    yield _heartbeat(settings)
    if settings.traces.otlp_url and find_spec("opentelemetry") is None:
        yield _missing("traces", "[traces] otlp_url", "otel")
    if settings.sentry.dsn and find_spec("sentry_sdk") is None:
        yield _missing("sentry", "[sentry] dsn", "sentry")


def _missing(name: str, wanted: str, extra: str) -> Check:
    return bad(name, f"{wanted} is set, and what sends it is not installed.", f"pip install 'circuit-script[{extra}]'.")


def _dashboard(settings: Settings) -> Check:
    wanted = settings.dashboard
    if not wanted.enabled:
        return good("dashboard", "none: [dashboard] enabled is false")
    if find_spec("nicegui") is None:
        return warning("dashboard", "It is not installed.", "pip install 'circuit-script[dashboard]'.")
    roles = told(settings.state)
    role = roles.roles.get("dashboard") if roles else None
    if role is None:
        return good("dashboard", f"starts with the app on {wanted.host}:{wanted.port}")
    if role.down:
        return warning("dashboard", f"It is down: {role.down}", "Look at what the app printed; the rest goes on.")
    return good("dashboard", f"{wanted.url or role.said} (process {role.pid})")


def _alerts(settings: Settings) -> Check:
    channels = settings.alerts.channels
    if not channels:
        return good("alerts", "nobody is told: there is no channel in [alerts.channels]")
    if find_spec("apprise") is None:
        return _missing("alerts", "[alerts.channels]", "alerts")
    if silent := sorted(name for name, each in channels.items() if not (each.url or os.environ.get(each.url_env))):
        cure = f"Give [alerts.channels.{silent[0]}] an url, or set the variable that its url_env names."
        return bad("alerts", f"Channels without an address: {', '.join(silent)}.", cure)
    return good("alerts", f"told: {', '.join(sorted(channels))}; try one: circuit-script alerts test CHANNEL")


def _heartbeat(settings: Settings) -> Check:
    url = settings.guardian.heartbeat_url
    if not url:
        return good("heartbeat", "none: nobody outside hears of it when this host is gone")
    # The rest of the address is a secret.
    return good("heartbeat", f"goes to {urlsplit(url).hostname} every {settings.guardian.heartbeat} while all is well")


async def telling(connection: Connection, settings: Settings) -> AsyncIterator[Check]:
    """What is open, and which channels cannot be told of it."""
    try:
        is_open = await alerts_of(connection, None, open_only=True)
        silent = await mute(connection, list(settings.alerts.channels))
    except psycopg.errors.UndefinedTable:
        return
    for each in silent:
        said = f"The channel {each.channel} could not be told {each.failures:,} times in a row: {each.failure}."
        yield warning("alerts", said, f"circuit-script alerts test {quote(each.channel)}")
    if is_open:
        said = f"{len(is_open):,} open, the worst of them: {is_open[0].what}"
        yield warning("alerts", said, "circuit-script alerts shows what to do next.")


async def findings(connection: Connection, settings: Settings, *, working: bool) -> AsyncIterator[Check]:
    """What the guardian has found, the worst first."""
    every = seconds_of(settings.guardian.every)
    try:
        at, found = await last_look(connection), await read_findings(connection, every)
    except psycopg.errors.UndefinedTable:
        return
    if at is None:
        yield good("guardian", "looks for the first time within seconds" if working else "looks while the app runs")
        return
    if not found:
        yield good("guardian", f"last looked {at:%Y-%m-%d %H:%M %Z} and found nothing wrong")
    for each in found[:SHOWN]:
        yield _shown(each)
    if len(found) > SHOWN:
        more = f"{len(found) - SHOWN} more findings"
        yield warning("guardian", more, "circuit-script doctor shows them when these are mended.")


def _shown(finding: Finding) -> Check:
    said = f"{finding.what.removesuffix('.')}, since {finding.since:%Y-%m-%d %H:%M %Z}"
    return Check(finding.name.partition("@")[0], _STATES[finding.severity], said, finding.next)
