"""``circuit-script doubt``: effects of which nobody knows whether the vendor did them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from circuit_script.cli.dead import AsJson, By, Record, Tenant, Yes, do
from circuit_script.cli.dead_shown import facts, indented, show_answers, show_attempts, show_lines
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table, visible
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.connectors.connector import InDoubt, Operation
from circuit_script.connectors.registry import make_registry, make_vendors
from circuit_script.db.pool import Connection
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import Decision, Doubt, Known, doubts, find_doubt, known_of, settle_doubt
from circuit_script.jobs.outside import whoever

NAME = "doubt"
EXAMPLES = (
    "Examples:  circuit-script doubt list  ·  circuit-script doubt show 01a1fda6  ·  "
    'circuit-script doubt settle 01a1fda6 --done --reason "it is in their list of charges"'
)
RULES = {
    InDoubt.REPEAT: "it may be sent again: the vendor knows its key, or to do it twice does no harm",
    InDoubt.LOOK_UP: "the connector can look it up at the vendor",
    InDoubt.ASK_A_PERSON: "a person has to look at the vendor's: sent again, it may be done twice",
    None: "no connector of this app has such an operation any more",
}

MOST = 100_000  # that are settled at once
FEW = 20  # that are told one by one

OfConnector = Annotated[str | None, typer.Option(help="Of this connector.")]
Which = Annotated[str, typer.Argument(help="The effect's id or how it begins, or the number of its letter.")]

app = group(NAME, "Show effects of which nobody knows whether the vendor did them, and settle them.", EXAMPLES)


@app.command("list", epilog="Examples:  circuit-script doubt list  ·  … doubt list --tenant acme --json")
def list_(
    folder: Folder = None,
    tenant: Tenant = None,
    record: Record = None,
    connector: OfConnector = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the effects in doubt, the newest first."""

    async def look(connection: Connection) -> list[Doubt]:
        return await doubts(connection, limit + 1, tenant=tenant, record=record, connector=connector)

    found = do(load_settings(app_folder(folder)), look)
    if as_json:
        print_json([asdict(each) for each in found[:limit]])
    elif not found:
        console().print("No effect is in doubt.")
    else:
        _show_list(console(), found[:limit], more=len(found) > limit)


