"""The verb: every check in its order, for people and for scripts."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from circuit_script.cli.doctor.app import addresses, app, port, sources
from circuit_script.cli.doctor.check import Check, State, bad, good
from circuit_script.cli.doctor.database import database
from circuit_script.cli.doctor.isolation import isolation
from circuit_script.cli.doctor.machine import machine
from circuit_script.cli.doctor.see import watching
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import BAD, GOOD, WARNING, console, print_json
from circuit_script.config import FILE, load_settings
from circuit_script.errors import ConfigError, NoApp

NAME = "doctor"
EXAMPLES = "Examples:  circuit-script doctor  ·  circuit-script doctor --network  ·  circuit-script doctor --json"
_MARKS = {State.good: GOOD, State.warning: WARNING, State.bad: BAD}


def run(
    folder: Folder = None,
    network: Annotated[bool, typer.Option(help="Also see whether addresses in circuit.toml can be reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check this machine, the app and its database, and say what to mend. Exits 1 when something is ✗."""
    checks = asyncio.run(examine(folder, network=network))
    sick = any(check.state is State.bad for check in checks)
    if as_json:
        print_json({"ok": not sick, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    if sick:
        raise typer.Exit(1)


async def examine(given: Path | None, *, network: bool) -> list[Check]:
    """Every check, in the order in which things must work. Nothing is started or changed."""
    try:
        folder = app_folder(given)
    except NoApp as error:
        return [*machine((given or Path()).resolve()), bad("app", error.detail, error.cure)]
    checks = list(machine(folder))
    try:
        settings = load_settings(folder)
    except ConfigError as error:
        return [*checks, bad("settings", error.detail, error.cure)]
    checks.append(_settings(folder / FILE))
    checks.append(isolation(settings))
    checks += await app(settings)
    checks += sources(settings)
    checks.append(port(settings))
    checks += watching(settings)
    checks += [check async for check in database(settings)]
    if network:
        checks += [check async for check in addresses(settings)]
    return checks


def _settings(file: Path) -> Check:
    return good("settings", f"{file} is right" if file.exists() else f"no {FILE}: every setting has its default")


def _show(checks: list[Check]) -> None:
    out = console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        out.print(f"{_MARKS[check.state]} {check.name:{width}}  {escape(check.said)}", soft_wrap=True)
        if check.cure:
            out.print(f"  {'':{width}}  → {escape(check.cure)}", soft_wrap=True)
    sick = [check.name for check in checks if check.state is State.bad]
    odd = [check.name for check in checks if check.state is State.warning]
    said = [
        f"{words}: {', '.join(dict.fromkeys(names))}" for words, names in (("mend", sick), ("look at", odd)) if names
    ]
    out.print(f"\n{'; '.join(said) or 'all is well'}", soft_wrap=True, markup=False, style="bold")
