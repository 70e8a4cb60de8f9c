"""When a lead's score will change by itself: the first whole second at which an integer, or the band, differs.

The search is exact, not sampled. TIMING steps at known instants (``timing.stairs``); in between, and in INTENT,
every term is ``a · 2^(-d/h)``. So an axis is P - N, with P (capped groups) and N (what counts against) both
falling and convex while no group leaves its cap. From convexity follow bounds of P - N over a whole span:

    P(t+d) >= P(t) + P'(t)·d               N(t+d) <= chord of N over the span
    P(t+d) <= chord of P over the span     N(t+d) >= N(t) + N'(t)·d

A span whose bounds stay inside the integer's interval is skipped whole; near a border the steps become single
seconds, each judged by the very arithmetic that scores a lead. With N = 0 the step is Newton's, from the left.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, log

from circuit_script.agents.virtual_lpr.intent import faded, repeated
from circuit_script.agents.virtual_lpr.profile import CAPS, DAY, FIT, GROUPS, INTENT, SECOND, TIMING
from circuit_script.agents.virtual_lpr.reading import LATEST
from circuit_script.agents.virtual_lpr.timing import stairs, timing_parts
from circuit_script.agents.virtual_lpr.weighing import Basis, axis_at, gates_at

HORIZON = 365 * DAY
MARGIN = 1e-9  # wider than any rounding error of the search, narrower than what a second changes
LN2 = log(2)

Term = tuple[float, float]  # points at the origin, half-life in seconds
Differs = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Curve:
    """One axis while nothing steps: ``constant`` + capped groups - ``against``, in seconds from ``origin``."""

    constant: float
    groups: tuple[tuple[float, tuple[Term, ...]], ...]
    against: tuple[Term, ...]
    origin: int  # microseconds
    low: float  # the unrounded values from here …
    high: float  # … to below here are shown as the present integer
    differs: Differs  # whether a second shows another integer, by the arithmetic that scores a lead


def next_change(basis: Basis, axes: tuple[int, int, int]) -> int | None:
    """Seconds since 1970 of the next change of ``axes`` or of being gated, within 365 days; else None."""
    begin, end = basis.now // SECOND, min((basis.now + HORIZON) // SECOND, LATEST)
    gated = bool(gates_at(basis, basis.now))
    since = basis.now
    for arrival in [*_arrivals(basis, begin, end), None]:
        last = end if arrival is None else arrival - 1
        found = _within(basis, axes, since, begin, last)
        if found is not None or arrival is None:
            return found
        at = arrival * SECOND
        if any(axis_at(basis, axis, at) != axes[axis] for axis in (FIT, INTENT, TIMING)):
            return arrival
        if bool(gates_at(basis, at)) != gated:
            return arrival
        since, begin = at, arrival
    return None


def _arrivals(basis: Basis, begin: int, end: int) -> list[int]:
    """Seconds at which signals dated after now come in force."""
    signals, now = basis.signals, basis.now
    dated = list(signals.ats[bisect_right(signals.ats, now) :])
    dated += [row[0] for row in signals.against if row[0] > now]
    dated += [at for at, _ in signals.gates if at > now]
    if not dated:
        return []
    return sorted({second for at in dated if begin < (second := -(-at // SECOND)) <= end})


def _within(basis: Basis, axes: tuple[int, int, int], since: int, begin: int, last: int) -> int | None:
    """The first change in (begin, last], by signals up to ``since`` only."""
    timing = _timing_change(basis, axes[TIMING], since, begin, last)
    if timing is not None:
        last = timing - 1
        if last <= begin or (_only_falls(basis, since) and axis_at(basis, INTENT, last * SECOND) == axes[INTENT]):
            return timing
    intent = _intent_change(basis, axes[INTENT], since, begin, last)
    return intent if intent is not None else timing


def _only_falls(basis: Basis, since: int) -> bool:
    """Whether INTENT cannot rise, so that what it shows at the end of a span it showed all along."""
    return not any(row[0] <= since and row[2].axis == INTENT for row in basis.signals.against)


def _timing_change(basis: Basis, shown: int, since: int, begin: int, last: int) -> int | None:
    def differs(second: int) -> bool:
        return axis_at(basis, TIMING, second * SECOND) != shown

    def between(begin: int, last: int) -> int | None:
        if not against or begin >= last:
            return None
        at = max(since, begin * SECOND)
        stairs_now = sum(timing_parts(basis.facts, basis.signals, at, basis.profile))
        return _first_exit(Curve(stairs_now, (), against, since, *interval, differs), begin, last)

    against, interval = _against(basis, TIMING, since), _interval(shown, TIMING)
    for step in _steps(basis, since, begin, last):
        if (found := between(begin, step - 1)) is not None:
            return found
        if differs(step):
            return step
        begin = step
    return between(begin, last)


def _steps(basis: Basis, since: int, begin: int, last: int) -> list[int]:
    """Whole seconds in (begin, last] at which TIMING may step."""
    low, high = begin * SECOND, (last + 1) * SECOND
    steps = {
        -(-at // SECOND) if inclusive else at // SECOND + 1
        for at, inclusive in stairs(basis.facts, basis.signals, since, basis.profile)
        if low <= at < high
    }
    return sorted(step for step in steps if begin < step <= last)


def _intent_change(basis: Basis, shown: int, since: int, begin: int, last: int) -> int | None:
    by_type: dict[str, list[float]] = {}
    kinds = {}
    for row in basis.signals.seen:
        if row[0] > since:
            break
        kinds[row[2].name] = row[2]
        by_type.setdefault(row[2].name, []).append(faded(row, since))
    groups: tuple[list[Term], ...] = tuple([] for _ in GROUPS)
    for name, values in by_type.items():
        kind = kinds[name]
        points = values[0] if len(values) == 1 else repeated(values)
        groups[kind.group].append((points, (kind.half_life or 1) / SECOND))
    caps = basis.profile.caps[6:10]
    capped = tuple((cap, tuple(terms)) for cap, terms in zip(caps, groups, strict=True) if terms)
    against = _against(basis, INTENT, since)
    if not capped and not against:
        return None

    def differs(second: int) -> bool:
        return axis_at(basis, INTENT, second * SECOND) != shown

    constant = -sum(
        row[1]
        for row in basis.signals.against
        if row[0] <= since and row[2].axis == INTENT and row[2].half_life is None
    )
    return _first_exit(Curve(constant, capped, against, since, *_interval(shown, INTENT), differs), begin, last)


def _against(basis: Basis, axis: int, since: int) -> tuple[Term, ...]:
    sums: dict[float, float] = {}
    for row in basis.signals.against:
        kind = row[2]
        if row[0] <= since and kind.axis == axis and kind.half_life is not None:
            half_life = kind.half_life / SECOND
            sums[half_life] = sums.get(half_life, 0.0) + faded(row, since)
    return tuple((points, half_life) for half_life, points in sums.items())


def _interval(shown: int, axis: int) -> tuple[float, float]:
    """The unrounded values that are shown as this integer."""
    return (shown - 0.5 if shown > 0 else -inf), (shown + 0.5 if shown < CAPS[axis] else inf)


def _first_exit(curve: Curve, begin: int, last: int) -> int | None:
    """The first whole second in (begin, last] at which the axis differs."""
    second = begin
    while second < last:
        constant, until = curve.constant, last
        falling: list[Term] = []
        offset = second - curve.origin / SECOND
        for cap, terms in curve.groups:
            value, _ = _value(terms, offset)
            if value > cap:
                constant += cap
                until = min(until, second + int(_reach(terms, cap, offset)))
            else:
                falling += terms
        found = _walk(curve, constant, falling, second, until)
        if found is not None or until >= last:
            return found
        second = until + 1  # the second in which a group leaves its cap is judged by itself
        if curve.differs(second):
            return second
    return None


def _value(terms: Iterable[Term], offset: float) -> tuple[float, float]:
    """A sum of fading terms and its slope per second."""
    value = slope = 0.0
    for points, half_life in terms:
        now = points * 2.0 ** (-offset / half_life)
        value += now
        slope -= now / half_life
    return value, slope * LN2


def _reach(terms: tuple[Term, ...], level: float, offset: float) -> float:
    """Seconds from ``offset`` until the sum has fallen to ``level``; never more than true (Newton, convex)."""
    passed = 0.0
    for _ in range(60):
        value, slope = _value(terms, offset + passed)
        step = (value - level) / -slope if slope < 0 else inf
        if step < 0.5 or passed + step > HORIZON / SECOND:
            return min(passed + max(step, 0.0), 2 * HORIZON / SECOND)
        passed += step
    return passed


def _walk(curve: Curve, constant: float, falling: list[Term], second: int, until: int) -> int | None:
    """The first exit in (second, until], while the capped groups stay capped."""
    against, start = curve.against, curve.origin / SECOND
    reach = until - second
    while second < until:
        reach = max(1, min(reach, until - second))
        up, up_slope = _value(falling, second - start)
        down, down_slope = _value(against, second - start)
        value = constant + up - down
        lower, upper = up_slope, 0.0
        if against:
            up_end, _ = _value(falling, second + reach - start)
            down_end, _ = _value(against, second + reach - start)
            lower, upper = up_slope - (down_end - down) / reach, (up_end - up) / reach - down_slope
        safe = float(reach) if against else float(until - second)
        if lower < 0:
            safe = min(safe, (value - curve.low - MARGIN) / -lower)
        if upper > 0:
            safe = min(safe, (curve.high - MARGIN - value) / upper)
        if safe >= 1:
            second += int(safe)
            reach = 2 * int(safe)
        else:
            second += 1
            if curve.differs(second):
                return second
    return None
