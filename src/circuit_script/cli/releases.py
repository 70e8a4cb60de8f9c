"""``circuit-script releases``: which there are, which one is live, and how each did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from circuit_script.cli.environments import Environment
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.logs import moment
from circuit_script.cli.output import add_rows, console, day, print_json, table, visible
from circuit_script.cli.places import Insecure, To, reach_of
from circuit_script.cli.verbs import group
from circuit_script.config import load_settings
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import Move
from circuit_script.releases.store import ReleaseRow

NAME = "releases"
EXAMPLES = (
    "Examples:  circuit-script releases  ·  circuit-script releases --env production --since 7d  ·  "
    "circuit-script releases show v1.4.2  ·  circuit-script releases --to https://ops.example.com"
)
WIDEST = 60  # letters of a message

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]

app = group(NAME, "Show which releases there are, which one is live, and how each did.", EXAMPLES)


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EXAMPLES)
def releases(
    context: typer.Context,
    folder: Folder = None,
    env: Environment = None,
    to: To = None,
    insecure: Insecure = False,
    since: Annotated[str, typer.Option(help="Count executions that began in the last 2h, 1d, 7d.")] = "1d",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The latest so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the latest releases: which one is live, and how many executions and errors each had lately."""
    if context.invoked_subcommand is not None:
        return
    _, reach = reach_of(load_settings(app_folder(folder)), NAME, env, to, insecure)
    begin = moment(since, datetime.now(UTC))
    listed = reach.ask(lambda place: place.listed(limit, begin))
    found, counts, history = listed.releases, listed.counts, listed.moves
    if as_json:
        rows = [_as_json(each, counts.get(each.id, Counts())) for each in found]
        print_json({"since": begin, "releases": rows, "moves": [asdict(each) for each in history]})
        return
    if not found:
        console().print("Nothing was deployed yet: circuit-script deploy")
        return
    columns = ("release", "", "made", "by", "executions", "errors", "message")
    shown = table(*columns, right=("executions", "errors"))
    console().print(add_rows(shown, [_row(each, counts.get(each.id, Counts())) for each in found]))
    console().print(f"executions and errors: since {day(begin)}  ·  circuit-script releases show NAME", style="dim")


@app.command(epilog="Example:  circuit-script releases show v1.4.2")
def show(
    which: Annotated[str, typer.Argument(metavar="RELEASE", help="Its version, number, or how its hash begins.")],
    folder: Folder = None,
    env: Environment = None,
    to: To = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Show one release: what its tests said, which workers have it ready, and when it went live and why."""
    _, reach = reach_of(load_settings(app_folder(folder)), NAME, env, to, insecure)
    shown = reach.ask(lambda place: place.shown(which))
    found, history, hosts, counts = shown.release, shown.moves, shown.hosts, shown.counts
    if as_json:
        more = {"report": found.report, "requirements": found.requirements.splitlines()}
        print_json({**_as_json(found, counts), **more, "moves": [asdict(each) for each in history],
                    "hosts": [asdict(each) for each in hosts]})  # fmt: skip
        return
    out = console()
    out.print(add_rows(table("what", "is"), _facts(found, counts)))
    _show(out, "tests", ("step", "seconds", "said"), _steps(found.report))
    _show(out, "moves", ("at", "what", "from", "to", "by", "why"), [_moved(each) for each in history])
    states = [(each.host, str(each.worker)[:8], each.state, visible(each.detail)) for each in hosts]
    _show(out, "workers", ("host", "worker", "state", "said"), states)


def _show(out: Any, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        out.print()
        out.print(add_rows(table(*columns, title=title, right=("seconds",)), rows))


def _facts(found: ReleaseRow, counts: Counts) -> list[tuple[str, str]]:
    needs = found.requirements.split("\n")[:-1] if found.requirements else []
    return [
        ("release", f"{found.name} (number {found.id}){', live' if found.live else ''}"),
        ("hash", found.digest),
        ("made", f"{day(found.created)} by {visible(found.author) or 'nobody: it ran from its folder'}"),
        ("message", visible(found.message)),
        ("platform", found.platform),
        ("handlers", str(found.handlers)),
        ("requirements", ", ".join(needs) or "none besides the platform's"),
        ("executions", f"{counts.executions:,}, {counts.errors:,} with errors"),
    ]


def _steps(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    steps = (report.get("deploy") or {}).get("steps") or ()
    return [(each["step"], f"{each['seconds']:.1f}", visible(each["detail"])) for each in steps]


def _moved(move: Move) -> tuple[str, ...]:
    before = "" if move.before is None else move.before_version or str(move.before)
    watched = f"; watched: {move.watched}" if move.watched else ""
    what = f"{move.kind}{watched}"
    return day(move.at), what, before, move.version or str(move.release), visible(move.by), visible(move.reason)


def _row(each: ReleaseRow, counts: Counts) -> tuple[str, ...]:
    message = visible(each.message)
    short = message if len(message) <= WIDEST else f"{message[: WIDEST - 1]}…"
    errors = f"{counts.errors:,}" + (f" ({counts.share:.1%})" if counts.errors else "")
    live = "live" if each.live else ""
    author = visible(each.author) or "from its folder"
    return each.name, live, _age(each.created), author, f"{counts.executions:,}", errors, short


def _age(moment: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now"


def _as_json(each: ReleaseRow, counts: Counts) -> dict[str, Any]:
    known = {"release": each.name, "id": each.id, "version": each.version, "digest": each.digest, "live": each.live}
    made = {"created": each.created, "author": each.author, "message": each.message, "platform": each.platform}
    return {**known, **made, "handlers": each.handlers, "executions": counts.executions, "errors": counts.errors}
