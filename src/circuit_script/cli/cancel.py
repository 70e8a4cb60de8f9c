"""``circuit-script cancel``: take what waits out of its queue."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, visible
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
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import CircuitError
from circuit_script.events.controls import Selection, found, leaving, waiting
from circuit_script.jobs.cancel import cancel
from circuit_script.jobs.outside import whoever
from circuit_script.tenants.pauses import read_pauses

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
        count = await waiting(connection, meant)
        await must_be_a_connector(settings, meant, count)
        return meant, count

    meant, count = do(settings, NAME, look)
    what = "effect" if meant.kind == "connector" else "event"
    if count and not yes:
        _ask(f"Cancel {_several(count, what)} ({meant.shown})? It cannot be undone.")
    done, held = 0, False

    async def leave(connection: Connection) -> tuple[int, list[str]]:
        nonlocal held
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        quiet = as_json or not sys.stderr.isatty()
        with Progress(*columns, console=console(stderr=True), disable=quiet, transient=True) as progress:
            task = progress.add_task("cancelling", total=count)

            def tell(so_far: int) -> None:
                nonlocal done, held
                done, held = so_far, True
                if so_far:
                    progress.update(task, completed=so_far)

            await cancel(connection, meant, reason=reason, by=who, told=tell)
            held = False
        pauses = [each for each in await read_pauses(connection) if each.shown == meant.shown]
        away = await leaving(connection, meant) if meant.kind == "connector" else 0
        return away, [f"by {each.by}: {each.reason}" if each.reason else f"by {each.by}" for each in pauses]

    try:
        away, pauses = do(settings, NAME, leave)
    except (KeyboardInterrupt, CircuitError):
        rest = "what is paused now: circuit-script pause --list"
        if held:
            rest = f"the rest stays paused: cancel it again, or {_resume(meant)}"
        console(stderr=True).print(f"broken off after {_several(done, what)}; {escape(rest)}", soft_wrap=True)
        raise
    if as_json:
        about = {"kind": meant.kind, "value": meant.value, "tenant": meant.tenant}
        print_json({**about, "cancelled": done, "on_their_way": away, "still_paused": bool(pauses)})
        return
    console().print(f"cancelled {_several(done, what)} ({escape(meant.shown)})")
    if away:
        console().print(f"on their way: {away:,}; each ends by its vendor's answer, and none is sent again")
    for each in pauses:
        console().print(f"still paused {escape(visible(each))}; to end it: {escape(_resume(meant))}", soft_wrap=True)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody is there to ask: say --yes")
    typer.confirm(question, abort=True, err=True)


def _resume(meant: Selection) -> str:
    """The command that ends the pause of what is meant."""
    if meant.kind == "everything":
        return "circuit-script resume --all"
    of = f" --tenant {shlex.quote(meant.tenant)}" if meant.tenant is not None else ""
    return f"circuit-script resume --{meant.kind} {shlex.quote(meant.value)}{of}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
