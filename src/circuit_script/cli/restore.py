"""``circuit-script restore``: a backup, put into a database."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict

from circuit_script.backup import Manifest, Restored, is_remote, open_place, restore, verify
from circuit_script.backup.forgets import lists_in, read_forgets
from circuit_script.backup.places import FORGETS, FolderPlace
from circuit_script.backup.restore import ASIDE
from circuit_script.cli.copying import shown_progress
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.config import Settings, load_settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.erasure import Remembered
from circuit_script.errors import BackupRefused, NoApp
from circuit_script.jobs.outside import whoever

NAME = "restore"
EXAMPLES = (
    "Examples:  circuit-script restore before-upgrade.backup --here  ·  "
    "circuit-script restore s3://acme-copies/crm/circuit-1f0c2d3e-20260501T020000Z-planned.backup "
    "--into postgresql://circuit@db.example.com/fresh"
)


def run(
    backup: Annotated[str, typer.Argument(help="The file, or s3://bucket/prefix/name.")],
    into: Annotated[str | None, typer.Option(help="The database, as in DATABASE_URL.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Into this app's own database.")] = False,
    replace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The database's name: all that is in it now may go.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Nothing runs there until you say resume.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Put a backup into an empty database, or with --replace into one whose content may go."""
    if (into is None) != here:
        raise typer.BadParameter("give either --into postgresql://… or --here")
    settings = _settings(folder, needed=here)
    by = whoever() if paused else None
    done = asyncio.run(_restore(settings, backup, into, replace, by, yes=yes, quiet=as_json))
    if as_json:
        forgotten = [{key: value for key, value in asdict(each).items() if key != "records"} for each in done.forgotten]
        rows = {table.name: table.rows for table in done.manifest.tables}
        said = {"replaced": done.replaced, "taken_at": done.manifest.taken_at}
        print_json({"database": done.database, **said, "rows": rows, "forgotten_again": forgotten, "left": done.left})
        return
    print(f"restored: {done.manifest.rows:,} rows into {done.database!r}, as of {_moment(done.manifest)}")
    if done.forgotten:
        print(f"{len(done.forgotten)} who were forgotten since are forgotten again")
    if done.left is not None:
        print(f"What stood there before may still be in the schema {ASIDE}, until it is dropped: {done.left}")
    print("Everything is paused: circuit-script resume --all" if paused else "What waited then runs once it starts.")


def _settings(folder: Path | None, *, needed: bool) -> Settings | None:
    try:
        return load_settings(app_folder(folder))
    except NoApp:
        if needed:
            raise
        return None


async def _restore(
    settings: Settings | None,
    backup: str,
    into: str | None,
    replace: str | None,
    paused_by: str | None,
    *,
    yes: bool,
    quiet: bool,
) -> Restored:
    async with _file(backup, settings) as (path, listed):
        manifest = await asyncio.to_thread(verify, path)
        async with _target(settings, into) as url:
            _ask(manifest, url, replace, yes=yes)
            with shown_progress(NAME, quiet=quiet) as told:
                return await restore(path, url, replace=replace, paused_by=paused_by, also_forgotten=listed, told=told)


@contextlib.asynccontextmanager
async def _file(backup: str, settings: Settings | None) -> AsyncIterator[tuple[Path, Sequence[Remembered]]]:
    """The file on this host, and who was forgotten as far as lists beside it and in this app's folder say."""
    listed = read_forgets(settings.state / FORGETS) if settings is not None else []
    if not is_remote(backup):
        path = Path(backup)
        yield path, [*listed, *await lists_in(FolderPlace(path.parent))]
        return
    prefix, _, name = backup.rpartition("/")
    place = open_place(prefix, settings.backup.endpoint_url if settings is not None else None)
    with tempfile.TemporaryDirectory(prefix="restore-") as folder:
        path = Path(folder) / "copy"
        await place.fetch(name, path)
        yield path, [*listed, *await lists_in(place)]


@contextlib.asynccontextmanager
async def _target(settings: Settings | None, into: str | None) -> AsyncIterator[str]:
    """The database's address. An embedded server that had to be started for it is stopped again."""
    if into is not None:
        yield into
        return
    assert settings is not None  # `--here` needs an app
    if settings.database_url is not None:
        yield settings.database_url
        return
    embedded = EmbeddedPostgres(settings.folder)
    ran = embedded.running()
    try:
        yield await embedded.start()
    finally:
        if not ran:
            await embedded.stop()


def _ask(manifest: Manifest, url: str, replace: str | None, *, yes: bool) -> None:
    if yes:
        return
    database = conninfo_to_dict(url).get("dbname", "")
    goes = ", and all that is in it now goes" if replace else ""
    said = f"{manifest.rows:,} rows of {manifest.database!r}, as of {_moment(manifest)}, go into {database!r}{goes}."
    console(stderr=True).print(said, markup=False)
    if not typer.confirm("Restore?", err=True):
        raise BackupRefused("Nobody said yes.", cure="Answer y, or give --yes in a script. Nothing was changed.")


def _moment(manifest: Manifest) -> str:
    return f"{manifest.taken_at:%Y-%m-%d %H:%M:%S %Z}"
