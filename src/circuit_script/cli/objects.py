"""``circuit-script objects``: schemas of an app's objects, from what its CRM says of their fields."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import psycopg
import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, visible
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Pool, unavailable
from circuit_script.errors import ObjectsRefused

if TYPE_CHECKING:
    from circuit_script.schemas.comparing import Change
    from circuit_script.schemas.facts import ObjectFacts

NAME = "objects"
EXAMPLES = (
    "Examples:  circuit-script objects pull  ·  circuit-script objects pull salesforce --object Contact --object Lead"
    "  ·  circuit-script objects pull --tenant acme --out app/crm.py  ·  circuit-script objects pull --check"
)
FILE = "objects.py"
SIGNS = {"added": "+", "removed": "-", "changed": "~"}
LONGEST_FILE = 50_000_000  # bytes

app = group(NAME, "Write schemas of your objects from what the CRM says of their fields.", EXAMPLES)


@app.callback()
def objects() -> None:
    """Write schemas of your objects from what the CRM says of their fields."""


@app.command("pull", epilog=EXAMPLES)
def pull(
    crm: Annotated[
        str | None, typer.Argument(help="The CRM; where there is one only, that.", show_default=False)
    ] = None,
    object_: Annotated[
        list[str] | None,
        typer.Option("--object", help="This object; again for more. Contact, Opportunity and those of circuit.toml."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="From the account of this tenant.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; objects.py in the app's package unless it is said.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if the file is not as it would be.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that this command has not made.")] = False,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Write a schema of each object, with the account's own fields, into the app.

    It is registered when the app is loaded: records that do not fit fail alone. The same fields make the same file, so
    that --check tells in CI what has changed at the CRM since.
    """
    from circuit_script.schemas.comparing import changes

    settings = load_settings(app_folder(folder))
    path = _place(settings, out)
    before = _there(path)
    if before is not None and not check and not force and not _ours(before):
        raise ObjectsRefused(
            f"{_shown(path)} was not made by this command.", cure="Name another file: --out. Or write over it: --force."
        )
    name, found, source = asyncio.run(_ask(settings, crm, object_ or (), tenant, as_json))
    try:
        differences = changes(before or "", source)
        broken = False
    except SyntaxError:
        differences, broken = changes("", source), True
    same = before == source
    if not check and not same:
        _write(path, source)
    if as_json:
        print_json(
            {
                "crm": name,
                "file": str(path),
                "objects": {each.object: len(each.fields) for each in found},
                "same": same,
                "written": not check and not same,
                "changes": [asdict(each) for each in differences],
            }
        )
    else:
        _tell(path, name, found, differences, before=before, same=same, check=check, broken=broken)
    if check and not same:
        raise typer.Exit(1)


async def _ask(
    settings: Settings, crm: str | None, named: Sequence[str], tenant: str | None, quiet: bool
) -> tuple[str, list[ObjectFacts], str]:
    """The CRM, what it says, and that as Python."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from circuit_script.schemas.source import source_of
    from circuit_script.secrets import open_secrets
    from circuit_script.secrets.table import One
    from circuit_script.wiring.deliveries import open_deliveries_client
    from circuit_script.wiring.fields import crm_of, objects_of, pulled, tenant_of
    from circuit_script.wiring.homes import make_housing

    silent = quiet or not sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        async with looking(settings, NAME) as connection, open_deliveries_client() as client:
            database = cast(Pool, One(connection))
            async with aclosing(open_secrets(settings, database)) as secrets:
                name, asked = crm_of(settings, make_housing(settings, database, client, secrets).connectors, crm)
                whose = tenant_of(settings, tenant)
                wanted = objects_of(settings, name, named)
                with Progress(*columns, console=console(stderr=True), disable=silent, transient=True) as progress:
                    task = progress.add_task(f"asking {name}", total=len(wanted))

                    def told(object_: str, before: int) -> None:
                        said = f"asking {name} for the fields of {object_}"
                        progress.update(task, description=said, completed=before)

                    found = await pulled(name, asked, whose, wanted, told)
    except psycopg.Error as error:
        raise unavailable(error) from error
    words = ["circuit-script", NAME, "pull", name]
    words += ["--tenant", whose] if settings.tenants else []
    words += [word for each in wanted for word in ("--object", each)]
    return name, found, source_of(found, name, shlex.join(words))


def _place(settings: Settings, out: Path | None) -> Path:
    """Where the file goes. Raises ObjectsRefused."""
    if out is not None:
        return out.resolve()
    package = settings.folder / settings.app.replace(".", "/")
    if not package.is_dir():
        raise ObjectsRefused(
            f"{settings.app} is one file, not a package.", cure=f"Say where: --out {FILE}, and import it in your app."
        )
    return (package / FILE).resolve()


def _there(path: Path) -> str | None:
    """What the file holds; None where there is none. Raises ObjectsRefused for what cannot be read as text."""
    try:
        with path.open("rb") as file:
            held = file.read(LONGEST_FILE + 1)
        if len(held) > LONGEST_FILE:
            raise ObjectsRefused(f"{_shown(path)} is too large.", cure="Name another file: --out.")
        return held.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ObjectsRefused(f"{_shown(path)} cannot be read: {why}.", cure="Name another file: --out.") from None


def _ours(text: str) -> bool:
    from circuit_script.schemas.source import MARK

    return text.startswith(MARK)


def _write(path: Path, text: str) -> None:
    """All of it or nothing. Raises ObjectsRefused."""
    made = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        handle, made = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(made, mode)
        os.replace(made, path)
    except OSError as error:
        if made:
            with suppress(OSError):
                os.unlink(made)
        raise ObjectsRefused(
            f"{_shown(path)} cannot be written: {error.strerror}.",
            cure="Name a file that this user can write: --out.",
            page="folder-not-writable",
        ) from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _shown(path: Path) -> str:
    """Its name from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _tell(
    path: Path,
    crm: str,
    found: Sequence[ObjectFacts],
    differences: Sequence[Change],
    *,
    before: str | None,
    same: bool,
    check: bool,
    broken: bool,
) -> None:
    counted = ", ".join(f"{each.object} with {_counted(len(each.fields))}" for each in found)
    file = visible(_shown(path))
    if same:
        print(f"{file} is as {crm} says: {counted}")
        return
    if before is None:
        print(f"there is no {file} yet: circuit-script objects pull makes it" if check else f"made {file}: {counted}")
        return
    if broken:
        print(f"{file} was no Python")
    for each in differences if not broken else ():
        print(visible(_line(each)))
    print(f"{file} is not as {crm} says: circuit-script objects pull" if check else f"made {file} again: {counted}")


def _counted(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields:,} fields"


def _line(change: Change) -> str:
    sign = SIGNS[change.how]
    if not change.object:
        return f"{sign} comments"
    if not change.field:
        return f"{sign} {change.object}({change.now or change.was})"
    told = f"{change.was}  ->  {change.now}" if change.how == "changed" else change.was or change.now
    return f"{sign} {change.object}.{change.field}: {told}"
