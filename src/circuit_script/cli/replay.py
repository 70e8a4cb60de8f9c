"""``circuit-script replay``: past events through the app again, one or many, dry or for real."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.completion import complete_handler
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.logs import moment
from circuit_script.cli.output import add_rows, console, print_json, table, visible
from circuit_script.cli.replay_attached import follow
from circuit_script.cli.selection import do
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import ReplayRefused
from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import Choice, Counted, Filter, State, live_routes, recorded_routes
from circuit_script.events.replay.replays import RATE, Replay
from circuit_script.jobs.outside import whoever
from circuit_script.releases.archive import check_kept
from circuit_script.tenants.accounts import TenantMap

NAME = "replay"
EXAMPLES = (
    "Examples:  circuit-script replay --trigger ContactTrigger --since 2h --dry-run  ·  "
    "circuit-script replay --status failed --since 1d  ·  circuit-script replay --status unrouted --since 7d --yes  ·  "
    "circuit-script replay --record c1 --release 3  ·  circuit-script replay list"
)
SHOWN = 40  # lines of what would be taken
NOBODY = "No worker runs now: it begins as soon as one does."

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Which = Annotated[str, typer.Argument(help="The replay's id, or how it begins.")]
T = TypeVar("T")

app = group(NAME, "Run past events again: one, or many by a filter; dry, or for real.", EXAMPLES)


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EXAMPLES)
def replay(
    context: typer.Context,
    folder: Folder = None,
    execution: Annotated[UUID | None, typer.Option(help="What this execution handled.")] = None,
    record: Annotated[str | None, typer.Option(help="Of this record.")] = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="For this handler: its name, the end of it, or its class.", autocompletion=complete_handler),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")] = None,
    source: Annotated[str | None, typer.Option(help="From this source, like gohighlevel.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Arrived in the last 2h, 30m, 1d, or since 2026-05-01T08:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Arrived before then, said likewise.")] = None,
    text: Annotated[str | None, typer.Option(help="With this text in the delivery's body.")] = None,
    status: Annotated[State | None, typer.Option(help="What became of it the last time.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=2**63 - 1, help="The first so many to arrive.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and send nothing; show what would be done.")
    ] = False,
    release: Annotated[
        int | None, typer.Option(min=1, max=2**63 - 1, help="Through this recorded release, not the live one.")
    ] = None,
    rate: Annotated[int, typer.Option(min=1, max=5000, help="Items a second at most.")] = RATE,
    by: Annotated[str | None, typer.Option(help="Who replays; your login where nothing is said.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run past events again. All conditions must hold. Live traffic goes first; Ctrl-C leaves the replay running."""
    if context.invoked_subcommand is not None:
        return
    now = datetime.now(UTC)
    wanted = Filter(
        execution=execution,
        record=record,
        trigger=trigger,
        tenant=tenant,
        source=source,
        since=_moment(since, now, "--since"),
        until=_moment(until, now, "--until"),
        text=text or None,
        status=status,
        limit=limit,
    )
    if not wanted.bounds:
        cure = "Say which: --since 2h, --trigger NAME, --status failed, --record ID, …"
        raise ReplayRefused("Nothing says which events.", cure=cure)
    if wanted.status is State.unrouted and wanted.since is None and not (wanted.record or wanted.execution):
        raise ReplayRefused(
            "With --status unrouted the whole ledger would be taken for each trigger that is new.",
            cure="Say since when: --since 2h, --since 7d; or name a record: --record ID.",
        )
    settings = load_settings(app_folder(folder))
    if dry_run:
        from circuit_script.cli.replay_dry import show_dry

        raise typer.Exit(show_dry(settings, wanted, release, as_json))
    asked = _Asked(wanted, release, by or whoever(), rate, yes, detach)
    _for_real(settings, asked, as_json)


