"""``circuit-script jobs``: which jobs wait or run, when schedules fire, and running one now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import psycopg
import typer
from rich.console import Console

from circuit_script.cli.app_database import looking
from circuit_script.cli.enqueue import Arguments, AsJson, By, Tenant, arguments_of, commit, must_be_there, tell
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import unavailable
from circuit_script.execution.authoring.jobs import ALL
from circuit_script.execution.timing import duration_shown
from circuit_script.jobs.look import WAITS, Look, Scheduled, Waiting, look
from circuit_script.jobs.outside import Asked, whoever
from circuit_script.tenants import DEFAULT

NAME = "jobs"
EXAMPLES = (
    "Examples:  circuit-script jobs  ·  circuit-script jobs list --json  ·  circuit-script jobs run nightly_report"
)
SHOWN = 20  # jobs; --json has more
WIDEST = 80  # letters of one reason
FEW = 3  # tenants that are shown by their names

app = group(NAME, "Show which jobs wait or run and when schedules fire, and run one now.", EXAMPLES)
app.info.no_args_is_help = False
app.info.invoke_without_command = True

Whose = Annotated[str | None, typer.Option(help="Of this tenant only.")]


@app.callback()
def jobs(context: typer.Context, folder: Folder = None, tenant: Whose = None, as_json: AsJson = False) -> None:
    """Show which jobs wait or run and when schedules fire, and run one now."""
    if context.invoked_subcommand is None:
        _list(load_settings(app_folder(folder)), tenant, as_json)


@app.command("list", epilog="Example:  circuit-script jobs list --tenant acme --json")
def list_(folder: Folder = None, tenant: Whose = None, as_json: AsJson = False) -> None:
    """Show which jobs wait or run, and when schedules fire: the same as without a word."""
    _list(load_settings(app_folder(folder)), tenant, as_json)


@app.command("run", epilog="Example:  circuit-script jobs run nightly_report --arg day=2026-11-20")
def run_(
    name: Annotated[str, typer.Argument(help="The name of a @scheduled or @queueable function.")],
    arg: Arguments = None,
    tenant: Tenant = DEFAULT,
    by: By = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Run a job now, besides its schedule."""
    settings = load_settings(app_folder(folder))
    must_be_there(tenant, settings)
    asked = Asked(name, {}, tenant=tenant, by=by or whoever(), said=arguments_of(arg or ()))
    tell(name, asyncio.run(commit(settings, asked)), as_json)


def _list(settings: Settings, tenant: str | None, as_json: bool) -> None:
    found = asyncio.run(_look(settings, tenant))
    if as_json:
        print_json(asdict(found))
    else:
        _show(console(), found)


async def _look(settings: Settings, tenant: str | None) -> Look:
    try:
        async with looking(settings, NAME) as connection:
            return await look(connection, tenant)
    except psycopg.Error as error:
        raise unavailable(error) from error


def _show(out: Console, found: Look) -> None:
    if found.schedules:
        rows = table("schedule", "for", "fires", "next", "last", "")
        out.print(add_rows(rows, map(_schedule, found.schedules)))
    else:
        out.print('There are no schedules: put @scheduled(every="5m") above a function.', markup=False)
    if found.jobs:
        out.print()
        rows = table("job", "tenant", "state", "attempt", "id", "", right=("attempt",))
        out.print(add_rows(rows, map(_job, found.jobs[:SHOWN])))
        if found.number > SHOWN:
            out.print(f"… and {found.number - SHOWN:,} more", style="dim")
    else:
        out.print("No job waits or runs.")


def _schedule(each: Scheduled) -> tuple[str, ...]:
    said = [f"jitter {duration_shown(each.jitter)}"] if each.jitter else []
    said += [f"{each.skipped:,} missed and left out"] if each.skipped else []
    said += [each.reason[:WIDEST]] if each.reason else []
    following = "never again" if each.next_at is None else _until(each.next_at)
    return each.name, _whom(each), each.fires, following, _last(each), ", ".join(said)


def _whom(each: Scheduled) -> str:
    """For whom it fires: a few by their names."""
    if each.tenants == ALL:
        return f"all {each.fires_for:,}"
    names = (
        each.tenants if len(each.tenants) <= FEW else (*each.tenants[: FEW - 1], f"{len(each.tenants) - FEW + 1} more")
    )
    gone = len(each.tenants) - each.fires_for
    return ", ".join(names) + (f" ({gone:,} of them gone)" if gone > 0 else "")


def _last(each: Scheduled) -> str:
    """When it fired last, and how that ended, for how many where not for all alike."""
    if each.last_at is None:
        return "never"
    shown = {end: "waits or runs" if end == WAITS else end for end in each.ended}
    ends = [shown[end] if len(shown) == 1 else f"{number:,} {shown[end]}" for end, number in each.ended.items()]
    return " ".join((_moment(each.last_at), ", ".join(ends))).strip()


def _job(each: Waiting) -> tuple[str, ...]:
    return each.name, each.tenant, _state(each), str(each.attempts + 1), each.id, ", ".join(_more(each))


def _state(each: Waiting) -> str:
    if each.due is not None and each.due > datetime.now(UTC):
        return f"{'again' if each.attempts else 'delayed'}, {_until(each.due)}"
    return "runs or is next"


def _more(each: Waiting) -> Iterator[str]:
    if each.unique:
        yield f"key {each.unique}"
    if each.reason:
        yield each.reason[:WIDEST]


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _until(moment: datetime) -> str:
    seconds = max(0, int((moment - datetime.now(UTC)).total_seconds()))
    near = duration_shown(seconds) if seconds < 120 else duration_shown(seconds // 60 * 60)
    return f"{_moment(moment)} (in {near})"
