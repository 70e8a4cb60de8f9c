"""What becomes of a text by its score: thresholds by tenant, source and field, and rules that let known texts pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from circuit_script.judgment.verdict import Action

NEVER = 2.0  # no score reaches it


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which score on a text is fenced as data, set aside for a person, and refused."""

    neutralize: float
    quarantine: float
    block: float = NEVER

    def action(self, score: float) -> Action:
        if score >= self.block:
            return Action.BLOCK
        if score >= self.quarantine:
            return Action.QUARANTINE
        return Action.NEUTRALIZE if score >= self.neutralize else Action.ALLOW


# Of harmless texts two in a hundred reach 0.65, one in two hundred 0.88, one in a thousand 0.99; of long ones more
# (`make bench-judgment`).
PRESETS: Mapping[str, Thresholds] = MappingProxyType(
    {
        "strict": Thresholds(0.65, 0.88, 0.99),
        "balanced": Thresholds(0.88, 0.99),
        "monitor": Thresholds(NEVER, NEVER),
    }
)
OFF = Thresholds(3.0, 3.0, 3.0)  # nothing is judged here, and nothing told


@dataclass(frozen=True, slots=True)
class Allowed:
    """Lets a text pass: one with this ``digest`` (`digest_of`), or what only the rule ``pattern`` finds. ``reason`` is
    said each time it does; ``tenant`` and ``field`` are where it holds, None for everywhere."""

    reason: str
    digest: str | None = None
    pattern: str | None = None
    tenant: str | None = None
    field: str | None = None

    def holds(self, tenant: str | None, field_: str | None) -> bool:
        return self.tenant in (None, tenant) and self.field in (None, field_)


@dataclass(frozen=True, slots=True)
class Policy:
    """``usual`` holds where nothing closer does. ``fields`` are by "Object.field" or "field", ``sources`` by the name
    of a source; of several that fit a text the tenant's comes first, then the field's, then the source's. With
    a ``canary`` system prompts get a mark, by which an answer that tells them is known."""

    usual: Thresholds = PRESETS["balanced"]
    tenants: Mapping[str, Thresholds] = field(default_factory=dict)
    fields: Mapping[str, Thresholds] = field(default_factory=dict)
    sources: Mapping[str, Thresholds] = field(default_factory=dict)
    allow: Sequence[Allowed] = ()
    canary: bool = False

    def thresholds(self, tenant: str | None, source: str | None, field_: str | None) -> Thresholds:
        if tenant is not None and (found := self.tenants.get(tenant)) is not None:
            return found
        if field_ is not None:
            for name in (field_, field_.rpartition(".")[2]):
                if (found := self.fields.get(name)) is not None:
                    return found
        return self.sources.get(source or "", self.usual)


def digest_of(text: str) -> str:
    """By which a text is known without being kept."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