def _moment(said: str | None, now: datetime, option: str) -> datetime | None:
    """Raises BadParameter, of this option."""
    try:
        return None if said is None else moment(said, now)
    except typer.BadParameter as error:
        error.param_hint = option
        raise


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be replayed for real, and how."""

    wanted: Filter
    release: int | None
    by: str
    rate: int
    yes: bool
    detach: bool


def _for_real(settings: Settings, asked: _Asked, as_json: bool) -> None:
    choice, counted, differs = do(settings, NAME, lambda connection: _count(connection, asked, settings))
    taken = sum(line.items for line in counted if line.left_out is None)
    if not as_json:
        _show_counted(counted)
        for each in differs:
            print(each)
    if not taken:
        if as_json:
            print_json({"replay": None, "counted": [asdict(line) for line in counted]})
        return
    if not asked.yes and not _agreed(taken):
        raise typer.Exit(1)
    begun = do(settings, NAME, lambda connection: _begin(connection, settings, choice, asked))
    if as_json:
        print_json({"replay": _as_json(begun), "counted": [asdict(line) for line in counted]})
        return
    through = "" if asked.release is None else f" through release {asked.release}"
    print(f"replay {begun.id}: {_items(begun.chosen)}{through}, at most {asked.rate} a second")
    attached = not asked.detach and console(stderr=True).is_terminal
    _tell_end(settings, begun, do(settings, NAME, lambda connection: follow(connection, begun)) if attached else None)


def _tell_end(settings: Settings, known: Replay, ended: Replay | None, as_json: bool = False) -> None:
    """How it ended, unless it goes on. Raises Exit where that is not as it should."""
    stands = ended or known
    if not stands.is_over and not as_json:
        print(f"It goes on by itself: circuit-script replay follow {str(known.id)[:13]}")
        return
    _show_one(stands, do(settings, NAME, lambda connection: replays.became(connection, known.id)), as_json)
    if stands.is_over and stands.status != "done":
        raise typer.Exit(1)


def _agreed(taken: int) -> bool:
    if not sys.stdin.isatty():
        raise ReplayRefused(
            f"{_items(taken)} would be replayed for real.", cure="Add --yes, or --dry-run to look first."
        )
    return typer.confirm(f"Replay {_items(taken)} for real?")


async def _count(
    connection: Connection, asked: _Asked, settings: Settings
) -> tuple[Choice, list[Counted], Sequence[str]]:
    """What it would take, and how its release differs from the live one."""
    routes = await live_routes(connection)
    differs: Sequence[str] = ()
    if asked.release is not None:
        await check_kept(connection, asked.release)
        live, routes = routes, await recorded_routes(connection, asked.release)
        differs = _differences(asked.release, {each.name for each in routes}, {each.name for each in live})
    choice = Choice(asked.wanted, routes, TenantMap(settings.accounts))
    return choice, await choice.count(connection), differs


def _differences(release: int, recorded: Set[str], live: Set[str]) -> tuple[str, ...]:
    """What is to be known of the triggers that only one of the two has."""
    gone, new = ", ".join(sorted(recorded - live)), ", ".join(sorted(live - recorded))
    return (
        *([f"The live release has no {gone} any more: release {release} runs it."] if gone else []),
        *([f"Release {release} has no {new} yet: nothing is replayed for it."] if new else []),
    )


async def _begin(writing: Connection, settings: Settings, choice: Choice, asked: _Asked) -> Replay:
    async with looking(settings, NAME) as reading:
        begun = await replays.begin(reading, writing, choice, by=asked.by, rate=asked.rate, release=asked.release)
    if not await replays.has_workers(writing):
        console(stderr=True).print(NOBODY)
    return begun


def _show_counted(counted: Sequence[Counted]) -> None:
    out = console()
    taken = [line for line in counted if line.left_out is None]
    total = sum(line.items for line in taken)
    if not taken:
        out.print("No event fits that could be replayed.")
    else:
        shown = table("day (UTC)", "trigger", "items", right=("items",))
        out.print(add_rows(shown, [(line.day, line.handler, f"{line.items:,}") for line in taken[:SHOWN]]))
        if len(taken) > SHOWN:
            out.print(f"… and {len(taken) - SHOWN} more lines: --json shows all", style="dim")
        out.print(_items(total))
    left: dict[str, int] = {}
    for line in counted:
        if line.left_out is not None:
            left[line.left_out] = left.get(line.left_out, 0) + line.items
    for why, items in left.items():
        out.print(f"left out: {items:,}, as {why}", style="dim")


@app.command("list", epilog="Example:  circuit-script replay list")
def list_(
    folder: Folder = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the replays, the newest first."""
    found = do(load_settings(app_folder(folder)), NAME, lambda connection: replays.latest(connection, limit))
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    shown = table("replay", "began (UTC)", "by", "status", "settled", "of", "what", right=("settled", "of"))
    rows = [
        (
            each.id,
            f"{each.at:%Y-%m-%d %H:%M}",
            visible(each.by),
            each.status,
            f"{each.settled:,}",
            f"{each.chosen:,}",
            _what(each),
        )
        for each in found
    ]
    console().print(add_rows(shown, rows) if rows else "Nothing was replayed yet.")


