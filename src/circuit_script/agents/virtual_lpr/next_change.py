"""When a lead's score will change by itself: the first whole second at which an integer, or the band, differs.

The search is exact, not sampled. TIMING steps at known instants (``timing.stairs``); in between, and in INTENT,
every term is ``a · 2^(-d/h)``. So an axis is P - N, with P (capped groups) and N (what counts against) both sums of
such terms while no group leaves its cap: falling, convex, and ever less bent. By Taylor, for every d >= 0,

    P(t) + P'(t)·d  <=  P(t+d)  <=  P(t) + P'(t)·d + P''(t)·d²/2        and N alike.

A span over which these bounds of P - N stay inside the integer's interval is skipped whole; near a border the steps
become single seconds, and what lies on it is judged by the very arithmetic that scores a lead.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import exp2, inf, log, sqrt

import msgspec

from circuit_script.agents.virtual_lpr.intent import Tally, tally
from circuit_script.agents.virtual_lpr.profile import CAPS, DAY, FIT, INTENT, SECOND, TIMING
from circuit_script.agents.virtual_lpr.reading import LATEST
from circuit_script.agents.virtual_lpr.timing import stairs, timing_parts
from circuit_script.agents.virtual_lpr.weighing import Basis, axis_at, gates_at

HORIZON = 365 * DAY
MARGIN = 1e-9  # wider than any rounding error of the search, narrower than what a second changes
LN2 = log(2)

Terms = Mapping[float, float]  # halvings a second → points at the origin; what fades equally fast is one term
Differs = Callable[[int], bool]


class Curve(msgspec.Struct, frozen=True, gc=False):
    """One axis while nothing steps: ``constant`` + capped groups - ``against``, in seconds from ``origin``."""

    constant: float
    groups: Sequence[tuple[float, Terms]]
    against: Terms
    origin: float  # seconds
    low: float  # the unrounded values from here …
    high: float  # … to below here are shown as the present integer
    differs: Differs  # whether a second shows another integer, by the arithmetic that scores a lead


def next_change(basis: Basis, axes: tuple[int, int, int]) -> int | None:
    """Seconds since 1970 of the next change of ``axes`` or of being gated, within 365 days; else None."""
    begin, end = basis.now // SECOND, min((basis.now + HORIZON) // SECOND, LATEST)
    since, counted = basis.now, basis.tally
    for arrival in _arrivals(basis, begin, end):
        found = _within(basis, axes, (since, counted), begin, arrival - 1)
        if found is not None:
            return found
        at = arrival * SECOND
        if any(axis_at(basis, axis, at) != axes[axis] for axis in (FIT, INTENT, TIMING)):
            return arrival
        if bool(gates_at(basis, at)) != bool(gates_at(basis, basis.now)):
            return arrival
        since, counted, begin = at, tally(basis.signals, at, basis.profile), arrival
    return _within(basis, axes, (since, counted), begin, end)


def _arrivals(basis: Basis, begin: int, end: int) -> list[int]:
    """Seconds at which signals dated after now come in force."""
    signals, now = basis.signals, basis.now
    dated = list(signals.ats[bisect_right(signals.ats, now) :])
    dated += [row[0] for row in signals.against if row[0] > now]
    dated += [at for at, _ in signals.gates if at > now]
    if not dated:
        return []
    return sorted({second for at in dated if begin < (second := -(-at // SECOND)) <= end})


def _within(basis: Basis, axes: tuple[int, int, int], standing: tuple[int, Tally], begin: int, last: int) -> int | None:
    """The first change in (begin, last], by signals up to the instant of ``standing`` only."""
    intent = _intent_change(basis, axes[INTENT], standing, begin, last)
    timing = _timing_change(basis, axes[TIMING], standing, begin, last if intent is None else intent - 1)
    return intent if timing is None else timing


def _timing_change(basis: Basis, shown: int, standing: tuple[int, Tally], begin: int, last: int) -> int | None:
    def differs(second: int) -> bool:
        return axis_at(basis, TIMING, second * SECOND) != shown

    def between(begin: int, last: int) -> int | None:
        if not against or begin >= last:
            return None
        at = max(since, begin * SECOND)
        stairs_now = sum(timing_parts(basis.facts, basis.signals, at, basis.profile))
        curve = Curve(stairs_now, (), against, since / SECOND, *_interval(shown, TIMING), differs)
        return _first_exit(curve, begin, last)

    since, counted = standing
    against = _against(basis, TIMING, counted)
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
        for at, inclusive in stairs(basis.facts, basis.signals, since, (low, high), basis.profile)
        if low <= at < high
    }
    return sorted([step for step in steps if begin < step <= last])


def _intent_change(basis: Basis, shown: int, standing: tuple[int, Tally], begin: int, last: int) -> int | None:
    def differs(second: int) -> bool:
        return axis_at(basis, INTENT, second * SECOND) != shown

    since, counted = standing
    sums: tuple[dict[float, float], ...] = ({}, {}, {}, {})
    for kind, points in counted.types:
        terms, rate = sums[kind.group], SECOND / kind.fades
        terms[rate] = terms.get(rate, 0.0) + points
    groups = [(cap, terms) for cap, terms in zip(basis.profile.caps[6:10], sums, strict=True) if terms]
    against = _against(basis, INTENT, counted)
    if not groups and not against:
        return None
    curve = Curve(0.0, groups, against, since / SECOND, *_interval(shown, INTENT), differs)
    return _first_exit(curve, begin, last)


def _against(basis: Basis, axis: int, counted: Tally) -> Terms:
    """What counts against the axis; what does not fade halves never."""
    terms: dict[float, float] = {}
    for (_, _, kind, _), points in zip(basis.signals.against, counted.against, strict=False):
        if kind.axis == axis:
            rate = SECOND / kind.fades
            terms[rate] = terms.get(rate, 0.0) + points
    return terms


def _interval(shown: int, axis: int) -> tuple[float, float]:
    """The unrounded values that are shown as this integer."""
    return (shown - 0.5 if shown > 0 else -inf), (shown + 0.5 if shown < CAPS[axis] else inf)


def _first_exit(curve: Curve, begin: int, last: int) -> int | None:
    """The first whole second in (begin, last] at which the axis differs."""
    second = begin
    while second < last:
        constant, until = curve.constant, last
        falling: dict[float, float] = {}
        offset = second - curve.origin
        for cap, terms in curve.groups:
            if _level(terms, offset) > cap:
                constant += cap
                until = min(until, second + int(_reach(terms, cap, offset)))
            else:
                for rate, points in terms.items():
                    falling[rate] = falling.get(rate, 0.0) + points
        found = _walk(curve, constant, falling, second, until)
        if found is not None or until >= last:
            return found
        second = until + 1  # the second in which a group leaves its cap is judged by itself
        if curve.differs(second):
            return second
    return None


def _level(terms: Terms, offset: float) -> float:
    """A sum of fading terms."""
    return sum([points * exp2(-offset * rate) for rate, points in terms.items()])


def _bent(terms: Terms, offset: float) -> tuple[float, float, float]:
    """The sum with its first and second derivative, by seconds."""
    value = slope = bend = 0.0
    for rate, points in terms.items():
        now = points * exp2(-offset * rate)
        falls = now * rate * LN2
        value += now
        slope -= falls
        bend += falls * rate * LN2
    return value, slope, bend


def _reach(terms: Terms, level: float, offset: float) -> float:
    """Seconds from ``offset`` until the sum has fallen to ``level``; never more than true (Newton, convex)."""
    passed = 0.0
    for _ in range(60):
        value, slope, _ = _bent(terms, offset + passed)
        step = (value - level) / -slope if slope < 0 else inf
        if step < 0.5 or passed + step > HORIZON / SECOND:
            return min(passed + max(step, 0.0), 2 * HORIZON / SECOND)
        passed += step
    return passed


def _walk(curve: Curve, constant: float, falling: Terms, second: int, until: int) -> int | None:
    """The first exit in (second, until], while the capped groups stay capped."""
    low, high = curve.low + MARGIN, curve.high - MARGIN
    while second < until:
        up, up_slope, up_bend = _bent(falling, second - curve.origin)
        down, down_slope, down_bend = _bent(curve.against, second - curve.origin)
        value, slope = constant + up - down, up_slope - down_slope
        safe = min(_safe(value - low, slope, down_bend), _safe(high - value, -slope, up_bend), until - second)
        if safe >= 1:
            second += int(safe)
            continue
        second += 1
        value = constant + _level(falling, second - curve.origin) - _level(curve.against, second - curve.origin)
        if not low <= value <= high and (_is_beyond(curve, value) or curve.differs(second)):
            return second
    return None


def _is_beyond(curve: Curve, value: float) -> bool:
    """Whether another integer is shown for certain; at the border itself only the exact arithmetic knows."""
    return value < curve.low - MARGIN or value > curve.high + MARGIN


def _safe(way: float, slope: float, bend: float) -> float:
    """The last d up to which way + slope·d - bend·d²/2 stays at 0 or more."""
    if way <= 0 or way == inf:
        return max(way, 0.0)
    root = sqrt(slope * slope + 2 * bend * way)
    if slope > 0:
        return (slope + root) / bend if bend > 0 else inf
    return 2 * way / (root - slope) if root > slope else inf
