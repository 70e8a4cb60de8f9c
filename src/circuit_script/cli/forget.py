"""``circuit-script forget``: blank everything about one person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from circuit_script.backup import open_place
from circuit_script.backup.forgets import add_list, write_forgets
from circuit_script.backup.places import FORGETS
from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection, unavailable
from circuit_script.erasure import Forgotten, Person, Remembered, forget, owners, remembered
from circuit_script.errors import CircuitError, ForgetRefused
from circuit_script.jobs.outside import whoever

NAME = "forget"
EXAMPLES = (
    "Examples:  circuit-script forget --record 4711 --dry-run  ·  "
    "circuit-script forget --record 4711 --tenant acme --yes  ·  circuit-script forget --record 4711 --unassigned"
)
UNASSIGNED = "no tenant"


def run(
    record: Annotated[str, typer.Option(help="The record by which the person is known.")],
    tenant: Annotated[str | None, typer.Option(help="Whose record, where several tenants have one.")] = None,
    unassigned: Annotated[bool, typer.Option("--unassigned", help="In what belongs to no tenant.")] = False,
    object: Annotated[str | None, typer.Option(help="Only of this object, where several share the id.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be blanked, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: Annotated[str | None, typer.Option(help="Who asks for it; your login where nothing is said.")] = None,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Blank everything about one person: bodies, logs, replies, effects, records. It cannot be undone."""
    if tenant is not None and unassigned:
        raise typer.BadParameter("give either --tenant or --unassigned")
    if not record.strip():
        raise typer.BadParameter("--record needs an id")
    settings = load_settings(app_folder(folder))
    who = by or whoever()
    try:
        done, listed = asyncio.run(_forget(settings, record, tenant, unassigned, object, who, dry_run=dry_run, yes=yes))
    except psycopg.Error as error:
        raise unavailable(error) from error
    kept = [] if dry_run else asyncio.run(_keep_list(settings, listed))
    if as_json:
        print_json({**asdict(done), "rows": done.rows, "list": kept})
        return
    _show(done)


async def _forget(
    settings: Settings,
    record: str,
    tenant: str | None,
    unassigned: bool,
    object: str | None,
    by: str,
    *,
    dry_run: bool,
    yes: bool,
) -> tuple[Forgotten, list[Remembered]]:
    async with looking(settings, NAME) as connection:
        owner = None if unassigned else tenant or await _owner(connection, record)
        person = Person(record, owner, object)
        if not dry_run and not yes:
            _ask(await forget(connection, person, by, dry_run=True))
        return await forget(connection, person, by, dry_run=dry_run), await remembered(connection)


async def _owner(connection: Connection, record: str) -> str | None:
    """The one tenant that has this record. Raises ForgetRefused when that is none, or when there are several."""
    found = await owners(connection, record)
    if not found:
        raise ForgetRefused(
            f"Nothing is known of a record {record!r}.",
            cure="Look for it: circuit-script logs --record ID. To have it forgotten in copies all the same, name its "
            "tenant: --tenant.",
        )
    if len(found) > 1:
        names = ", ".join(UNASSIGNED if each is None else each for each in found)
        raise ForgetRefused(
            f"{names} have a record {record!r} each.", cure="Say which: --tenant NAME, or --unassigned for no tenant's."
        )
    return found[0]


def _ask(would: Forgotten) -> None:
    _show(would, stderr=True)
    if not typer.confirm("Blank all this for good?", err=True):
        raise ForgetRefused("Nobody said yes.", cure="Answer y, or give --yes in a script.")


async def _keep_list(settings: Settings, listed: Sequence[Remembered]) -> list[str]:
    """Keep the list also outside the database, so that a restored copy forgets again; where it lies now."""
    path = settings.state / FORGETS
    write_forgets(path, listed)
    kept = [str(path)]
    if not settings.backup.to:
        return kept
    try:
        place = open_place(settings.backup.to, settings.backup.endpoint_url)
        kept.append(await add_list(place, listed))
    except CircuitError as error:
        console(stderr=True).print(
            f"The list could not be put beside the copies: {error} Copy {path} there.", markup=False
        )
    return kept


def _show(done: Forgotten, *, stderr: bool = False) -> None:
    out = console(stderr=stderr)
    whose = UNASSIGNED if done.tenant is None else f"tenant {done.tenant}"
    verb = "would be blanked" if done.dry_run else "blanked"
    if not done.blanked:
        out.print(f"Nothing of {done.record} of {whose} is left to blank.", markup=False)
        return
    shown = add_rows(table("table", verb, right=(verb,)), [(name, f"{n:,}") for name, n in done.blanked.items()])
    out.print(shown)
    others = len(done.records) - 1
    more = f", with {others} that hang on it" if others > 0 else ""
    out.print(f"{done.record} of {whose}{more}: {done.rows:,} rows {verb}", markup=False)
    if not done.dry_run:
        out.print("Copies that were made before still have it; restore forgets it again.", style="dim")
