"""``circuit-script spend``: what model calls have cost, and which ones nobody has settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.cli.selection import do
from circuit_script.cli.spend_budgets import handlers_budgets, show_budgets
from circuit_script.cli.verbs import group
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.events.status import Waiting, waiting
from circuit_script.governor.money import NANO, dollars, nanos
from circuit_script.governor.spending import (
    UNDER_WAY,
    Reconciled,
    Spent,
    Unsettled,
    accounts,
    reconcile,
    spent,
    unsettled,
)
from circuit_script.jobs.outside import whoever
from circuit_script.llm.budgets import Budgeted, held

NAME = "spend"
EXAMPLES = (
    "Examples:  circuit-script spend  ·  circuit-script spend --by tenant --days 30  ·  "
    "circuit-script spend settle 01a1fda6 --cost 0.01"
)
MOST = 50  # unsettled calls that are listed

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
T = TypeVar("T")

app = group(NAME, "Show what model calls have cost, and which ones are not settled.", EXAMPLES)


class By(StrEnum):
    """What the table has a line for."""

    day = "day"
    tenant = "tenant"
    trigger = "trigger"
    model = "model"


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EXAMPLES)
def spend(
    context: typer.Context,
    folder: Folder = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="Today and the days before, so many in all (UTC).")] = 7,
    by: Annotated[list[By] | None, typer.Option(help="A line for each: day, tenant, trigger, model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what model calls have cost, and which ones are not settled."""
    if context.invoked_subcommand is not None:
        return

    settings = load_settings(app_folder(folder))

    async def look(connection: Connection) -> tuple[list[Spent], list[Unsettled], list[Budgeted], list[Waiting]]:
        used = await accounts(connection)
        budgets = held(used, settings, await handlers_budgets(settings) if used else {})
        return await spent(connection, days), await unsettled(connection, MOST + 1), budgets, await waiting(connection)

    lines, open_calls, budgets, put_off = do(settings, NAME, look)
    if as_json:
        found: dict[str, Sequence[Any]] = {"spent": lines, "unsettled": open_calls[:MOST]}
        found |= {"budgets": budgets, "waiting": put_off}
        said = {name: [_as_json(each) for each in some] for name, some in found.items()}
        print_json({**said, "more_unsettled": len(open_calls) > MOST})
        return
    _show(lines, by or [By.day, By.tenant, By.trigger, By.model], days)
    show_budgets(console(), budgets, put_off)
    _show_waiting(open_calls[:MOST], more=len(open_calls) > MOST)


@app.command(epilog="Examples:  circuit-script spend settle 01a1fda6 --cost 0.01  ·  … settle 01a1fda6 --worst")
def settle(
    which: Annotated[str, typer.Argument(help="The call's id, or how it begins.")],
    cost: Annotated[str | None, typer.Option(help="What it cost, in US dollars (the provider's bill says).")] = None,
    worst: Annotated[bool, typer.Option("--worst", help="It cost what it could cost at worst.")] = False,
    by: Annotated[str | None, typer.Option(help="Who says so; your login where nothing is said.")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also one that may be under way, is settled already, or cost more than its worst."
        ),
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Settle a call whose cost nobody knows, or correct one. Who said so, and when, is kept, and what it was before."""
    if (cost is None) != worst:
        raise typer.BadParameter("give either --cost 0.01 or --worst")
    amount = None if cost is None else _amount(cost)
    who = by or whoever()
    settings = load_settings(app_folder(folder))
    done = do(settings, NAME, lambda connection: reconcile(connection, which, amount, who, force=force))
    if as_json:
        print_json(_as_json(done))
        return
    print(f"settled: {done.id} of {done.day} ({done.tenant}, {done.handler}, {done.model}) at {dollars(done.cost)}, "
          f"of at most {dollars(done.worst)}, by {done.by}{_before(done)}")  # fmt: skip


def _before(done: Reconciled) -> str:
    if done.was != "settled" or done.was_cost is None:
        return ""
    return (
        f"; before it was {dollars(done.was_cost)}, by {done.was_by or 'the platform'} at {done.was_at:%Y-%m-%d %H:%M}"
    )


def _amount(cost: str) -> int:
    try:
        said = Decimal(cost.removeprefix("$"))
        if not 0 <= said <= 1_000_000:
            raise InvalidOperation
    except InvalidOperation:
        raise typer.BadParameter(f"{cost!r} is no amount of dollars") from None
    return nanos(said)


def _show(lines: Sequence[Spent], by: Sequence[By], days: int) -> None:
    out = console()
    if not lines:
        out.print(f"No model was called in the last {days} days.")
        return
    numbers = ("calls", "tokens in", "tokens out", "cost", "unknown", "reserved")
    shown = table(*by, *numbers, right=numbers)
    add_rows(shown, _grouped(lines, by))
    out.print(shown)
    total = sum(line.settled for line in lines)
    most = sum(line.unknown + line.reserved for line in lines)
    said = f"{dollars(total)} in {days} days" + (f", and at most {dollars(most)} that is not settled" if most else "")
    out.print(f"{said}  ·  days are UTC", style="dim")


def _grouped(lines: Iterable[Spent], by: Sequence[By]) -> list[tuple[str, ...]]:
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * 6)
    for line in lines:
        names = {By.day: str(line.day), By.tenant: line.tenant, By.trigger: line.handler, By.model: line.model}
        counted = sums[tuple(names[each] for each in by)]
        found = (line.calls, line.tokens_in, line.tokens_out, line.settled, line.unknown, line.reserved)
        for place, value in enumerate(found):
            counted[place] += value
    return [
        (*key, f"{calls:,}", f"{read:,}", f"{made:,}", dollars(cost), *(dollars(each) if each else "" for each in rest))
        for key, (calls, read, made, cost, *rest) in sums.items()
    ]


def _show_waiting(waiting: Sequence[Unsettled], *, more: bool) -> None:
    if not waiting:
        return
    shown = table("call", "at (UTC)", "tenant", "trigger", "model", "at worst", "why", right=("at worst",))
    for call in waiting:
        at = f"{call.at:%Y-%m-%d %H:%M:%S}"
        row = (call.id, at, call.tenant, call.handler, call.model, dollars(call.worst), _why(call))
        add_rows(shown, [row])
    out = console()
    out.print("\nNot settled: each counts at its worst case. circuit-script spend settle CALL --cost 0.01, or --worst")
    out.print(shown)
    if more:
        out.print(f"… these are the latest {MOST}, and there are more: settle some, and look again", style="dim")


def _why(call: Unsettled) -> str:
    if call.status == "unknown":
        return call.reason
    return "under way" if call.age < UNDER_WAY else "its worker ended in the middle of it"


def _as_json(line: Any) -> dict[str, Any]:
    """Amounts in dollars, exact: as text."""
    money = ("settled", "unknown", "reserved", "worst", "cost", "was_cost", "ceiling", "spent", "left")
    return {
        name: f"{Decimal(value) / NANO:f}" if name in money and value is not None else value
        for name, value in asdict(line).items()
    }
