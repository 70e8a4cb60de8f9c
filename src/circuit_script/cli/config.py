"""``circuit-script config``: every setting and where its value came from."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.cli.verbs import group
from circuit_script.config import FILE, load_settings
from circuit_script.events.sources import open_sources
from circuit_script.governor import limits_of
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.settings_origin import origins
from circuit_script.tenants import TenantMap, Tiers

NAME = "config"
EXAMPLES = "Examples:  circuit-script config show  ·  circuit-script config check  ·  circuit-script config show --json"

app = group(NAME, "Show every setting and where its value came from.", EXAMPLES)


@app.command(epilog="Example:  circuit-script config show --json | jq '.[] | select(.origin != \"default\")'")
def show(
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show every setting, its value and where it came from. Secrets are never shown."""
    found = origins(load_settings(app_folder(folder)))
    if as_json:
        print_json(found)
        return
    rows = table("setting", "value", "from")
    console().print(add_rows(rows, [(each.name, _text(each.value), each.origin) for each in found]))


@app.command(epilog="Example:  circuit-script config check && circuit-script serve")
def check(
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """See that every setting can be used: names, values, keys, limits, tenants, tiers. Exits 1 when one cannot."""
    settings = load_settings(app_folder(folder))
    open_sources(settings.sources)
    limits_of(settings.limits)
    CircuitGovernor.of_settings(settings)
    TenantMap(settings.accounts)
    Tiers.of_settings(settings)
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
