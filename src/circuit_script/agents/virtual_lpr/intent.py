"""INTENT: what the lead does. Signals decay by half-lives; repeats of one type count less and less."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import msgspec

from circuit_script.agents.virtual_lpr.profile import Kind, Profile
from circuit_script.agents.virtual_lpr.signals import Signals, signal_id

Three = tuple[float, float, float]
Four = tuple[float, float, float, float]
NOTHING: Four = (0.0, 0.0, 0.0, 0.0)


class Tally(msgspec.Struct, frozen=True, gc=False):
    """What the signals are worth at one instant.

    ``faded`` and ``against`` hold the points of each signal that is in force by then, in the order of the columns of
    Signals; ``types`` holds what all signals of one type are worth together.
    """

    faded: Sequence[float] = ()
    types: Sequence[tuple[Kind, float]] = ()
    groups: Four = NOTHING
    against: Sequence[float] = ()
    losses: Three = (0.0, 0.0, 0.0)


def tally(signals: Signals, now: int, profile: Profile) -> Tally:
    """Points of the four groups, each capped, and what counts against each axis.

    Sums are correctly rounded (fsum) or of sorted values, so the order of signals cannot show.
    """
    faded: list[float] = []
    by_type: dict[str, list[float]] = {}
    for at, weight, kind in zip(signals.ats, signals.weights, signals.kinds, strict=True):
        if at > now:
            break
        points = weight * 0.5 ** ((now - at) / kind.fades)
        faded.append(points)
        name = kind.name
        if name in by_type:
            by_type[name].append(points)
        else:
            by_type[name] = [points]
    kinds = profile.kinds
    types = [(kinds[name], values[0] if len(values) == 1 else repeated(values)) for name, values in by_type.items()]
    sums: tuple[list[float], ...] = ([], [], [], [])
    for kind, points in types:
        sums[kind.group].append(points)
    return Tally(faded, types, _capped(sums, profile.caps), *losses(signals, now))


def _capped(sums: tuple[list[float], ...], caps: tuple[float, ...]) -> Four:
    return (
        min(fsum(sums[0]), caps[6]),
        min(fsum(sums[1]), caps[7]),
        min(fsum(sums[2]), caps[8]),
        min(fsum(sums[3]), caps[9]),
    )


def repeated(values: list[float]) -> float:
    """What several signals of one type are worth together: the largest counts in full, the second half, the third a
    quarter, from the fourth on nothing."""
    if len(values) == 2:
        one, other = values
        return one + 0.5 * other if one >= other else other + 0.5 * one
    largest = sorted(values, reverse=True)
    return largest[0] + 0.5 * largest[1] + 0.25 * largest[2]


def losses(signals: Signals, now: int) -> tuple[list[float], Three]:
    """What counts against the lead, each in full and faded by its half-life; and the sums of the three axes."""
    faded: list[float] = []
    if not signals.against:
        return faded, (0.0, 0.0, 0.0)
    sums: tuple[list[float], ...] = ([], [], [])
    for at, weight, kind, _ in signals.against:
        if at > now:
            break
        points = weight * 0.5 ** ((now - at) / kind.fades)
        faded.append(points)
        sums[kind.axis].append(points)
    return faded, (fsum(sums[0]), fsum(sums[1]), fsum(sums[2]))


def strongest(signals: Signals, faded: Sequence[float]) -> dict[int, int]:
    """Of each group that has any, the place of the signal that counts most before the group's cap."""
    best: dict[int, int] = {}
    for place, (points, kind) in enumerate(zip(faded, signals.kinds, strict=False)):
        known = best.get(kind.group)
        if known is None or points > faded[known] or (points == faded[known] and _goes_before(signals, place, known)):
            best[kind.group] = place
    return best


def _goes_before(signals: Signals, one: int, other: int) -> bool:
    """Of equal points the newest goes first, then by name; the id settles the rest, so that order never shows."""
    return _rank(signals, one) < _rank(signals, other)


def _rank(signals: Signals, place: int) -> tuple[int, str, str]:
    return -signals.ats[place], signals.kinds[place].name, signal_id(signals.raws[place])
