"""CircuitGovernor: how much an execution may have of each limit, whoever asks.

A handler says what it needs; what it does not say is the app's (``[limits]``), and what that does not say is the
default. Above stand the ceilings: ``[ceilings]`` for every tenant, ``[tiers.X.ceilings]`` for the tenants of a tier.
What is declared over a ceiling is cut to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar

from circuit_script.config import Settings
from circuit_script.governor.cycles import REPEATS
from circuit_script.governor.limits import Limits, amount, checked
from circuit_script.tenants import Tiers

EVERYBODY = "[ceilings]"
DEFAULTS = Limits()
MOST_BOUND = 10_000  # handlers that are kept as they are bound


class Declared(Protocol):
    """A handler as its app declares it: a dataclass."""

    @property
    def limits(self) -> Limits: ...


Spec = TypeVar("Spec", bound=Declared)


@dataclass(frozen=True, slots=True)
class Cut:
    """A limit that a handler has not as it, or its app, declares it. ``by`` is the table of circuit.toml that bounds
    it, ``tier`` the tier whose tenants it concerns, None for every tenant."""

    handler: str
    limit: str
    declared: float
    ceiling: float
    by: str
    tier: str | None = None

    def __str__(self) -> str:
        whose = f"tenants of tier {self.tier} get" if self.tier is not None else "it gets"
        return (
            f"{self.handler} declares {self.limit} {amount(self.limit, self.declared)}, {whose} "
            f"{amount(self.limit, self.ceiling)} ({self.by})."
        )


@dataclass(slots=True)
class CircuitGovernor:
    """The limits of executions, as circuit.toml says them now. ``ceilings`` bound every tenant, ``tiers`` those of a
    tier by its name; ``tier_of`` tells a tenant's tier, None when it has none. ``repeats`` is how often an execution
    may make the same call and learn nothing by it; ``said`` are the limits that ``[limits]`` names."""

    ceilings: Mapping[str, float] = field(default_factory=dict)
    tiers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tier_of: Callable[[str], str | None] = lambda tenant: None
    repeats: int = REPEATS
    said: frozenset[str] = frozenset()
    _known: dict[tuple[Limits, str | None], Limits] = field(default_factory=dict, init=False, repr=False)
    _bound: dict[tuple[int, str | None], tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_settings(cls, settings: Settings) -> CircuitGovernor:
        """The governor of an app. Raises ConfigError for a limit that there is not, or a tier."""
        tiers = Tiers.of_settings(settings)
        of_tiers = {
            name: checked(tier.allows.ceilings, f"[tiers.{name}.ceilings]")
            for name, tier in tiers.known.items()
            if tier.allows.ceilings
        }

        def tier_of(tenant: str) -> str | None:
            tier = tiers.of(tenant)
            return None if tier is None else tier.name

        everybodys, said = checked(settings.ceilings, EVERYBODY), frozenset(settings.limits)
        return cls(everybodys, of_tiers, tier_of, settings.governor.repeats, said)

    def follow(self, other: CircuitGovernor) -> None:
        """Have the ceilings and the tiers of another; what runs goes on with what it has."""
        self.ceilings, self.tiers, self.tier_of = other.ceilings, other.tiers, other.tier_of
        self._known.clear()
        self._bound.clear()

    def limits(self, declared: Limits, tenant: str) -> Limits:
        """What an execution of this tenant may have of what its handler declares."""
        if not (self.ceilings or self.tiers):
            return declared
        tier = self.tier_of(tenant) if self.tiers else None
        found = self._known.get((declared, tier))
        if found is None:
            found = self._known[declared, tier] = self._cut(declared, tier)
        return found

    def bound(self, spec: Spec, tenant: str) -> Spec:
        """A handler with the limits that its executions have for this tenant."""
        if not (self.ceilings or self.tiers):
            return spec
        key = id(spec), self.tier_of(tenant) if self.tiers else None  # to hash all of it costs ten times as much
        declared, bound = self._bound.get(key, (None, None))
        if declared is not spec:
            limits = self.limits(spec.limits, tenant)
            bound = spec if limits is spec.limits else replace(spec, limits=limits)  # type: ignore[type-var]  # dataclass
            if len(self._bound) >= MOST_BOUND:  # of releases that are gone
                self._bound.clear()
            self._bound[key] = spec, bound
        found: Spec = bound
        return found

    def cuts(self, handlers: Iterable[tuple[str, Limits]]) -> Iterator[Cut]:
        """What is declared, by name and limits, and not had; defaults that a ceiling lowers are not declared. A handler
        that says what the default says cannot be told from one that says nothing; ``[limits]`` can."""
        tables: list[tuple[str | None, str, Mapping[str, float]]] = [(None, EVERYBODY, self.ceilings)]
        tables += [(tier, f"[tiers.{tier}.ceilings]", ceilings) for tier, ceilings in self.tiers.items()]
        for name, limits in handlers:
            for tier, by, ceilings in tables:
                for limit, ceiling in ceilings.items():
                    declared = getattr(limits, limit)
                    if tier is not None and self.ceilings.get(limit, ceiling + 1) <= ceiling:
                        continue  # everybody has as little
                    if declared > ceiling and (limit in self.said or declared != getattr(DEFAULTS, limit)):
                        yield Cut(name, limit, declared, ceiling, by, tier)

    def _cut(self, declared: Limits, tier: str | None) -> Limits:
        """The same object where nothing is over a ceiling."""
        lower: dict[str, float] = {}
        for each in fields(declared):
            wanted = getattr(declared, each.name)
            bounds = [
                table[each.name] for table in (self.ceilings, self.tiers.get(tier or "", {})) if each.name in table
            ]
            if bounds and min(bounds) < wanted:
                lower[each.name] = min(bounds)
        return declared.lowered(**lower) if lower else declared
