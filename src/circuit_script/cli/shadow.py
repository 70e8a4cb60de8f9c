"""``circuit-script shadow``: what a candidate would have done with live events, beside what the live release did."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from circuit_script.cli.app_database import do
from circuit_script.cli.deploy_watch import NOBODY, warm
from circuit_script.cli.environments import Environment, place, settings_in
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.places import InDatabase
from circuit_script.cli.shadow_shown import as_json as told
from circuit_script.cli.shadow_shown import show_found, show_report
from circuit_script.cli.verbs import group
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.jobs.outside import whoever
from circuit_script.releases import shadows
from circuit_script.releases.comparing import LARGEST
from circuit_script.releases.moving import Move
from circuit_script.releases.shadow_report import Found, ShadowReport, comparison_of, report_of
from circuit_script.releases.shadows import STOPPED, Shadow
from circuit_script.releases.store import release_of
from circuit_script.settings_spans import seconds_of

NAME = "shadow"
EXAMPLES = (
    "Examples:  circuit-script shadow  ·  circuit-script shadow show 019a6f2c-…  ·  circuit-script shadow promote  ·  "
    "circuit-script deploy --shadow --for 1h"
)
NONE = "No release was compared yet: circuit-script deploy --shadow"
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
By = Annotated[str | None, typer.Option(help="Who does it; your login where nothing is said.")]

app = group(NAME, "Show what a candidate would have done with live events, and take it live or end that.", EXAMPLES)


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EXAMPLES)
def shadow(
    context: typer.Context,
    folder: Folder = None,
    env: Environment = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The first so many differences.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how many records the candidate did the same with, and the first that differ, field by field."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_in(load_settings(app_folder(folder)), env)

    async def look(connection: Connection) -> ShadowReport | None:
        found = await shadows.current(connection) or await shadows.latest(connection)
        return None if found is None else await report_of(connection, found, limit)

    report = do(settings, NAME, look)
    if as_json:
        print_json(None if report is None else told(report))
    elif report is None:
        console().print(NONE)
    else:
        show_report(console(), report)


@app.command(epilog="Example:  circuit-script shadow show 019a6f2c-1c1d-7000-8000-2b6f0a6b7c11")
def show(
    execution: Annotated[UUID, typer.Argument(help="As the report names it.")],
    folder: Folder = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show all that differs in one execution."""
    settings = settings_in(load_settings(app_folder(folder)), env)

    async def look(connection: Connection) -> tuple[Shadow, tuple[str, list[Found]] | None]:
        there = await _last(connection)
        return there, await comparison_of(connection, there, execution)

    there, found = do(settings, NAME, look)
    if found is None:
        cure = "It may not have been recorded, or not be compared yet: circuit-script shadow"
        raise ReleaseUnknown(f"{execution} was not compared with {there.name}.", cure=cure)
    state, differences = found
    if as_json:
        print_json({"execution": str(execution), "state": state, "differences": [asdict(each) for each in differences]})
        return
    out = console()
    if state == "taken":
        out.print("It is being compared.")
    elif not differences:
        out.print(f"{there.name} did the same as {there.against_name}.")
    show_found(out, there, differences, widest=LARGEST)
    out.print(f"what it did live: circuit-script trace {execution}", style="dim")


@app.command(epilog="Example:  circuit-script shadow stop")
def stop(folder: Folder = None, env: Environment = None, by: By = None, as_json: AsJson = False) -> None:
    """End the shadow. Nothing more is recorded; what was compared stays."""
    settings = settings_in(load_settings(app_folder(folder)), env)

    async def end(connection: Connection) -> Shadow:
        there = await _open(connection)
        await shadows.close(connection, there, f"{STOPPED} by {by or whoever()}")
        return there

    there = do(settings, NAME, end)
    if as_json:
        print_json({"release": there.name, "stopped": True})
    else:
        print(f"{there.name} is compared no more. {there.against_name} is live, as before.")


@app.command(epilog="Example:  circuit-script shadow promote --yes")
def promote(
    folder: Folder = None,
    env: Environment = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where records differ, or few were compared.")] = False,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take the candidate live, as `deploy` does, with its watch. Refused where too many records differ."""
    settings = settings_in(load_settings(app_folder(folder)), env)
    report = do(settings, NAME, _report)
    there = report.shadow
    if report.doubt and not anyway:
        raise ReleaseRefused(f"{report.doubt[0].upper()}{report.doubt[1:]}.", cure="If it is meant, add --anyway.")
    if not yes and not typer.confirm(f"Take {there.name} live in {place(env)}?", err=True):
        raise ReleaseRefused("Nobody said yes.", cure="Nothing was changed: the shadow goes on.")
    from circuit_script.cli.deploy_steps import Steps  # Rich takes its time

    async def prepared(connection: Connection) -> str:
        return await warm(InDatabase(connection), await release_of(connection, there.release), patience, step)

    patience = settings.deploy.warm_seconds
    with Steps(console(stderr=as_json)).step("warm") as step:
        step.detail = do(settings, NAME, prepared)
    span = None if step.detail == NOBODY else timedelta(seconds=seconds_of(settings.deploy.watch))
    reason = there.message or f"its shadow: {report.same:,} of {report.records:,} records the same"

    async def move(connection: Connection) -> Move:
        return await shadows.promote(connection, there, by=by or whoever(), reason=reason, watch=span)

    moved = do(settings, NAME, move)
    if as_json:
        print_json({"release": there.name, "before": there.against_name, "live": True, "at": moved.at})
        return
    watched = "" if moved.watch_until is None else f", watched until {moved.watch_until.astimezone():%H:%M}"
    there_too = f" --env {env}" if env else ""
    print(f"{there.name} is live{watched}. The way back: circuit-script rollback{there_too}")


async def _open(connection: Connection) -> Shadow:
    there = await shadows.current(connection)
    if there is None:
        raise ReleaseUnknown("No release is compared now.", cure="circuit-script deploy --shadow")
    return there


async def _last(connection: Connection) -> Shadow:
    there = await shadows.latest(connection)
    if there is None:
        raise ReleaseUnknown("No release was compared yet.", cure="circuit-script deploy --shadow")
    return there


async def _report(connection: Connection) -> ShadowReport:
    return await report_of(connection, await _open(connection))
