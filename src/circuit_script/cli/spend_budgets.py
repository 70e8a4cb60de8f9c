"""The budgets of ``circuit-script spend``: their ceilings, what is left, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from circuit_script.cli.app_import import import_in_child
from circuit_script.cli.output import add_rows, table
from circuit_script.config import Settings
from circuit_script.errors import CircuitError
from circuit_script.events.status import Waiting
from circuit_script.governor.money import dollars, nanos
from circuit_script.llm.budgets import Budgeted


async def handlers_budgets(settings: Settings) -> Mapping[str, int | None]:
    """What each handler may spend in a day, in nano-dollars. Empty where the app cannot be loaded: what was spent is
    told all the same."""
    try:
        found = (await import_in_child(settings)).handlers
    except CircuitError:
        return {}
    return {each.name: None if each.budget is None else nanos(each.budget) for each in found}


def show_budgets(out: Console, budgets: Sequence[Budgeted], waiting: Sequence[Waiting]) -> None:
    """What is left of each, and what waits for one of them or for a quota."""
    if budgets:
        numbers = ("may", "spent", "reserved", "left")
        shown = table("budget", "of", *numbers, "resets (UTC)", right=numbers)
        rows = (
            (
                each.scope,
                each.whose or "all tenants",
                *(dollars(value) for value in (each.ceiling, each.spent, each.reserved, each.left)),
                f"{each.resets_at:%Y-%m-%d %H:%M}",
            )
            for each in budgets
        )
        out.print()
        out.print(add_rows(shown, rows))
    if waiting:
        shown = table("records that wait", "of", "trigger", "until (UTC)", "for", right=("records that wait",))
        lines = ((f"{w.n:,}", w.tenant, w.handler, f"{w.first:%Y-%m-%d %H:%M}", w.reason) for w in waiting)
        out.print()
        out.print(add_rows(shown, lines))
