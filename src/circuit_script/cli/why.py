"""``circuit-script why``: why something waits."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table, visible
from circuit_script.cli.selection import AsJson, do
from circuit_script.cli.status import WHY
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.effects.waits import WaitingEffect
from circuit_script.events.why import Answer, Why, why
from circuit_script.execution.timing import duration_shown
from circuit_script.tenants import Tiers
from circuit_script.tenants.leases import Period, read_use
from circuit_script.tenants.tiers import EXECUTIONS

NAME = "why"
ONE = WHY | {"reference": "an id that it uses is not made yet", "due": "it is about to leave"}
EXAMPLES = "Examples:  circuit-script why 4711  ·  circuit-script why hBk3… --tenant acme --json"


def run(
    subject: Annotated[
        str, typer.Argument(help="A record's or a job's id, an event's number, a delivery's or an effect's id.")
    ],
    folder: Folder = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why an event or a record waits, and for how long.

    What holds it: a pause, a retry, money or a quota, an earlier event of its record, no worker, or the queue, with its
    place there. Then what its effects wait for on their way to vendors, and what became of its other events.
    """
    settings = load_settings(app_folder(folder))

    async def look(connection: Connection) -> Answer:
        return await why(connection, subject, tenant=tenant, used_up=await _used_up(connection, settings))

    found = do(settings, NAME, look)
    if as_json:
        print_json(asdict(found))
    elif not found.waiting and not found.ended and not found.effects:
        console().print(f"Nothing is known of {escape(subject)}: it never came, or is older than the ledger keeps.")
        console().print(
            "An id is a record's or a job's, an event's number like 4711, a delivery's or an effect's.", style="dim"
        )
    else:
        _show(subject, found)


async def _used_up(connection: Connection, settings: Settings) -> dict[str, datetime]:
    """Tenants who have no executions left, and until when."""
    tiers = Tiers.of_settings(settings).tenants
    if not tiers:
        return {}
    today, used = await read_use(connection, list(tiers))
    ends: dict[str, datetime] = {}
    for tenant, tier in tiers.items():
        for name, ceiling in zip(("day", "month"), tier.ceilings(EXECUTIONS), strict=True):
            count = used.get((tenant, EXECUTIONS, name), 0)
            if ceiling is not None and count >= ceiling:
                period = Period(name, today if name == "day" else today.replace(day=1), count, ceiling)
                ends[tenant] = max(period.resets_at, ends.get(tenant, period.resets_at))
    return ends


def _show(subject: str, found: Answer) -> None:
    out = console()
    for each in found.waiting:
        out.print(
            f"[bold]{escape(_name(each))}[/] waits for [bold]{escape(each.trigger)}[/] since {_at(each.received_at)}"
        )
        out.print(f"  [yellow]{each.kind}[/]: {escape(each.words)}")
        if line := ", ".join(_rest(each)):
            out.print(f"  {line}", style="dim")
    for effect in found.effects:
        _show_effect(out, effect)
    if not found.waiting and not found.effects:
        out.print(f"Nothing of {escape(subject)} waits.")
    if found.ended:
        out.print(
            add_rows(
                table("at", "event", "trigger", "ended", "reason", title="what ended lately"), map(_ended, found.ended)
            )
        )


def _show_effect(out: Console, each: WaitingEffect) -> None:
    what = f"{each.connector}.{each.operation} to {each.target}"
    whose = f"record {each.record}, tenant {each.tenant}" if each.record else f"tenant {each.tenant}"
    out.print(f"[bold]effect {each.id}[/] ({escape(what)}, {escape(whose)}) waits to be delivered")
    said = f": {escape(visible(each.reason))}" if each.reason else ""
    out.print(f"  [yellow]{each.why}[/]: {ONE[each.why]}{said}")
    rest = [f"until {_at(each.until)}"] if each.until is not None else []
    if each.ahead:
        rest.append(f"{each.ahead:,} of the same record {'leaves' if each.ahead == 1 else 'leave'} before it")
    if each.attempts:
        rest.append(f"tried {each.attempts:,} times" if each.attempts > 1 else "tried once")
    if rest:
        out.print(f"  {', '.join(rest)}", style="dim")


def _rest(each: Why) -> list[str]:
    said = []
    if each.until is not None:
        said.append(f"until {_at(each.until)}")
    if each.place is not None:
        said.append(f"place {each.place:,} of {each.of:,} in its tenant's queue for this trigger")
    if each.seconds is not None:
        said.append(f"about {duration_shown(max(1, round(each.seconds)))} at the recent rate")
    return said


def _name(each: Why) -> str:
    if each.kind == "delayed":
        return f"job {each.record} (tenant {each.tenant})"
    return f"event {each.event} ({each.object} {each.name}, record {each.record}, tenant {each.tenant})"


def _ended(row: dict[str, Any]) -> tuple[str, ...]:
    return _at(row["at"]), f"{row['id']} {row['event']}", row["trigger"], row["status"], row["reason"] or ""


def _at(moment: datetime) -> str:
    return f"{moment.astimezone():%m-%d %H:%M:%S}"
