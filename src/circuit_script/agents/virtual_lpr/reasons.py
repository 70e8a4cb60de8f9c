"""Why a lead scores as it does: at most five sentences, made of known facts and numbers only.

No text of the lead's own stands in a reason, so that a reason may be sent to people and to models.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

import msgspec

from circuit_script.agents.virtual_lpr.fit import possible_gain, unknown_points
from circuit_script.agents.virtual_lpr.intent import strongest
from circuit_script.agents.virtual_lpr.profile import AXES, DAY, FIT, GROUPS, HOUR, PARTS, SECOND, SERIOUS, Kind
from circuit_script.agents.virtual_lpr.signals import latest, signal_id
from circuit_script.agents.virtual_lpr.timing import due_in_days, trigger_ages
from circuit_script.agents.virtual_lpr.weighing import Basis
from circuit_script.agents.virtual_lpr.words import AGAINST, DID, NAMES, UNKNOWN

MOST = 5
Moved = tuple[float, int | str]  # points, and the place in PARTS or the type of what counts against


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What a reason rests on: a signal's id (or empty), a value, and its age in seconds (or None)."""

    signal: str
    value: str
    age: float | None


class Reason(msgspec.Struct, frozen=True, gc=False):
    """``points`` are signed, of the component's ``cap``; a negative names its axis, with no cap."""

    component: str
    points: float
    cap: float | None
    evidence: Evidence
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    @property
    def gist(self) -> str:
        """What the reason says apart from its age and points: two scores with one gist tell the same story."""
        return f"{self.component}:{self.evidence.signal}:{self.evidence.value}"


def reasons(basis: Basis, parts: tuple[float, ...]) -> tuple[Reason, ...]:
    """Sorted by the points they moved; room is kept for one negative and for the largest unknown, which is last."""
    against = _against(basis)
    unknown = _unknown(basis, parts)
    room = MOST - (unknown is not None)
    moved: list[Moved] = [(points, index) for index, points in enumerate(parts) if points > 0]
    moved += against
    moved.sort(key=_weight)
    best = moved[:room]
    if against and against[0] not in best:
        best[-1] = against[0]
    best_of = strongest(basis.signals, basis.tally.faded)
    worded = [  # only those that are shown
        _negative(basis, -points, what) if isinstance(what, str) else _positive(basis, what, points, best_of)
        for points, what in best
    ]
    return (*worded, unknown) if unknown is not None else tuple(worded)


def _weight(moved: Moved) -> float:
    return -abs(moved[0])


def _positive(basis: Basis, index: int, points: float, best_of: dict[int, int]) -> Reason:
    component, cap = PARTS[index], basis.profile.caps[index]
    evidence, clause = _evidence(basis, component, best_of)
    return Reason(component, points, cap, evidence, f"+{_shown(points)}/{_shown(cap)} {clause}")


def _evidence(basis: Basis, component: str, best_of: dict[int, int]) -> tuple[Evidence, str]:
    if component in GROUPS:
        signals, place = basis.signals, best_of[GROUPS.index(component)]
        return _of_signal(signals.raws[place], signals.kinds[place], basis.now - signals.ats[place], DID)
    if component in ("stated_timeline", "recency", "momentum", "trigger_event"):
        return _of_timing(basis, component)
    return _of_fit(basis, component)


def _of_signal(raw: object, kind: Kind, age: int, words: dict[str, str]) -> tuple[Evidence, str]:
    said = words.get(kind.name) or kind.name.replace("_", " ")
    return Evidence(signal_id(raw), kind.name, age / SECOND), f"{said} {ago(age)}"


def _of_timing(basis: Basis, component: str) -> tuple[Evidence, str]:
    now, signals = basis.now, basis.signals
    if component == "stated_timeline":
        days = due_in_days(basis.facts, now) or 0.0
        bound = next((bound for bound, _ in basis.profile.timing.timeline if days <= bound), days)
        clause = "wanted to start by now" if days < 0 else f"wants to start within {bound:g} days"
        return Evidence("", f"{days:.1f} days" if days >= 0 else "the date has passed", None), clause
    if component == "recency":
        last = latest(signals, now, SERIOUS)
        age = now - last if last is not None else 0
        return Evidence("", "last signal", age / SECOND), f"last heard of {ago(age)}"
    if component == "momentum":
        recent = bisect_right(signals.ats, now) - bisect_right(signals.ats, now - basis.profile.timing.recent)
        days = basis.profile.timing.recent // DAY
        return Evidence("", "momentum", None), f"{_count(recent, 'signal')} in the last {days} days"
    age = min(trigger_ages(basis.facts, now, basis.profile), default=0)
    return Evidence("", "trigger event", age / SECOND), f"an event that makes people buy {ago(age)}"


