"""What may be spent on models, as circuit.toml says it, beside what was spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from circuit_script.config import Settings, TierSettings
from circuit_script.governor.money import nanos
from circuit_script.governor.spending import Account
from circuit_script.llm.models import TenantMoney
from circuit_script.tenants import Tiers


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


def tenant_money(settings: Settings) -> Callable[[str], TenantMoney]:
    """What each tenant may spend. Raises ConfigError for a tenant of a tier that there is not."""
    budget = settings.budget
    whole = TenantMoney(day=None if budget.tenant_day is None else nanos(budget.tenant_day))
    tenants = {name: _of_tier(tier.allows, whole) for name, tier in Tiers.of_settings(settings).tenants.items()}
    return lambda tenant: tenants.get(tenant, whole)


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


def _of_tier(tier: TierSettings, otherwise: TenantMoney) -> TenantMoney:
    cost = tier.llm_cost
    return TenantMoney(
        day=otherwise.day if cost.day is None else nanos(cost.day),
        month=None if cost.month is None else nanos(cost.month),
        at_ceiling=tier.at_ceiling if "at_ceiling" in tier.model_fields_set else otherwise.at_ceiling,
    )
