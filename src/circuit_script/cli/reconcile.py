"""``circuit-script reconcile``: ask the CRMs now what has changed that no webhook told."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, cast

import psycopg
import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, day, print_json, table, visible
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Pool, unavailable
from circuit_script.errors import ControlRefused
from circuit_script.settings_spans import seconds_of

NAME = "reconcile"
EXAMPLES = (
    "Examples:  circuit-script reconcile --dry-run  ·  circuit-script reconcile --connector gohighlevel --since 2h  ·  "
    "circuit-script reconcile --tenant acme --json"
)


def run(
    connector: Annotated[str | None, typer.Option(help="Ask this CRM only.")] = None,
    tenant: Annotated[str | None, typer.Option(help="For this tenant only.")] = None,
    since: Annotated[str, typer.Option(help="How far back (30m, 2h, 1d), in the place of where it stood.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken in.")] = False,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Ask each CRM what has changed, and take in what no webhook has told.

    The workers do it by themselves, as often as [reconcile] every says. What was told is left alone: a second time
    finds nothing.
    """
    settings = load_settings(app_folder(folder))
    try:
        back = timedelta(seconds=seconds_of(since)) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    polls, unpolled = asyncio.run(_poll(settings, connector, tenant, back, dry_run, as_json))
    if as_json:
        rows = [{**asdict(each), "found": each.found} for each in polls]
        print_json({"dry_run": dry_run, "polls": rows, "unpolled": [list(each) for each in unpolled]})
        return
    shown = table("tenant", "connector", "object", "since", "read", "new", "changed", "oldest", "note", right=("read",))
    add_rows(
        shown,
        [
            (visible(each.tenant), each.connector, visible(each.object), day(each.since), f"{each.read:,}",
             f"{each.inserts:,}", f"{each.updates:,}", day(each.oldest) if each.oldest else "",
             visible(each.note or ("there is more: ask again" if each.more else "")))
            for each in polls
        ],
    )  # fmt: skip
    add_rows(
        shown,
        [(visible(one), two, visible(three), "", "", "", "", "", "its connector does not say when records changed")
         for one, two, three in unpolled],
    )  # fmt: skip
    console().print(shown if polls or unpolled else "No CRM outside keeps an object that a trigger handles.")
    if dry_run and any(each.found for each in polls):
        console().print("Nothing was taken in: that was a dry run.")


async def _poll(
    settings: Settings, connector: str | None, tenant: str | None, back: timedelta | None, dry: bool, quiet: bool
) -> tuple[list[Any], list[tuple[str, str, str]]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from circuit_script.events.reconcile import Poll, Polled, Target
    from circuit_script.secrets import open_secrets
    from circuit_script.secrets.table import One
    from circuit_script.wiring.deliveries import open_deliveries_client
    from circuit_script.wiring.homes import make_housing
    from circuit_script.wiring.reconcile import handled_objects, held, targets_of

    if tenant is not None and tenant not in settings.tenant_names:
        raise ControlRefused(f"There is no tenant {tenant!r}.", cure=f"Known: {', '.join(settings.tenant_names)}.")
    polls: list[Polled] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    silent = quiet or not sys.stderr.isatty()
    try:
        async with looking(settings, NAME) as connection, open_deliveries_client() as client:
            database = cast(Pool, One(connection))
            async with aclosing(open_secrets(settings, database)) as secrets:
                housing = make_housing(settings, database, client, secrets)
                if connector is not None and connector not in housing.connectors:
                    known = ", ".join(sorted(housing.connectors))
                    raise ControlRefused(f"There is no connector {connector!r}.", cure=f"Known: {known}.")
                found = list(targets_of(settings, housing, await handled_objects(connection)))
                olds = await held(settings, connection)
                with Progress(*columns, console=console(stderr=True), disable=silent, transient=True) as progress:
                    wanted = [
                        each for each in found if isinstance(each, Target)
                        and connector in (None, each.crm.name) and tenant in (None, each.tenant)
                    ]  # fmt: skip
                    task = progress.add_task("asking", total=len(wanted))

                    def tell(polled: Polled) -> None:
                        said = f"{polled.tenant}, {polled.connector} {polled.object}: {polled.read:,} read"
                        progress.update(task, description=f"{said}, {polled.found:,} found")

                    stopped: set[tuple[str, str]] = set()
                    for each in wanted:
                        place = (each.tenant, each.crm.name)
                        if each.crm.name in olds and not dry:
                            polls.append(Polled(*place, each.object, note="held: an old service acts on its changes"))
                        elif place in stopped:
                            polls.append(Polled(*place, each.object, note="left alone for now: see above"))
                        else:
                            done = await Poll(database, back=back, dry=dry, told=tell).run(each)
                            polls.append(done)
                            if done.stop:
                                stopped.add(place)
                        progress.advance(task)
    except psycopg.Error as error:
        raise unavailable(error) from error
    unpolled = [
        each for each in found if not isinstance(each, Target) and connector in (None, each[1])
        and tenant in (None, each[0])
    ]  # fmt: skip
    return polls, unpolled