def _of_fit(basis: Basis, component: str) -> tuple[Evidence, str]:
    facts = basis.facts
    match component:
        case "company_match":
            return _fact(facts.industry or "", f"{facts.industry} industry or segment")
        case "location_fit" if facts.territory is not None:
            return _fact(facts.territory, f"territory is {facts.territory}")
        case "location_fit":
            about = "about " if facts.by_zip else ""
            return _fact(f"{facts.distance:.4g} miles", f"{about}{facts.distance or 0:.1f} miles away")
        case "financial_capacity" if facts.budget_ratio is not None:
            return _fact(f"{facts.budget_ratio:.4g}", f"budget is {facts.budget_ratio:.3g} × what is needed")
        case "financial_capacity":
            return _fact(f"{facts.area_ratio:.4g}", f"area income is {facts.area_ratio or 0:.3g} × the reference")
        case "decision_authority":
            return _fact(facts.authority or "", NAMES.get(facts.authority or "", "may decide"))
        case "need_match":
            return _fact(facts.need or "", NAMES.get(facts.need or "", "has a need that fits"))
        case _:
            ways = [word for word, known in (("phone", facts.phone), ("e-mail", facts.email)) if known]
            ways += ["consent on record"] if facts.consent else []
            return _fact(", ".join(ways), f"reachable: {', '.join(ways)}")


def _fact(value: str, clause: str) -> tuple[Evidence, str]:
    return Evidence("", value, None), clause


def _against(basis: Basis) -> list[Moved]:
    """Points (below 0) and type of what counts against the lead, the weightiest first, then by name."""
    told: dict[str, list[float]] = {}
    for (_, _, kind, _), points in zip(basis.signals.against, basis.tally.against, strict=False):
        told.setdefault(kind.name, []).append(points)
    found: list[Moved] = [(-sum(sorted(told[name])), name) for name in sorted(told)]
    found += [(-basis.profile.kinds[name].points, name) for name in basis.facts.against if name not in told]
    return sorted([row for row in found if row[0] < 0], key=itemgetter(0))


def _negative(basis: Basis, points: float, name: str) -> Reason:
    """One reason for all signals of a type, by the newest of them; or for what the record itself shows."""
    axis, now = FIT, basis.now
    rows = [row for row in basis.signals.against if row[0] <= now and row[2].name == name]
    if rows:
        at, _, kind, raw = max(rows, key=lambda row: (row[0], signal_id(row[3]))) if len(rows) > 1 else rows[0]
        axis = kind.axis
        evidence, clause = _of_signal(raw, kind, now - at, AGAINST)
    else:
        evidence, clause = Evidence("", name, None), AGAINST.get(name) or name.replace("_", " ")
    times = f" ({len(rows)} times)" if len(rows) > 1 else ""
    return Reason(AXES[axis], -points, None, evidence, f"-{_shown(points)} {clause}{times}")


def _unknown(basis: Basis, parts: tuple[float, ...]) -> Reason | None:
    """The unknown fact that could add most."""
    profile = basis.profile
    gains = possible_gain(parts, unknown_points(basis.facts, profile), profile.caps)
    index = max(range(len(gains)), key=lambda index: (gains[index], -index))
    if gains[index] <= 0:
        return None
    sentence = f"{UNKNOWN[PARTS[index]]} unknown: up to +{_shown(gains[index])}"
    return Reason(PARTS[index], 0.0, profile.caps[index], Evidence("", "unknown", None), sentence)


def _shown(points: float) -> str:
    return f"{points:.1f}".removesuffix(".0")


def ago(span: int) -> str:
    """A span in microseconds, in words."""
    if span < 60 * SECOND:
        return "just now"
    for unit, size in (("day", DAY), ("hour", HOUR), ("minute", 60 * SECOND)):
        if span >= size:
            return f"{_count(span // size, unit)} ago"
    return "just now"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
