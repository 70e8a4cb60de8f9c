"""The budgets of ``circuit-script spend``: their ceilings, what is left, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console

from circuit_script.cli.app_import import import_in_child
from circuit_script.cli.output import add_rows, table
from circuit_script.config import Settings
from circuit_script.errors import CircuitError
from circuit_script.events.status import Waiting
from circuit_script.governor.money import dollars, nanos
from circuit_script.governor.spending import Account
from circuit_script.wiring.models import tenant_money


@dataclass(frozen=True, slots=True)
class Budgeted:
    """A budget that has been used in its period. Amounts in nano-dollars; ``whose`` is a tenant or a handler, empty for
    that of all tenants."""

    scope: str
    whose: str
    ceiling: int
    spent: int
    reserved: int
    left: int
    resets_at: datetime


async def handlers_budgets(settings: Settings) -> Mapping[str, int | None]:
    """What each handler may spend in a day, in nano-dollars. Empty where the app cannot be loaded: what was spent is
    told all the same."""
    try:
        found = (await import_in_child(settings)).handlers
    except CircuitError:
        return {}
    return {each.name: None if each.budget is None else nanos(each.budget) for each in found}


def held(used: Sequence[Account], settings: Settings, handlers: Mapping[str, int | None]) -> list[Budgeted]:
    """The budgets that bound what was used. Raises ConfigError for a tenant of a tier that there is not."""
    return list(_held(used, settings, handlers))


def _held(used: Sequence[Account], settings: Settings, handlers: Mapping[str, int | None]) -> Iterator[Budgeted]:
    money = tenant_money(settings)
    for each in used:
        match each.scope:
            case "day":
                ceiling = None if settings.budget.day is None else nanos(settings.budget.day)
            case "tenant day":
                ceiling = money(each.tenant).day
            case "tenant month":
                ceiling = money(each.tenant).month
            case _:
                ceiling = handlers.get(each.handler)
        if ceiling is not None:
            left = max(0, ceiling - each.spent - each.reserved)
            whose = each.tenant or each.handler
            yield Budgeted(each.scope, whose, ceiling, each.spent, each.reserved, left, each.resets_at)


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
