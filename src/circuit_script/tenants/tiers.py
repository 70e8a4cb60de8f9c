"""What a tenant may use in a day and in a month: two tiers are shipped, an app changes them and adds its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from circuit_script.config import Settings, TenantSettings, TierQuota, TierSettings
from circuit_script.errors import ConfigError

EXECUTIONS = "executions"
API_CALLS = "api_calls"
QUOTAS = (EXECUTIONS, API_CALLS)  # what is counted here; money is exact per call, and counted where it is spent
PERIODS = ("day", "month")

SHIPPED = {
    "free": TierSettings(executions=TierQuota(day=100), api_calls=TierQuota(day=1_000)),
    "paid": TierSettings(executions=TierQuota(day=10_000), api_calls=TierQuota(day=100_000)),
}


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier by its name, with what it allows."""

    name: str
    allows: TierSettings

    def ceilings(self, quota: str) -> tuple[int | None, int | None]:
        """The most of one quota in a day, and in a month; None is without a bound."""
        found: TierQuota = getattr(self.allows, quota)
        return found.day, found.month


class Tiers:
    """Which tier each tenant has. A tenant without one has no quota."""

    def __init__(self, tiers: Mapping[str, TierSettings], tenants: Mapping[str, TenantSettings]) -> None:
        """``tiers`` stand beside those that are shipped; of one with the name of a shipped one only what it says is
        changed. Raises ConfigError for a tenant of a tier that there is not."""
        known = {name: Tier(name, each) for name, each in SHIPPED.items()}
        known |= {name: Tier(name, _laid_over(SHIPPED.get(name), each)) for name, each in tiers.items()}
        self.known: Mapping[str, Tier] = known
        self._tiers = {
            tenant: _found(tenant, each.tier, known) for tenant, each in tenants.items() if each.tier is not None
        }

    @classmethod
    def of_settings(cls, settings: Settings) -> Tiers:
        """The tiers of ``circuit.toml``. Raises ConfigError for a tenant of a tier that there is not."""
        return cls(settings.tiers, settings.tenants)

    def of(self, tenant: str) -> Tier | None:
        """The tenant's tier; None when it has none."""
        return self._tiers.get(tenant)

    @property
    def tenants(self) -> Mapping[str, Tier]:
        """Every tenant that has a tier."""
        return self._tiers


def _laid_over(shipped: TierSettings | None, said: TierSettings) -> TierSettings:
    if shipped is None:
        return said
    return shipped.model_copy(update={name: getattr(said, name) for name in said.model_fields_set})


def _found(tenant: str, name: str, known: Mapping[str, Tier]) -> Tier:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    cure = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
    raise ConfigError(
        f"[tenants.{tenant}]: there is no tier {name!r}.",
        cure=f"{cure} Another one stands in circuit.toml: [tiers.{name}].",
        page="unknown-tier",
    )