@app.command(epilog="Example:  circuit-script doubt show 01a1fda6")
def show(which: Which, folder: Folder = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show what is known of one: payload, target, attempts, the vendor's last answer, and who could tell."""
    settings = load_settings(app_folder(folder))

    async def look(connection: Connection) -> tuple[Known, Operation | None]:
        found = await find_doubt(connection, which, tenant)
        return await known_of(connection, found, tenant), await _operation(settings, found)

    known, operation = do(settings, look)
    rule = operation.in_doubt if operation else None
    if as_json:
        print_json({**asdict(known), "rule": rule})
        return
    _show(console(), known, rule)


@app.command(
    epilog='Examples:  circuit-script doubt settle 01a1fda6 --done --reason "the message is in their log"  ·  '
    '… doubt settle --connector sms --discard --reason "too late for them"'
)
def settle(
    which: Annotated[
        list[str] | None, typer.Argument(help="Effects' ids or how they begin, or the numbers of their letters.")
    ] = None,
    done: Annotated[bool, typer.Option("--done", help="The vendor did it.")] = False,
    repeat: Annotated[bool, typer.Option("--repeat", help="The vendor did not: send it (again).")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Leave it, done or not.")] = False,
    vendor_id: Annotated[
        str | None, typer.Option(help="With --done: the id of what the vendor made, for effects that refer to it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="How you know. It is kept.")] = "",
    folder: Folder = None,
    tenant: Tenant = None,
    record: Record = None,
    connector: OfConnector = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are in doubt.")] = False,
    by: By = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Settle some, once you have looked at the vendor's: by their ids, or all that a filter finds.

    Who, when and how you know is kept.
    """
    said = [decision for decision, wanted in zip(Decision, (done, repeat, discard), strict=True) if wanted]
    if len(said) != 1:
        raise typer.BadParameter("give one of --done, --repeat and --discard")
    if any(each is not None and not each.strip() for each in (tenant, record, connector, vendor_id, *(which or ()))):
        raise typer.BadParameter("a filter or an id is empty")
    filtered = any((record, connector, everything)) or (not which and tenant is not None)
    if bool(which) == filtered:
        raise typer.BadParameter("say which effects to settle: their ids, or a filter, or --all")
    if vendor_id is not None and not (done and which and len(which) == 1):
        raise typer.BadParameter("it goes with --done, for one effect", param_hint="--vendor-id")
    (decision,) = said
    who, why = by or whoever(), reason.strip()
    settings = load_settings(app_folder(folder))

    async def look(connection: Connection) -> tuple[list[Doubt], list[str]]:
        if which:
            found = [await find_doubt(connection, each, tenant) for each in which]
        else:
            found = await doubts(connection, MOST, tenant=tenant, record=record, connector=connector)
            found.reverse()  # the oldest first
        several = list({each.id: each for each in found}.values())
        return several, await _twice(settings, several) if decision is Decision.repeat else []

    found, twice = do(settings, look)
    if twice or (found and not which):
        _ask(found, decision, twice, yes=yes)
    settled: list[dict[str, Any]] = []

    async def settle_them(connection: Connection) -> None:
        for each in found:
            about = {"effect": each.id, "decision": decision, "by": who, "reason": why}
            try:
                await settle_doubt(connection, each, decision, who, why, vendor_id=vendor_id)
                settled.append({**about, "done": True, "said": ""})
            except LetterRefused as refused:
                if len(found) == 1:
                    raise
                settled.append({**about, "done": False, "said": refused.detail})

    try:
        do(settings, settle_them)
    except BaseException:
        if settled:  # they were before it broke off
            _tell(settled, as_json=as_json)
        raise
    _tell(settled, as_json=as_json)
    if any(not each["done"] for each in settled):
        raise typer.Exit(1)


def _tell(settled: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(settled)
        return
    words = {Decision.done: "delivered", Decision.repeat: "on its way again", Decision.discard: "left as it is"}
    for each in settled[:FEW]:
        became = (
            f"is {words[each['decision']]}, by {each['by']}" if each["done"] else f"was not settled: {each['said']}"
        )
        print(f"settled: effect {each['effect']} {became}" if each["done"] else f"effect {each['effect']} {became}")
    if len(settled) != 1:
        count = sum(1 for each in settled if each["done"])
        print(f"{count:,} settled" if settled else "no effect in doubt fits")


def _ask(found: Sequence[Doubt], decision: Decision, twice: Sequence[str], *, yes: bool) -> None:
    """Warn of what may be done twice; and ask, of many and of such."""
    for what in twice:
        console(stderr=True).print(
            f"[yellow]![/] {escape(visible(what))} takes no idempotency key: "
            "if the vendor has done it, it will be done twice."
        )
    if yes:
        return
    words = {Decision.done: "as done", Decision.repeat: "by sending again", Decision.discard: "by leaving as it is"}
    what = f"what {found[0].id} is" if len(found) == 1 else f"{len(found):,} effects in doubt"
    question = f"Settle {what} {words[decision]}?"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody is there to ask: say --yes")
    typer.confirm(question, abort=True, err=True)


async def _twice(settings: Settings, found: Sequence[Doubt]) -> list[str]:
    """The operations of these that may be done twice."""
    several = {(each.connector, each.operation): each for each in found}
    operations = {key: await _operation(settings, each) for key, each in several.items()}
    return [
        f"{connector} {operation}"
        for (connector, operation), declared in operations.items()
        if declared is None or declared.in_doubt is not InDoubt.REPEAT
    ]


async def _operation(settings: Settings, found: Doubt) -> Operation | None:
    """What its connector promises of the operation."""
    async with httpx.AsyncClient() as client:
        registry = make_registry(settings.addresses, client, *make_vendors(settings, client))
        connector = registry.get(found.connector)
    return connector.operations.get(found.operation) if connector else None


def _show_list(out: Console, found: list[Doubt], *, more: bool) -> None:
    rows = (
        (
            each.id,
            f"{each.at.astimezone():%m-%d %H:%M:%S}" if each.at else "",
            each.tenant,
            f"{each.connector} {each.operation} to {each.target}",
            each.record or "",
            each.reason or "",
        )
        for each in found
    )
    shown = table("effect", "since", "tenant", "what", "record", "last heard")
    shown.columns[0].no_wrap = True  # to be copied
    out.print(add_rows(shown, rows))
    if more:
        out.print("… and more: --limit shows them", style="dim")
    out.print(f"all of one: circuit-script doubt show {found[0].id}", style="dim")


def _show(out: Console, known: Known, rule: InDoubt | None) -> None:
    doubt = known.doubt
    out.print(Text.assemble((f"Effect {doubt.id}", "bold"), "  ", ("in doubt", "yellow")))
    out.print(facts(_about(doubt, rule)))
    out.print()
    out.print(Text("Payload, as it left", "bold"))
    out.print(indented(doubt.payload))
    show_answers(out, known.answers)
    show_attempts(out, "The execution that asked for it", known.attempts)
    show_lines(out, known.lines)
    out.print()
    start = f"circuit-script doubt settle {doubt.id}"
    out.print(f"look at the vendor's, and then: {start} --done, --repeat or --discard", style="dim", soft_wrap=True)


def _about(doubt: Doubt, rule: InDoubt | None) -> Iterable[tuple[str, str]]:
    yield "what", f"{doubt.connector} {doubt.operation} to {doubt.target}"
    yield "record", f"{doubt.record or 'of none'}, tenant {doubt.tenant}"
    yield "trigger", doubt.handler or "no longer known"
    yield "since", f"{doubt.at.astimezone():%Y-%m-%d %H:%M:%S}" if doubt.at else "nobody knows"
    yield "attempts", f"{doubt.attempts:,}"
    yield "last heard", doubt.reason or "nothing"
    yield "idempotency key", str(doubt.id)
    yield "by its rule", RULES[rule]
