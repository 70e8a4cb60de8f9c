"""``circuit-script dead``: events and effects that used up their attempts, and what to do about them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import psycopg
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuit_script.cli.app_database import looking
from circuit_script.cli.completion import complete_handler
from circuit_script.cli.dead_edit import changed, edited_by_hand, with_settings
from circuit_script.cli.dead_shown import show_letters, show_story, tell_fates
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.letter_number import Number, Numbers, OfLetters
from circuit_script.cli.logs import moment
from circuit_script.cli.output import console, print_json
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection, unavailable
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import (
    CHUNK,
    Cause,
    Fate,
    Letter,
    Wanted,
    causes,
    chosen,
    discard,
    doubts,
    find_letter,
    letters,
    must_have_place,
    payload_of,
    retry,
    send_edited,
    story_of,
)
from circuit_script.jobs.outside import whoever

NAME = "dead"
EXAMPLES = (
    "Examples:  circuit-script dead list  ·  circuit-script dead show 12  ·  circuit-script dead retry 12  ·  "
    "circuit-script dead retry --trigger score --since 2h  ·  circuit-script dead edit 12 --set email=ada@example.com"
)
SUMMARY = 15  # causes that are listed
DOUBTS = 1000  # effects in doubt are counted up to here

T = TypeVar("T")
Do = Callable[[Connection, Sequence[int]], Awaitable[list[Fate]]]


class Kind(StrEnum):
    """What a letter is about."""

    event = "event"
    effect = "effect"


class Status(StrEnum):
    """What became of it."""

    open = "open"
    retried = "retried"
    discarded = "discarded"
    all = "all"


AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Trigger = Annotated[
    str | None,
    typer.Option(help="Of this handler, or of all whose name ends so.", autocompletion=complete_handler),
]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")]
Record = Annotated[str | None, typer.Option(help="About this record.")]
Reason = Annotated[str | None, typer.Option(help="With this text in the reason, or of this cause.")]
OfKind = Annotated[Kind | None, typer.Option(help="About events, or about effects.")]
Since = Annotated[str | None, typer.Option(help="That died since: 2h, 30m, 1d, or a moment like 2026-05-01T08:00.")]
By = Annotated[str | None, typer.Option(help="Who does it; your login where nothing is said.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

app = group(NAME, "Show dead letters, edit and retry them, or discard them.", EXAMPLES)


@app.command("list", epilog="Examples:  circuit-script dead list --since 1d  ·  … dead list --status all --record c1")
def list_(
    folder: Folder = None,
    trigger: Trigger = None,
    tenant: Tenant = None,
    record: Record = None,
    reason: Reason = None,
    kind: OfKind = None,
    since: Since = None,
    status: Annotated[Status, typer.Option(help="What became of it.")] = Status.open,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show dead letters: counted by their cause, and then the newest."""
    wanted = _wanted(trigger, tenant, record, reason, kind, since, status)

    async def look(connection: Connection) -> tuple[list[Cause], list[Letter], int]:
        unsure = await doubts(connection, DOUBTS, tenant=tenant)
        return await causes(connection, wanted, SUMMARY), await letters(connection, wanted, limit), len(unsure)

    counted, found, unsure = do(load_settings(app_folder(folder)), look)
    if as_json:
        total = counted[0].of if counted else 0
        said = {name: [asdict(each) for each in some] for name, some in (("causes", counted), ("letters", found))}
        print_json({"total": total, **said, "in_doubt": unsure})
        return
    options = (("--trigger", trigger), ("--tenant", tenant), ("--record", record), ("--kind", kind), ("--since", since))
    show_letters(
        console(),
        counted,
        found,
        status=status.value,
        filtered=wanted != Wanted(wanted.status),
        doubts=unsure,
        narrowed=[each for name, value in options if value for each in (name, value)],
    )


