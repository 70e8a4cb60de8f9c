"""INTENT: what the lead does. Signals decay by half-lives; repeats of one type count less and less."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

from circuit_script.agents.virtual_lpr.profile import Profile
from circuit_script.agents.virtual_lpr.reading import written
from circuit_script.agents.virtual_lpr.signals import Seen, Signals

REPEATS = (1.0, 0.5, 0.25)  # of one type the largest counts in full; from the fourth on nothing
Four = tuple[float, float, float, float]
NOTHING: Four = (0.0, 0.0, 0.0, 0.0)


def group_parts(signals: Signals, now: int, profile: Profile) -> Four:
    """Points of the four groups, each capped, in the order of GROUPS.

    Sums are correctly rounded (fsum) or of sorted values, so the order of signals cannot show.
    """
    if not signals.ats:
        return NOTHING
    by_type: dict[str, list[float]] = {}
    for at, weight, kind in zip(signals.ats, signals.weights, signals.kinds, strict=True):
        if at > now:
            break
        points = weight * 0.5 ** ((now - at) / kind.half_life)  # type: ignore[operator]  # positives all fade
        name = kind.name
        if name in by_type:
            by_type[name].append(points)
        else:
            by_type[name] = [points]
    kinds = profile.kinds
    sums: tuple[list[float], ...] = ([], [], [], [])
    for name, values in by_type.items():
        sums[kinds[name].group].append(values[0] if len(values) == 1 else repeated(values))
    caps = profile.caps
    return (
        min(fsum(sums[0]), caps[6]),
        min(fsum(sums[1]), caps[7]),
        min(fsum(sums[2]), caps[8]),
        min(fsum(sums[3]), caps[9]),
    )


def repeated(values: list[float]) -> float:
    """What several signals of one type are worth together."""
    values.sort(reverse=True)
    points = values[0] + 0.5 * values[1]
    return points + 0.25 * values[2] if len(values) > 2 else points


def losses(signals: Signals, now: int) -> tuple[float, float, float]:
    """Points that count against each axis: each in full, faded by its half-life where it has one."""
    if not signals.against:
        return 0.0, 0.0, 0.0
    found: tuple[list[float], ...] = ([], [], [])
    for row in signals.against:
        if row[0] <= now:
            found[row[2].axis].append(faded(row, now))
    return fsum(found[0]), fsum(found[1]), fsum(found[2])


def faded(row: Seen, now: int) -> float:
    at, points, kind, _ = row
    return points if kind.half_life is None else points * 0.5 ** ((now - at) / kind.half_life)


def strongest(signals: Signals, now: int) -> dict[int, tuple[float, Seen]]:
    """Of each group that has any, the signal that counts most, with its points before the group's cap."""
    best: dict[int, tuple[float, Seen]] = {}
    for row in signals.seen:
        if row[0] > now:
            break
        group, points = row[2].group, faded(row, now)
        known = best.get(group)
        if known is None or points > known[0] or (points == known[0] and _rank(row) < _rank(known[1])):
            best[group] = points, row
    return best


def _rank(row: Seen) -> tuple[int, str, str]:
    """Of equal points the newest goes first, then by name; the id settles the rest, so that order never shows."""
    return -row[0], row[2].name, signal_id(row[3])


def signal_id(raw: object) -> str:
    """The id that a signal came with, or empty."""
    return written(raw.get("id")) if isinstance(raw, Mapping) else ""
