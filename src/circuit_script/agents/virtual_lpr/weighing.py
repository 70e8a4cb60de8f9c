"""One lead at one instant: its unrounded parts, what counts against it, and the three integers."""

from __future__ import annotations

from math import floor, fsum

import msgspec

from circuit_script.agents.virtual_lpr.facts import Facts
from circuit_script.agents.virtual_lpr.fit import fit_parts
from circuit_script.agents.virtual_lpr.intent import Tally, Three, losses, tally
from circuit_script.agents.virtual_lpr.profile import CAPS, FIT, INTENT, TIMING, Profile
from circuit_script.agents.virtual_lpr.signals import Signals, gates_set
from circuit_script.agents.virtual_lpr.timing import timing_parts


class Basis(msgspec.Struct, frozen=True, gc=False):
    """All that a score was made of. ``now`` in microseconds since 1970; ``tally`` is of that instant."""

    facts: Facts
    signals: Signals
    tally: Tally
    now: int
    profile: Profile


class Weighed(msgspec.Struct, frozen=True, gc=False):
    """``parts`` in the order of PARTS; ``losses`` and ``axes`` in the order FIT, INTENT, TIMING."""

    parts: tuple[float, ...]
    losses: Three
    axes: tuple[int, int, int]


def weigh(basis: Basis) -> Weighed:
    facts, now, profile = basis.facts, basis.now, basis.profile
    fit = fit_parts(facts, profile)
    groups = basis.tally.groups
    timing = timing_parts(facts, basis.signals, now, profile)
    against = _with_record(basis, basis.tally.losses, now)
    axes = (shown(fit, against[0], FIT), shown(groups, against[1], INTENT), shown(timing, against[2], TIMING))
    return Weighed(fit + groups + timing, against, axes)


def shown(parts: tuple[float, ...], against: float, axis: int) -> int:
    """Sum of parts less what counts against them, within 0 and the cap, rounded half up."""
    value = fsum(parts) - against
    if value <= 0:
        return 0
    return half_up(value) if value < CAPS[axis] else CAPS[axis]


def half_up(value: float) -> int:
    whole = floor(value)
    return whole + 1 if value - whole >= 0.5 else whole  # value + 0.5 would round 0.49999999999999994 to 1


def _with_record(basis: Basis, found: Three, now: int) -> Three:
    """What signals say against the lead, and what the record itself shows where no signal of that type does."""
    if not basis.facts.against:
        return found
    told = {row[2].name for row in basis.signals.against if row[0] <= now}
    kinds = basis.profile.kinds
    extra = fsum(kinds[name].points for name in basis.facts.against if name not in told)
    return found[0] + extra, found[1], found[2]


def axis_at(basis: Basis, axis: int, now: int) -> int:
    """One axis of the same lead at another instant, by the very arithmetic of ``weigh``."""
    facts, signals, profile = basis.facts, basis.signals, basis.profile
    if axis == INTENT:
        counted = tally(signals, now, profile)
        return shown(counted.groups, counted.losses[INTENT], INTENT)
    parts = timing_parts(facts, signals, now, profile) if axis == TIMING else fit_parts(facts, profile)
    _, against = losses(signals, now)
    return shown(parts, _with_record(basis, against, now)[axis], axis)


def gates_at(basis: Basis, now: int) -> dict[str, str]:
    """The closed gates and who or what closed them: the record's own, then those of signals."""
    closed = dict(basis.facts.gates)
    if basis.signals.gates:
        closed = gates_set(basis.signals, now, basis.profile) | closed
    return closed
