"""``circuit-script pause``: stop something for now."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from typing import Annotated

import typer
from rich.markup import escape

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.cli.selection import (
    All,
    AsJson,
    By,
    Connector,
    Reason,
    Record,
    Tenant,
    Trigger,
    do,
    must_be_a_connector,
    selected,
)
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.events.controls import Selection, found, waiting
from circuit_script.jobs.outside import whoever
from circuit_script.tenants.pauses import Pause, pause, read_pauses

NAME = "pause"
EXAMPLES = (
    'Examples:  circuit-script pause --trigger score_new_leads --reason "the vendor is down"  ·  '
    "circuit-script pause --tenant acme  ·  circuit-script pause --list"
)


def run(
    folder: Folder = None,
    trigger: Trigger = None,
    tenant: Tenant = None,
    connector: Connector = None,
    record: Record = None,
    everything: All = False,
    reason: Reason = "",
    by: By = None,
    listed: Annotated[bool, typer.Option("--list", help="Only show what is paused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a trigger, a tenant, a connector or a record for now; what waits stays.

    Within a second nothing new of it starts, on any host. What waits keeps its order; what runs ends.
    """
    settings = load_settings(app_folder(folder))
    if listed:
        if everything or any(each is not None for each in (trigger, tenant, connector, record)):
            raise typer.BadParameter("it shows all that is paused, and pauses nothing", param_hint="--list")
        _show(do(settings, NAME, read_pauses), as_json)
        return
    said = selected(trigger, tenant, connector, record, everything)
    who = by or whoever()

    async def stop(connection: Connection) -> tuple[Selection, int, int]:
        meant = await found(connection, said)
        count = await waiting(connection, meant)
        await must_be_a_connector(settings, meant, count)
        id_ = await pause(connection, meant.kind, meant.value, tenant=meant.tenant, reason=reason, by=who)
        return meant, id_, count

    meant, id_, count = do(settings, NAME, stop)
    if as_json:
        print_json({"id": id_, "kind": meant.kind, "value": meant.value, "tenant": meant.tenant, "waiting": count})
        return
    console().print(f"[yellow]paused[/] {escape(meant.shown)}: {count:,} wait, and nothing of it starts until resume")
    if unknown := _unknown(settings, meant):
        console(stderr=True).print(f"[yellow]![/] {escape(unknown)}")


def _unknown(settings: Settings, meant: Selection) -> str:
    """What there is to say where circuit.toml names tenants, and not this one: it may be mistyped."""
    tenant = meant.value if meant.kind == "tenant" else meant.tenant
    if tenant is None or not settings.tenants or tenant in settings.tenants:
        return ""
    near = get_close_matches(tenant, settings.tenants, n=1)
    return f"circuit.toml has no tenant {tenant!r}" + (f": did you mean {near[0]!r}?" if near else ".")


def _show(pauses: list[Pause], as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) for each in pauses])
    elif not pauses:
        console().print("Nothing is paused.")
    else:
        rows = ((each.shown, f"{each.at.astimezone():%m-%d %H:%M}", each.by, each.reason) for each in pauses)
        console().print(add_rows(table("paused", "since", "by", "reason"), rows))
