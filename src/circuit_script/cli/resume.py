"""``circuit-script resume``: let go on what was paused."""

from __future__ import annotations

from rich.markup import escape

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.selection import All, AsJson, Connector, Record, Tenant, Trigger, do, selected
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import ControlRefused
from circuit_script.events.controls import Selection, found
from circuit_script.tenants.pauses import read_pauses, resume

NAME = "resume"
EXAMPLES = "Examples:  circuit-script resume --trigger score_new_leads  ·  circuit-script resume --all"


def run(
    folder: Folder = None,
    trigger: Trigger = None,
    tenant: Tenant = None,
    connector: Connector = None,
    record: Record = None,
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Let go on what was paused, in its order.

    --all ends the pause of everything, and no other.
    """
    said = selected(trigger, tenant, connector, record, everything)

    async def go_on(connection: Connection) -> tuple[Selection, int, list[str]]:
        meant = await found(connection, said)
        ended = await resume(connection, meant.kind, meant.value, tenant=meant.tenant)
        return meant, ended, [each.shown for each in await read_pauses(connection)]

    meant, ended, others = do(load_settings(app_folder(folder)), NAME, go_on)
    if not ended:
        paused = f"Paused is: {', '.join(others)}." if others else "Nothing is paused."
        raise ControlRefused(f"{meant.shown} was not paused.", cure=paused)
    if as_json:
        print_json({"kind": meant.kind, "value": meant.value, "tenant": meant.tenant, "still_paused": others})
        return
    console().print(f"[green]resumed[/] {escape(meant.shown)}")
    if others:
        console().print(f"still paused: {escape(', '.join(others))}", style="dim")
