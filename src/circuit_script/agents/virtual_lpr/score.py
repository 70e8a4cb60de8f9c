"""The score of one lead, and the pure function that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from math import fsum
from typing import Any, NamedTuple

from circuit_script.agents.virtual_lpr.bands import (
    DISQUALIFIED,
    band_of,
    grade_of,
    route_of,
    settled_band,
)
from circuit_script.agents.virtual_lpr.facts import read_facts
from circuit_script.agents.virtual_lpr.fit import possible_gain, unknown_points
from circuit_script.agents.virtual_lpr.intent import tally
from circuit_script.agents.virtual_lpr.next_change import next_change
from circuit_script.agents.virtual_lpr.profile import AXES, CAPS, FIT, HAND_RAISES, PARTS, SECOND, Profile
from circuit_script.agents.virtual_lpr.reading import instant, moment
from circuit_script.agents.virtual_lpr.reasons import Reason, reasons
from circuit_script.agents.virtual_lpr.signals import latest, read_signals, signal_id
from circuit_script.agents.virtual_lpr.weighing import Basis, gates_at, shown, weigh


class Part(NamedTuple):
    """Unrounded points of one component, of its cap."""

    points: float
    cap: float


SignalUsed = tuple[float, str, float, str]  # seconds since 1970, type, points before they fade, id or empty


@dataclass(frozen=True, slots=True)
class LeadScore:
    """What a lead is worth now, and why.

    ``total`` is the sum of the three integers that are shown. ``p_win`` is None until enough outcomes are known.
    ``basis`` is what the score was made of; parts, reasons, the next change and what is unknown are worked out
    from it when they are asked for.
    """

    total: int
    fit: int
    intent: int
    timing: int
    grade: str
    band: str
    route: str
    gates: tuple[str, ...]
    p_win: float | None
    profile_version: str
    points: tuple[float, ...] = field(repr=False)
    losses: tuple[float, float, float] = field(repr=False)
    basis: Basis = field(repr=False, compare=False)

    @property
    def parts(self) -> dict[str, Part]:
        """The fourteen components by name, unrounded, each with its cap."""
        return {
            name: Part(points, cap)
            for name, points, cap in zip(PARTS, self.points, self.basis.profile.caps, strict=True)
        }

    @property
    def negative(self) -> dict[str, float]:
        """Points that count against the lead, per axis."""
        return dict(zip(AXES, self.losses, strict=True))

    @property
    def completeness(self) -> float:
        """The share of FIT's 40 points whose input is known, from 0 to 1."""
        return 1 - fsum(unknown_points(self.basis.facts, self.basis.profile)) / CAPS[FIT]

    @property
    def potential(self) -> int:
        """The total if everything in FIT that is unknown were at its best."""
        profile = self.basis.profile
        gain = fsum(possible_gain(self.points, unknown_points(self.basis.facts, profile), profile.caps))
        return shown((*self.points[:6], gain), self.losses[FIT], FIT) + self.intent + self.timing

    @property
    def gated_by(self) -> dict[str, str]:
        """Who or what closed each gate."""
        return gates_at(self.basis, self.basis.now)

    @property
    def signals_used(self) -> list[SignalUsed]:
        """What counted, for or against, oldest first."""
        signals, now = self.basis.signals, self.basis.now
        seen = zip(signals.ats, signals.weights, signals.kinds, signals.raws, strict=True)
        rows = chain(seen, signals.against)
        return sorted([(at / SECOND, kind.name, points, signal_id(raw)) for at, points, kind, raw in rows if at <= now])

    @property
    def scored_at(self) -> datetime:
        """The instant that the score is of."""
        return moment(self.basis.now)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """At most five, the weightiest first."""
        return reasons(self.basis, self.points)

    @property
    def next_change_at(self) -> datetime | None:
        """The first whole second at which the same input gives another integer or band; None if that is more
        than 365 days away."""
        found = next_change(self.basis, (self.fit, self.intent, self.timing))
        return None if found is None else moment(found * SECOND)


def calculate(
    lead: Mapping[str, Any],
    enriched: Mapping[str, Any] | None,
    signals: object,
    now: datetime | float,
    profile: Profile,
) -> LeadScore:
    """Score one lead. Pure: no clock, no I/O, no chance; the same input gives the same score, byte for byte.

    ``lead`` holds derived facts, or the fields of a CRM contact; ``signals`` is a list of
    ``{"type", "at", "confidence"}``, ``at`` in ISO 8601 or seconds since 1970. Signals dated after ``now`` do not
    count yet. What is not understood scores 0 and never raises; only a wrong ``now`` does (ValueError).
    """
    at = instant(now)
    if at is None:
        raise ValueError(f"now must be a datetime or seconds since 1970, not {now!r}")
    facts = read_facts(lead, enriched, profile)
    read = read_signals(signals, profile)
    basis = Basis(facts, read, tally(read, at, profile), at, profile)
    weighed = weigh(basis)
    fit, intent, timing = axes = weighed.axes
    gates = tuple(sorted(gates_at(basis, at))) if facts.gates or basis.signals.gates else ()
    band = DISQUALIFIED if gates else band_of(axes, profile.bands)
    return LeadScore(
        total=fit + intent + timing,
        fit=fit,
        intent=intent,
        timing=timing,
        grade=grade_of(axes, profile.grades),
        band=band,
        route=route_of(band, fit, _raised_ago(basis), profile.bands),
        gates=gates,
        p_win=None,
        profile_version=profile.label,
        points=weighed.parts,
        losses=weighed.losses,
        basis=basis,
    )


def settle(score: LeadScore, previous_band: str | None) -> LeadScore:
    """The score with the band (and its route) that it has, coming from ``previous_band``: it leaves a band
    downwards only some points under the bound, so that nothing flaps."""
    profile = score.basis.profile
    band = settled_band(score.band, score.total, previous_band, profile.bands)
    if band == score.band:
        return score
    return replace(score, band=band, route=route_of(band, score.fit, _raised_ago(score.basis), profile.bands))


def _raised_ago(basis: Basis) -> int | None:
    raised = latest(basis.signals, basis.now, HAND_RAISES)
    return None if raised is None else basis.now - raised
