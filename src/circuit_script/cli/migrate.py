"""``circuit-script migrate``: the database's schema, before anything that needs it starts."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.config import load_settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import migrate, read_migrations

NAME = "migrate"
EXAMPLES = "Examples:  circuit-script migrate  ·  circuit-script migrate --json | jq .applied"


def run(folder: Folder = None, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Bring the database to this version's schema, as serve does when it starts."""
    settings = load_settings(app_folder(folder))
    url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
    warnings: list[str] = []
    applied = asyncio.run(migrate(url, tell=warnings.append))
    for each in warnings:
        print(f"warning: {each}\n  more: circuit-script explain migration", file=sys.stderr)
    if as_json:
        print_json({"applied": applied, "known": len(read_migrations()), "warnings": warnings})
        return
    print("\n".join(f"applied {each}" for each in applied) or "The database is up to date.")
