"""Grade, band and route: what sales people read, and what is done next."""

from __future__ import annotations

from circuit_script.agents.virtual_lpr.profile import Bands, Grades

HOT, WARM, COLD, DISQUALIFIED, NONE = "hot", "warm", "cold", "disqualified", "none"
_ORDER = {COLD: 0, WARM: 1, HOT: 2}


def grade_of(axes: tuple[int, int, int], grades: Grades) -> str:
    """Letter by FIT, digit by INTENT + TIMING."""
    fit, moving = axes[0], axes[1] + axes[2]
    letter = "A" if fit >= grades.a else "B" if fit >= grades.b else "C"
    return letter + ("1" if moving >= grades.one else "2" if moving >= grades.two else "3")


def band_of(axes: tuple[int, int, int], bands: Bands) -> str:
    """The band of a lead that was in none before."""
    total = sum(axes)
    if total >= bands.hot and axes[0] >= bands.hot_fit and axes[1] >= bands.hot_intent:
        return HOT
    return WARM if total >= bands.warm else COLD


def settled_band(band: str, total: int, previous: str | None, bands: Bands) -> str:
    """The band after one step of hysteresis: who is in a band stays until ``slack`` points under its bound.

    Who leaves hot is measured by warm's lowered bound next, since hot lies above warm.
    """
    before = _ORDER.get(previous or "", 0)
    if band == DISQUALIFIED or before <= _ORDER[band]:
        return band
    if before == _ORDER[HOT] and total >= bands.hot - bands.slack:
        return HOT
    return WARM if band == WARM or total >= bands.warm - bands.slack else COLD


def route_of(band: str, fit: int, raised_ago: int | None, bands: Bands) -> str:
    """The band, but whoever has just asked us is answered now; nobody behind a gate is contacted."""
    if band == DISQUALIFIED:
        return NONE
    asked = raised_ago is not None and raised_ago <= bands.hand_raise
    return HOT if asked and fit >= bands.hand_raise_fit else band
