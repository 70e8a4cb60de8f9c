"""``circuit-script cancel``: take what waits out of its queue."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.selection import All, AsJson, By, Connector, Reason, Record, Tenant, Trigger, do, selected
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.events.controls import Selection, found, leaving, waiting
from circuit_script.jobs.cancel import cancel
from circuit_script.jobs.outside import whoever

NAME = "cancel"
EXAMPLES = (
    "Examples:  circuit-script cancel --record 4711  ·  "
    'circuit-script cancel --trigger import_all --reason "wrong file" --yes'
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take what waits out of its queue for good, with its reason.

    What runs is cut off from its result, which does not count.

    Their outcome is "cancelled", with the reason and who did it; the ledger keeps the events, so that they can be
    replayed. Of a connector, what it has yet to deliver is discarded; what is on its way ends by its vendor's answer,
    and is not sent again.
    """
    settings = load_settings(app_folder(folder))
    said, who = selected(trigger, tenant, connector, record, everything), by or whoever()

    async def look(connection: Connection) -> tuple[Selection, int]:
        meant = await found(connection, said)
        return meant, await waiting(connection, meant)

    meant, count = do(settings, NAME, look)
    what = "effects" if meant.kind == "connector" else "events"
    if (
        count
        and not yes
        and not typer.confirm(f"Cancel {count:,} {what} ({meant.shown})? It cannot be undone.", err=True)
    ):
        raise typer.Exit(1)

    async def leave(connection: Connection) -> tuple[int, int]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        quiet = as_json or not sys.stderr.isatty()
        with Progress(*columns, console=console(stderr=True), disable=quiet, transient=True) as progress:
            task = progress.add_task("cancelling", total=count)
            done = await cancel(
                connection, meant, reason=reason, by=who, told=lambda done: progress.update(task, completed=done)
            )
            return done, await leaving(connection, meant) if meant.kind == "connector" else 0

    done, away = do(settings, NAME, leave)
    if as_json:
        about = {"kind": meant.kind, "value": meant.value, "tenant": meant.tenant}
        print_json({**about, "cancelled": done, "on_their_way": away})
        return
    console().print(f"cancelled {done:,} {what} ({escape(meant.shown)})")
    if away:
        console().print(f"on their way: {away:,}; each ends by its vendor's answer, and none is sent again")
