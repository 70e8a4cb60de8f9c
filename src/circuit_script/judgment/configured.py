"""From the settings of an app to its policy."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_script.judgment.policy import OFF, PRESETS, Allowed, Policy, Thresholds
from circuit_script.settings_judgment import JudgmentSettings, PlaceSettings


def policy_of(settings: JudgmentSettings) -> Policy | None:
    """The policy of an app; None where nothing is judged."""
    if settings.off:
        return None
    usual = _thresholds(settings, PRESETS["balanced"])

    def placed(places: Mapping[str, PlaceSettings]) -> Mapping[str, Thresholds]:
        return {name: _thresholds(each, usual) for name, each in places.items()}

    return Policy(
        usual,
        tenants=placed(settings.tenants),
        fields=placed(settings.fields),
        sources=placed(settings.sources),
        allow=tuple(
            Allowed(each.reason, each.digest, each.pattern, each.tenant, each.field) for each in settings.allow
        ),
        canary=settings.canary,
    )


def _thresholds(place: PlaceSettings, usual: Thresholds) -> Thresholds:
    """What is given, upon the preset, or upon what holds everywhere where a place names none. What is not given makes
    room: a milder threshold is never above a graver one that is, nor a graver one below a milder one."""
    if place.preset == "off":
        return OFF
    base = usual if place.preset is None else PRESETS[place.preset]
    own = place.own
    if base == OFF:  # somebody wants a place judged where nothing else is
        base = PRESETS["monitor"]
    least = own.get("neutralize", 0.0)
    block = own.get("block", max(base.block, own.get("quarantine", 0.0), least))
    quarantine = own.get("quarantine", max(min(base.quarantine, block), least))
    return Thresholds(own.get("neutralize", min(base.neutralize, quarantine)), quarantine, block)