@app.command(cls=OfLetters, epilog="Example:  circuit-script dead show 12")
def show(letter: Number, folder: Folder = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show all that is known of one: payload, every attempt with stack and limits, log lines, the vendor's answers."""

    async def look(connection: Connection) -> Any:
        return await story_of(connection, await find_letter(connection, letter, tenant), tenant)

    story = do(load_settings(app_folder(folder)), look)
    if as_json:
        print_json(asdict(story))
    else:
        show_story(console(), story)


@app.command(
    "retry",
    cls=OfLetters,
    epilog="Examples:  circuit-script dead retry 12 13  ·  … dead retry --trigger score --since 2h --yes",
)
def retry_(
    which: Numbers = None,
    folder: Folder = None,
    trigger: Trigger = None,
    tenant: Tenant = None,
    record: Record = None,
    reason: Reason = None,
    kind: OfKind = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are open.")] = False,
    by: By = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put letters on the road again, each once: by their numbers, or all that a filter finds."""
    who = by or whoever()
    wanted = _wanted(trigger, tenant, record, reason, kind, since, Status.open)

    async def again(connection: Connection, ids: Sequence[int]) -> list[Fate]:
        return await retry(connection, ids, who, tenant=tenant)

    _each(folder, which, wanted, everything, again, word="retry", yes=yes, as_json=as_json)


@app.command("discard", cls=OfLetters, epilog='Example:  circuit-script dead discard 12 --reason "a test contact"')
def discard_(
    why: Annotated[str, typer.Option("--reason", help="Why nobody will try it again. It is kept.")],
    which: Numbers = None,
    folder: Folder = None,
    trigger: Trigger = None,
    tenant: Tenant = None,
    record: Record = None,
    cause: Annotated[
        str | None, typer.Option("--died-of", help="With this text in the letter's reason, or of this cause.")
    ] = None,
    kind: OfKind = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are open.")] = False,
    by: By = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close letters that nobody will try again. Who, when and why is kept."""
    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    who = by or whoever()
    wanted = _wanted(trigger, tenant, record, cause, kind, since, Status.open)

    async def leave(connection: Connection, ids: Sequence[int]) -> list[Fate]:
        return await discard(connection, ids, who, why.strip(), tenant=tenant)

    _each(folder, which, wanted, everything, leave, word="discard", yes=yes, as_json=as_json)


@app.command(
    cls=OfLetters,
    epilog="Examples:  circuit-script dead edit 12  ·  circuit-script dead edit 12 --set email=ada@example.com",
)
def edit(
    letter: Number,
    folder: Folder = None,
    settings_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field's new value: JSON, or else text; a.b is b in a."),
    ] = None,
    from_file: Annotated[Path | None, typer.Option(help="The whole payload: a JSON object.", exists=True)] = None,
    tenant: Tenant = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Retry one with another payload: in $EDITOR, by --set, or from a file. What came stays as it came."""
    settings = load_settings(app_folder(folder))
    who = by or whoever()

    async def look(connection: Connection) -> tuple[Letter, Any]:
        found = await find_letter(connection, letter, tenant)
        return found, await payload_of(connection, found)

    found, payload = do(settings, look)
    if found.closed:
        raise LetterRefused(f"Letter {letter} was {found.closed}.", cure="What is closed is not sent again.")
    before = payload.editable or {"id": found.record}
    if from_file is not None or settings_:
        after = with_settings(before, from_file, settings_ or [])
    else:
        after = edited_by_hand(before, letter, payload.fault)
    must_have_place(found, before, after)
    if payload.fields is not None and after == payload.fields:
        raise LetterRefused("Nothing was changed.", cure=f"As it is: circuit-script dead retry {letter}")
    done = do(settings, lambda connection: send_edited(connection, letter, after, who, tenant=tenant))
    if as_json:
        print_json(asdict(done))
        return
    changed(console(), before, after)
    what = f"event {done.again} of the new delivery {done.delivery}" if done.delivery else f"effect {done.effect}"
    print(f"retried: letter {letter} as {what}, by {who}")


def _wanted(
    trigger: str | None,
    tenant: str | None,
    record: str | None,
    reason: str | None,
    kind: Kind | None,
    since: str | None,
    status: Status,
) -> Wanted:
    if any(said is not None and not said.strip() for said in (trigger, tenant, record, reason)):
        raise typer.BadParameter("a filter is empty")  # a variable that a script has not set finds everything
    return Wanted(
        status=None if status is Status.all else status.value,
        trigger=trigger,
        tenant=tenant,
        record=record,
        reason=reason,
        kind=kind.value if kind else None,
        since=None if since is None else moment(since, datetime.now(UTC)),
    )


def _each(
    folder: Path | None,
    which: Sequence[int] | None,
    wanted: Wanted,
    everything: bool,
    what: Do,
    *,
    word: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Do it with the letters that are named, or with all that the filter finds, a chunk in a transaction."""
    filtered = wanted != Wanted(tenant=wanted.tenant) or (not which and wanted.tenant is not None)
    if bool(which) == (filtered or everything):
        raise typer.BadParameter(f"say which letters to {word}: their numbers, or a filter, or --all")
    settings = load_settings(app_folder(folder))
    ids = list(dict.fromkeys(which or ()))
    if not ids:

        async def find(connection: Connection) -> tuple[list[int], list[Cause]]:
            return await chosen(connection, wanted), await causes(connection, wanted, SUMMARY)

        ids, counted = do(settings, find)
        if ids and not yes:
            _confirm(counted, len(ids), word)

    fates: list[Fate] = []
    try:
        do(settings, lambda connection: _in_chunks(connection, ids, what, word, fates))
    except BaseException:
        if fates:  # they were done before it broke off
            _tell(fates, as_json=as_json)
        raise
    _tell(fates, as_json=as_json)
    if any(fate.done == "refused" or fate.otherwise for fate in fates):
        raise typer.Exit(1)


def _tell(fates: Sequence[Fate], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(fate) for fate in fates])
    else:
        tell_fates(console(), fates)


async def _in_chunks(connection: Connection, ids: Sequence[int], what: Do, word: str, fates: list[Fate]) -> None:
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=len(ids) <= CHUNK or not sys.stderr.isatty()) as bar:
        task = bar.add_task(word, total=len(ids))
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            fates += await what(connection, chunk)
            bar.advance(task, len(chunk))


def _confirm(counted: Sequence[Cause], total: int, word: str) -> None:
    out = console(stderr=True)
    show_letters(out, counted, [], status="open", filtered=True)
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{word} {total:,} letters? Nobody is there to ask: say --yes")
    typer.confirm(f"{word} {total:,} dead letter{'s' if total > 1 else ''}?", abort=True, err=True)


def do(settings: Settings, what: Callable[[Connection], Awaitable[T]]) -> T:
    """Over a connection of its own; the driver's errors as ours."""

    async def run() -> T:
        async with looking(settings, NAME) as connection:
            return await what(connection)

    try:
        return asyncio.run(run())
    except psycopg.Error as error:
        raise unavailable(error) from error
