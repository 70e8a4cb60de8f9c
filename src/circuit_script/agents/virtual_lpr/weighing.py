"""One lead at one instant: its unrounded parts, what counts against it, and the three integers."""

from __future__ import annotations

from math import floor, fsum

import msgspec

from circuit_script.agents.virtual_lpr.facts import Facts
from circuit_script.agents.virtual_lpr.fit import fit_parts
from circuit_script.agents.virtual_lpr.intent import group_parts, losses
from circuit_script.agents.virtual_lpr.profile import CAPS, FIT, INTENT, TIMING, Profile
from circuit_script.agents.virtual_lpr.signals import Signals, gates_set
from circuit_script.agents.virtual_lpr.timing import timing_parts


class Basis(msgspec.Struct, frozen=True, gc=False):
    """All that a score was made of. ``now`` in microseconds since 1970."""

    facts: Facts
    signals: Signals
    now: int
    profile: Profile


class Weighed(msgspec.Struct, frozen=True, gc=False):
    """``parts`` in the order of PARTS; ``losses`` and ``axes`` in the order FIT, INTENT, TIMING."""

    parts: tuple[float, ...]
    losses: tuple[float, float, float]
    axes: tuple[int, int, int]


def weigh(basis: Basis) -> Weighed:
    facts, signals, now, profile = basis.facts, basis.signals, basis.now, basis.profile
    fit = fit_parts(facts, profile)
    groups = group_parts(signals, now, profile)
    timing = timing_parts(facts, signals, now, profile)
    against = losses_at(basis, now)
    axes = (shown(fit, against[0], FIT), shown(groups, against[1], INTENT), shown(timing, against[2], TIMING))
    return Weighed(fit + groups + timing, against, axes)


def shown(parts: tuple[float, ...], against: float, axis: int) -> int:
    """Sum of parts less what counts against them, within 0 and the cap, rounded half up."""
    return half_up(min(max(fsum(parts) - against, 0.0), float(CAPS[axis])))


def half_up(value: float) -> int:
    whole = floor(value)
    return whole + 1 if value - whole >= 0.5 else whole  # value + 0.5 would round 0.49999999999999994 to 1


def losses_at(basis: Basis, now: int) -> tuple[float, float, float]:
    """What signals say against the lead, and what the record itself shows where no signal of that type does."""
    found = losses(basis.signals, now)
    if not basis.facts.against:
        return found
    told = {row[2].name for row in basis.signals.against if row[0] <= now}
    kinds = basis.profile.kinds
    extra = fsum(kinds[name].points for name in basis.facts.against if name not in told)
    return found[0] + extra, found[1], found[2]


def axis_at(basis: Basis, axis: int, now: int) -> int:
    """One axis of the same lead at another instant, by the very arithmetic of ``weigh``."""
    facts, signals, profile = basis.facts, basis.signals, basis.profile
    parts: tuple[float, ...]
    if axis == INTENT:
        parts = group_parts(signals, now, profile)
    elif axis == TIMING:
        parts = timing_parts(facts, signals, now, profile)
    else:
        parts = fit_parts(facts, profile)
    return shown(parts, losses_at(basis, now)[axis], axis)


def gates_at(basis: Basis, now: int) -> dict[str, str]:
    """The closed gates and who or what closed them: the record's own, then those of signals."""
    closed = dict(basis.facts.gates)
    if basis.signals.gates:
        closed = gates_set(basis.signals, now, basis.profile) | closed
    return closed
