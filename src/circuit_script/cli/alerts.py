"""``circuit-script alerts``: what is wrong, who has been told, and what a person says to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import BAD, GOOD, console, print_json, visible
from circuit_script.cli.selection import AsJson, By, do
from circuit_script.clock import now
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection, tenant_reading
from circuit_script.errors import AlertRefused
from circuit_script.jobs.outside import whoever
from circuit_script.settings_spans import seconds_of
from circuit_script.telemetry.alerts import Alert, acknowledge, alerts_of, silence
from circuit_script.telemetry.alerts.words import span

NAME = "alerts"
EXAMPLES = (
    "Examples:  circuit-script alerts  ·  circuit-script alerts --all  ·  circuit-script alerts ack errors:score  ·  "
    "circuit-script alerts silence errors:score --for 2h  ·  circuit-script alerts test ops"
)
COLOURS = {"critical": "bold red", "warning": "yellow", "notice": "cyan"}

Key = Annotated[str, typer.Argument(help="The alert's key, as it is listed and told.")]
OfTenant = Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")]
All = Annotated[bool, typer.Option("--all", help="Also those that are over.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]

app = typer.Typer(
    name=NAME,
    help="Show what is wrong and who was told; acknowledge, silence, and try a channel.",
    epilog=EXAMPLES,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(epilog=EXAMPLES)
def every(
    ctx: typer.Context,
    folder: Folder = None,
    everything: All = False,
    tenant: OfTenant = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show what is wrong and who was told; acknowledge, silence, and try a channel."""
    if ctx.invoked_subcommand is None:
        list_(folder, everything, tenant, limit, as_json)


@app.command("list", epilog="Examples:  circuit-script alerts list  ·  … alerts list --all --tenant acme --json")
def list_(
    folder: Folder = None,
    everything: All = False,
    tenant: OfTenant = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show what is wrong, the worst first."""

    async def look(connection: Connection) -> list[Alert]:
        if tenant is None:
            return await alerts_of(connection, None, open_only=not everything, limit=limit)
        async with tenant_reading(connection, tenant):
            return await alerts_of(connection, tenant, open_only=not everything, limit=limit)

    found = do(load_settings(app_folder(folder)), NAME, look)
    if as_json:
        print_json([asdict(each) for each in found])
    elif not found:
        console().print(f"{GOOD} Nothing is wrong." if not everything else "There was never an alert.")
    else:
        _show(console(), found)


@app.command(epilog="Example:  circuit-script alerts ack errors:score")
def ack(key: Key, folder: Folder = None, by: By = None, as_json: AsJson = False) -> None:
    """Say that you look after it: nobody else is told, but that it is over."""
    who = by or whoever()
    if not do(load_settings(app_folder(folder)), NAME, lambda connection: acknowledge(connection, key, who)):
        raise _none(key)
    if as_json:
        print_json({"key": key, "by": who})
    else:
        console().print(f"{escape(key)} is yours, {escape(who)}.")


@app.command("silence", epilog="Examples:  circuit-script alerts silence errors:score --for 2h  ·  … --for 0")
def silence_(
    key: Key,
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d; 0 ends it.")] = "1h",
    folder: Folder = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of it for a while, also when it ends and comes again."""
    try:
        seconds = 0.0 if length == "0" else seconds_of(length)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    until, who = now() + timedelta(seconds=seconds), by or whoever()
    if not do(load_settings(app_folder(folder)), NAME, lambda connection: silence(connection, key, until, who)):
        raise _none(key)
    said = f"is silent until {until.astimezone():%Y-%m-%d %H:%M}" if seconds else "is told again"
    if as_json:
        print_json({"key": key, "by": who, "until": until})
    else:
        console().print(f"{escape(key)} {said}.")


@app.command("test", epilog="Example:  circuit-script alerts test ops")
def try_(
    channel: Annotated[str, typer.Argument(help="The channel's name in circuit.toml.")],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Send a message to a channel now, from here."""
    from circuit_script.telemetry.alerts.notices import Message
    from circuit_script.telemetry.alerts.tell import CannotTell, must_have_apprise, tell
    from circuit_script.wiring.monitor import channels_of  # every part of a worker: nobody else here needs one

    known = {each.name: each for each in channels_of(load_settings(app_folder(folder)))}
    if channel not in known:
        there = ", ".join(known) or "none"
        raise AlertRefused(f"circuit.toml has no channel {channel!r}; there are: {there}.")
    must_have_apprise()
    found = known[channel]
    message = Message(
        title="Circuit Script: this is a test",
        body=f"The channel {channel} of this installation's alerts works.",
        severity=None,
    )
    failure = found.fault
    try:
        if not failure:
            asyncio.run(tell(found.url, message))
    except CannotTell as error:
        failure = str(error)
    if as_json:
        print_json({"channel": channel, "told": not failure, "failure": failure})
    elif failure:
        console(stderr=True).print(f"{BAD} {escape(visible(f'{channel} was not told: {failure}'))}")
    else:
        console().print(f"{GOOD} {escape(channel)} was told.")
    if failure:
        raise typer.Exit(1)


def _none(key: str) -> AlertRefused:
    return AlertRefused(f"No alert {key!r} is open.", cure="circuit-script alerts lists those that are.")


def _show(out: Console, found: Sequence[Alert]) -> None:
    for alert in found:
        over = alert.resolved is not None
        colour = "dim" if over else COLOURS[alert.severity]
        word = "over" if over else alert.severity
        out.print(f"[{colour}]{word:<8}[/] {escape(visible(alert.what))}", soft_wrap=True)
        for line in _about(alert):
            out.print(f"         [dim]{escape(visible(line))}[/]", soft_wrap=True)


def _about(alert: Alert) -> list[str]:
    ended = alert.resolved or now()
    lines = [f"{_at(alert.since)}, {'for ' if alert.resolved else ''}{span((ended - alert.since).total_seconds())}"]
    if alert.hits:
        lines.append("hits " + ", ".join(f"{hit.tenant} ({hit.said})" for hit in alert.hits))
    if alert.acknowledged_by and alert.acknowledged_at:
        lines.append(f"{alert.acknowledged_by} looks after it since {_at(alert.acknowledged_at)}")
    if alert.silenced_until and alert.silenced_until > now():
        lines.append(f"silent until {_at(alert.silenced_until)}, by {alert.silenced_by}")
    told = [f"{name} at {_at(each.at)}" for name, each in alert.told.items() if each.at]
    held = [f"{name} once the quiet hours end" for name, each in alert.told.items() if not each.at and each.held]
    if told or held:
        lines.append("told " + ", ".join([*told, *held]))
    if alert.resolved is None:
        lines += [f"next: {alert.next}"] if alert.next else []
        lines.append(f"circuit-script alerts ack {quote(alert.key)}")
    return lines


def _at(moment: datetime) -> str:
    return f"{moment.astimezone():%m-%d %H:%M:%S}"
