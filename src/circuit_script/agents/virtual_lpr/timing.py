"""TIMING: why now. Stairs over dates and the signals' instants; only "not now" decays smoothly."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from math import fsum

from circuit_script.agents.virtual_lpr.facts import Facts
from circuit_script.agents.virtual_lpr.profile import DAY, SERIOUS, Profile, at_least, at_most
from circuit_script.agents.virtual_lpr.reading import EPOCH, instant, moment
from circuit_script.agents.virtual_lpr.signals import Signals, latest

Four = tuple[float, float, float, float]


def timing_parts(facts: Facts, signals: Signals, now: int, profile: Profile) -> Four:
    """Points of the four components, in the order of TIMING_PARTS."""
    return (
        _timeline(facts, now, profile),
        _recency(signals, now, profile),
        _momentum(signals, now, profile),
        _trigger(facts, now, profile),
    )


def due_in_days(facts: Facts, now: int) -> float | None:
    """Days until the stated date. A date ripens; a ready-made number of days stands as it was given."""
    return (facts.due_at - now) / DAY if facts.due_at is not None else facts.due_in


def _timeline(facts: Facts, now: int, profile: Profile) -> float:
    days = due_in_days(facts, now)
    if days is None or days <= -profile.timing.lapse:
        return 0.0
    return at_most(profile.timing.timeline, days)


def _recency(signals: Signals, now: int, profile: Profile) -> float:
    last = latest(signals, now, SERIOUS)
    return at_most(profile.timing.recency, now - last) if last is not None else 0.0


def _momentum(signals: Signals, now: int, profile: Profile) -> float:
    """Undecayed points of the last week against a week's share of the three before (plus one)."""
    ats = signals.ats
    if not ats:
        return 0.0
    timing = profile.timing
    end = len(ats) if ats[-1] <= now else bisect_right(ats, now)
    split = bisect_left(ats, now - timing.recent)
    begin = bisect_left(ats, now - timing.earlier)
    recent = fsum(signals.weights[split:end])
    if recent <= 0:
        return 0.0
    weeks = (timing.earlier - timing.recent) / timing.recent
    ratio = recent / (fsum(signals.weights[begin:split]) / weeks + 1)
    return at_least(timing.momentum, ratio) or timing.momentum_any


def _trigger(facts: Facts, now: int, profile: Profile) -> float:
    if facts.trigger_at is None and facts.trigger_age is None and not profile.timing.seasons:
        return 0.0
    ages = trigger_ages(facts, now, profile)
    return max(at_most(profile.timing.trigger, age) for age in ages) if ages else 0.0


def trigger_ages(facts: Facts, now: int, profile: Profile) -> list[int]:
    """Microseconds since each event that makes people buy, a season of the profile among them."""
    found = []
    if facts.trigger_at is not None:
        found.append(now - facts.trigger_at)
    elif facts.trigger_age is not None:
        found.append(round(facts.trigger_age * DAY) if abs(facts.trigger_age) < 1e6 else -1)
    found += [now - begin for begin, end in _seasons(now, profile) if now < end]
    return [age for age in found if age >= 0]


def _seasons(now: int, profile: Profile) -> list[tuple[int, int]]:
    """The windows (begin, end) of last year, this and next."""
    if not profile.timing.seasons:
        return []
    year, found = moment(now).year, []
    for first, last in profile.timing.seasons:
        for start in (year - 1, year, year + 1):
            begin = _midnight(start, first)
            end = _midnight(start if last >= first else start + 1, last) + DAY
            found.append((begin, end))
    return found


def _midnight(year: int, day: tuple[int, int]) -> int:
    return instant(datetime(year, *day, tzinfo=UTC)) or instant(EPOCH) or 0


def stairs(
    facts: Facts, signals: Signals, now: int, span: tuple[int, int], profile: Profile
) -> Iterator[tuple[int, bool]]:
    """Every instant of ``span`` (and perhaps others) at which a component may step, by the signals up to ``now``;
    True where the step is taken at the instant itself, False where just after it."""
    timing = profile.timing
    if facts.due_at is not None:
        for days, _ in timing.timeline:
            yield facts.due_at - round(days * DAY), True
        yield facts.due_at + round(timing.lapse * DAY), True
    last = latest(signals, now, SERIOUS)
    if last is not None:
        for age, _ in timing.recency:
            yield last + age, False
    begin, end = span
    for age in (timing.recent, timing.earlier):
        first = bisect_left(signals.ats, begin - age)
        for at in signals.ats[first : bisect_right(signals.ats, min(end - age, now))]:
            yield at + age, False
    if facts.trigger_at is not None:
        yield facts.trigger_at, True
        for age, _ in timing.trigger:
            yield facts.trigger_at + age, False
    for opens, closes in _seasons(now, profile):
        yield opens, True
        yield closes, True
        for age, _ in timing.trigger:
            yield opens + age, False
