"""``circuit-script connections``: which tenants are connected to which accounts; never a token."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, day, print_json, table, visible
from circuit_script.cli.selection import do
from circuit_script.config import load_settings
from circuit_script.connectors.tokens import disconnect, list_connections
from circuit_script.errors import ControlRefused

NAME = "connections"
EXAMPLES = (
    "Examples:  circuit-script connections  ·  circuit-script connections --tenant acme --json  ·  "
    "circuit-script connections --tenant acme --forget gohighlevel"
)


def run(
    tenant: Annotated[str | None, typer.Option(help="Those of this tenant.")] = None,
    forget: Annotated[str, typer.Option(help="Forget the tenant's tokens of this vendor.")] = "",
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show which tenants are connected to which accounts of vendors: since when, and what is wrong."""
    settings = load_settings(app_folder(folder))
    if forget:
        if tenant is None:
            raise typer.BadParameter("say whose: --tenant", param_hint="--forget")
        if not do(settings, NAME, lambda connection: disconnect(connection, tenant, forget)):
            raise ControlRefused(
                f"{tenant} is not connected to {forget[:80]}.", cure="Look: circuit-script connections"
            )
        print(f"forgotten: the tokens of {tenant} for {forget}; running processes use them up to 30 seconds more")
        return
    found = do(settings, NAME, lambda connection: list_connections(connection, tenant))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    shown = table("tenant", "vendor", "account", "by", "connected", "token until", "trouble")
    rows = [
        (visible(each.tenant) or "(agency)", visible(each.connector), visible(each.account), each.kind,
         day(each.connected_at), day(each.expires_at) if each.expires_at else "no end", visible(each.broken or ""))
        for each in found
    ]  # fmt: skip
    console().print(add_rows(shown, rows) if rows else "Nobody is connected yet: circuit-script connect gohighlevel")
