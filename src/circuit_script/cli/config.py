"""``circuit-script config``: every setting and where its value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import FILE, load_settings
from circuit_script.events.sources import open_sources
from circuit_script.governor import limits_of
from circuit_script.settings_origin import origins
from circuit_script.tenants import TenantMap

NAME = "config"
EXAMPLES = "Examples:  circuit-script config show  ·  circuit-script config check  ·  circuit-script config show --json"

app = typer.Typer(
    name=NAME,
    help="Show every setting and where its value came from.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command(epilog="Example:  circuit-script config show --json | jq '.[] | select(.origin != \"default\")'")
def show(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show every setting, its value and where it came from. Secrets are never shown."""
    found = origins(load_settings(folder))
    if as_json:
        print_json(found)
        return
    rows = table("setting", "value", "from")
    console().print(add_rows(rows, [(each.name, _text(each.value), each.origin) for each in found]))


@app.command(epilog="Example:  circuit-script config check && circuit-script serve")
def check(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """See that every setting can be used: names, values, keys, limits, tenants. Exits 1 when one cannot."""
    settings = load_settings(folder)
    open_sources(settings.sources)
    limits_of(settings.limits)
    TenantMap(settings.tenants)
    if as_json:
        print_json({"ok": True, "file": str(settings.folder / FILE)})
    else:
        where = settings.folder / FILE
        print(f"{where} is right." if where.exists() else f"There is no {where}: every setting has its default.")


def _text(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return ", ".join(map(str, value)) or "none"
        case dict():
            return "none" if not value else str(value)
        case _:
            return str(value)