@app.command(epilog="Example:  circuit-script replay show 019a1fda")
def show(which: Which, folder: Folder = None, as_json: AsJson = False) -> None:
    """Show one replay: how far it is, and what became of its items."""

    async def look(connection: Connection) -> tuple[Replay, dict[str, int]]:
        found = await replays.find(connection, which)
        return found, await replays.became(connection, found.id)

    found, became = do(load_settings(app_folder(folder)), NAME, look)
    _show_one(found, became, as_json)


@app.command("follow", epilog="Example:  circuit-script replay follow 019a1fda")
def follow_(which: Which, folder: Folder = None, as_json: AsJson = False) -> None:
    """Wait until a replay is over, with a bar in a terminal. Ctrl-C leaves it running; unless it ends as done, the exit
    code is 1."""
    settings = load_settings(app_folder(folder))
    found = do(settings, NAME, lambda connection: replays.find(connection, which))
    ended = do(settings, NAME, lambda connection: follow(connection, found))
    _tell_end(settings, found, ended, as_json)


@app.command(epilog="Example:  circuit-script replay pause 019a1fda")
def pause(which: Which, folder: Folder = None, as_json: AsJson = False) -> None:
    """Put nothing more of it back. What stands in the queue of it is handled."""
    _change(folder, lambda connection: replays.pause(connection, which), as_json)


@app.command(epilog="Example:  circuit-script replay resume 019a1fda")
def resume(which: Which, folder: Folder = None, as_json: AsJson = False) -> None:
    """Go on with a replay that is paused, where it stood."""
    _change(folder, lambda connection: replays.resume(connection, which), as_json)


@app.command(epilog="Example:  circuit-script replay cancel 019a1fda --yes")
def cancel(
    which: Which,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a replay for good, and take off the queue what waits of it. What was handled stays as it is."""
    if not yes:
        if not sys.stdin.isatty():
            raise ReplayRefused("A replay that is cancelled cannot be resumed.", cure="Add --yes.")
        typer.confirm(f"Cancel replay {which} for good?", abort=True)
    _change(folder, lambda connection: replays.cancel(connection, which), as_json)


def _change(folder: Any, what: Callable[[Connection], Awaitable[Replay]], as_json: bool) -> None:
    found = do(load_settings(app_folder(folder)), NAME, what)
    if as_json:
        print_json(_as_json(found))
    else:
        print(f"{found.status}: {found.id}, {found.settled:,} of {found.chosen:,} items settled")


def _show_one(found: Replay, became: dict[str, int], as_json: bool = False) -> None:
    if as_json:
        print_json({**_as_json(found), "became": became})
        return
    out = console()
    ended = "" if found.ended_at is None else f", ended {found.ended_at:%Y-%m-%d %H:%M:%S}"
    out.print(f"replay {found.id} {found.status}")
    out.print(
        f"by {visible(found.by)}, began {found.at:%Y-%m-%d %H:%M:%S}{ended} (UTC)  ·  {_what(found)}",
        style="dim",
        markup=False,
        soft_wrap=True,
    )
    if found.reason is not None:
        out.print(found.reason, style="red", markup=False, soft_wrap=True)
    rows = [(state, f"{items:,}") for state, items in became.items()]
    if rows:
        out.print(add_rows(table("items", "", right=("",)), rows))


def _what(found: Replay) -> str:
    through = {} if found.release is None else {"release": found.release}
    return visible(", ".join(f"{name}={value}" for name, value in {**found.filter, **through}.items()))


def _items(number: int) -> str:
    return f"{number:,} item" if number == 1 else f"{number:,} items"


def _as_json(found: Replay) -> dict[str, Any]:
    return {**asdict(found), "settled": found.settled}
