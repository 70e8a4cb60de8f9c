"""``circuit-script effects``: what a release did to the world, and the commands that repair it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from circuit_script.cli.app_database import do
from circuit_script.cli.environments import Environment, settings_in
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.logs import moment
from circuit_script.cli.output import add_rows, console, print_json, table, visible
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseUnknown
from circuit_script.releases.figures import Change, Handled, changes_of, handled_by
from circuit_script.releases.kept import live_release
from circuit_script.releases.store import ReleaseRow, find_release

NAME = "effects"
EXAMPLES = (
    "Examples:  circuit-script effects --release v1.4.2  ·  circuit-script effects --release v1.4.2 --since 2h --json"
)
SHOWN = 40  # lines; --json has all
WIDEST = 40  # letters of an example


def run(
    release: Annotated[str | None, typer.Option(help="Like v1.4.2; the live one if not said.")] = None,
    folder: Folder = None,
    env: Environment = None,
    since: Annotated[str | None, typer.Option(help="What it did in the last 2h, 1d; else all that is kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what a release did to the world, and how to repair it: what it wrote and sent, by object and field, with
    examples; and the commands that run what it handled again."""
    settings = load_settings(app_folder(folder))
    begin = None if since is None else moment(since, datetime.now(UTC))

    async def look(connection: Connection) -> tuple[ReleaseRow, list[Change], list[Handled]]:
        found = await _found(connection, release)
        after = begin or found.created
        return found, await changes_of(connection, found.id, after), await handled_by(connection, found.id, after)

    found, changes, handled = do(settings_in(settings, env), NAME, look)
    repairs = [_repair(each, settings, env) for each in handled]
    if as_json:
        print_json({
            "release": found.name, "live": found.live, "changes": [asdict(each) for each in changes],
            "handled": [{**asdict(each), "replay": repair} for each, repair in zip(handled, repairs, strict=True)],
        })  # fmt: skip
        return
    _show(found, changes, handled, repairs)


async def _found(connection: Connection, name: str | None) -> ReleaseRow:
    if name is not None:
        return await find_release(connection, name)
    live = await live_release(connection)
    if live is None:
        raise ReleaseUnknown("Nothing is live.", cure="Name one: --release v1.4.2.")
    return live


def _show(found: ReleaseRow, changes: Sequence[Change], handled: Sequence[Handled], repairs: Sequence[str]) -> None:
    out = console()
    if not handled and not changes:
        out.print(f"{found.name} has handled nothing that is still kept.")
        return
    executions = sum(each.executions for each in handled)
    out.print(f"{found.name}{' (live)' if found.live else ''}: {executions:,} executions")
    columns = ("what", "of", "field", "effects", "records", "became", "for example")
    rows = [
        (f"{each.connector}.{each.operation}" if each.connector else each.operation, visible(each.target),
         visible(each.field), f"{each.effects:,}", f"{each.records:,}", _became(each.statuses), _example(each))
        for each in changes[:SHOWN]
    ]  # fmt: skip
    out.print(add_rows(table(*columns, right=("effects", "records")), rows) if rows else "It wrote and sent nothing.")
    if len(changes) > SHOWN:
        out.print(f"… and {len(changes) - SHOWN} more lines: --json shows all", style="dim")
    if repairs:
        through = "first mend it, or roll back" if found.live else "through what is live now"
        out.print(f"\nTo repair, run what it handled again, {through}; without --dry-run for real:")
        for each in repairs:
            print(f"  {each}")


def _repair(handled: Handled, settings: Settings, env: str | None) -> str:
    """The command that takes the events again that this handler worked on."""
    there = "" if env is None else f'DATABASE_URL="${settings.env[env].database_env}" '
    since, until = _second(handled.since), _second(handled.until + timedelta(seconds=1))
    command = f"circuit-script replay --trigger {handled.handler} --since {since} --until {until} --dry-run"
    return f"{there}{command}"


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


def _became(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in sorted(statuses.items()))


def _example(change: Change) -> str:
    if not change.examples:
        return ""
    first: Mapping[str, Any] = change.examples[0]
    value = "" if first["value"] is None and not change.field else f" {json.dumps(first['value'], ensure_ascii=False)}"
    said = visible(f"{first['record'] or ''}{value}".strip())
    return said if len(said) <= WIDEST else f"{said[: WIDEST - 1]}…"
