"""``circuit-script migrate``: the database's schema, before anything that needs it starts."""

from __future__ import annotations

import asyncio
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
    applied = asyncio.run(migrate(settings.database_url or EmbeddedPostgres(settings.folder).running_url))
    if as_json:
        print_json({"applied": applied, "known": len(read_migrations())})
        return
    print("\n".join(f"applied {each}" for each in applied) or "The database is up to date.")
