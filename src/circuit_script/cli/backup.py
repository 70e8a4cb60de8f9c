"""``circuit-script backup``: a copy of the whole database, taken while it is at work."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.backup import Manifest, back_up, file_name, is_remote, open_place
from circuit_script.cli.app_database import looking
from circuit_script.cli.copying import shown_progress, size
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.config import Settings, load_settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.errors import BackupRefused

NAME = "backup"
EXAMPLES = (
    "Examples:  circuit-script backup  ·  circuit-script backup before-upgrade.backup  ·  "
    "circuit-script backup s3://acme-copies/crm"
)


def run(
    to: Annotated[
        str | None, typer.Argument(help="A file, a folder, or s3://bucket/prefix; a new file here if nothing is said.")
    ] = None,
    folder: Folder = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also where a file of that name is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Copy the whole database into one file, while it is at work. `restore` puts it back."""
    settings = load_settings(app_folder(folder))
    where, manifest, bytes_ = asyncio.run(_back_up(settings, to, overwrite=overwrite, quiet=as_json))
    if as_json:
        tables = {table.name: table.rows for table in manifest.tables}
        said = {"version": manifest.version, "server": manifest.server, "database": manifest.database}
        print_json({"backup": where, "bytes": bytes_, "taken_at": manifest.taken_at, **said, "rows": tables})
        return
    print(f"{where}: {manifest.rows:,} rows of {len(manifest.tables)} tables, {size(bytes_)}")
    print(f"as of {manifest.taken_at:%Y-%m-%d %H:%M:%S %Z}; everything is in it, so keep it where only you can read it")


async def _back_up(settings: Settings, to: str | None, *, overwrite: bool, quiet: bool) -> tuple[str, Manifest, int]:
    url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
    with shown_progress("backup", quiet=quiet) as told:
        if to is None or not is_remote(to):
            path = await _path(settings, to)
            if path.exists() and not overwrite:
                raise BackupRefused(f"There is a file {path} already.", cure="Choose another name, or say --overwrite.")
            manifest = await back_up(url, path, told)
            return str(path), manifest, path.stat().st_size
        place = open_place(to, settings.backup.endpoint_url)  # what is wrong with it is said before the work
        with tempfile.TemporaryDirectory(prefix="backup-") as folder:
            file = Path(folder) / "copy"
            manifest = await back_up(url, file, told)
            where = await place.put(file, file_name(manifest.installation, manifest.taken_at))
            return where, manifest, file.stat().st_size


async def _path(settings: Settings, to: str | None) -> Path:
    """The file that is meant. In a folder it gets a name that says whose it is, and of when."""
    given = Path(to) if to is not None else Path()
    if to is not None and not given.is_dir():
        return given
    async with looking(settings, NAME) as connection:
        row = await (await connection.execute("SELECT id::text, now() FROM circuit.installation")).fetchone()
    assert row is not None  # it has one row
    return given / file_name(*row)
