"""Why a lead scores as it does: at most five sentences, made of known facts and numbers only.

No text of the lead's own stands in a reason, so that a reason may be sent to people and to models.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuit_script.agents.virtual_lpr.fit import possible_gain, unknown_points
from circuit_script.agents.virtual_lpr.intent import faded, signal_id, strongest
from circuit_script.agents.virtual_lpr.profile import AXES, DAY, FIT, GROUPS, HOUR, PARTS, SECOND
from circuit_script.agents.virtual_lpr.signals import Seen, latest
from circuit_script.agents.virtual_lpr.timing import due_in_days, trigger_ages
from circuit_script.agents.virtual_lpr.weighing import Basis
from circuit_script.agents.virtual_lpr.words import AGAINST, DID, NAMES, UNKNOWN

MOST = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reason rests on: a signal's id (or empty), a value, and its age in seconds (or None)."""

    signal: str
    value: str
    age: float | None


@dataclass(frozen=True, slots=True)
class Reason:
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
    against = sorted(_against(basis), key=lambda reason: reason.points)
    unknown = _unknown(basis, parts)
    order = sorted((-points, index) for index, points in enumerate(parts) if points > 0)
    room = MOST - (unknown is not None)
    positive = [_positive(basis, index, -points) for points, index in order[:room]]  # only these are worded
    best = sorted([*positive, *against], key=lambda reason: -abs(reason.points))[:room]
    if against and against[0] not in best:
        best[-1] = against[0]
    return (*best, unknown) if unknown is not None else tuple(best)


def _positive(basis: Basis, index: int, points: float) -> Reason:
    component, cap = PARTS[index], basis.profile.caps[index]
    evidence, clause = _evidence(basis, index)
    return Reason(component, points, cap, evidence, f"+{_shown(points)}/{_shown(cap)} {clause}")


def _evidence(basis: Basis, index: int) -> tuple[Evidence, str]:
    component = PARTS[index]
    if component in GROUPS:
        _, row = strongest(basis.signals, basis.now)[GROUPS.index(component)]
        return _of_signal(row, basis.now, DID)
    if component in ("stated_timeline", "recency", "momentum", "trigger_event"):
        return _of_timing(basis, component)
    return _of_fit(basis, component)


def _of_signal(row: Seen, now: int, words: dict[str, str]) -> tuple[Evidence, str]:
    at, _, kind, raw = row
    said = words.get(kind.name, kind.name.replace("_", " "))
    return Evidence(signal_id(raw), kind.name, (now - at) / SECOND), f"{said} {ago(now - at)}"


def _of_timing(basis: Basis, component: str) -> tuple[Evidence, str]:
    now, signals = basis.now, basis.signals
    if component == "stated_timeline":
        days = due_in_days(basis.facts, now) or 0.0
        bound = next((bound for bound, _ in basis.profile.timing.timeline if days <= bound), days)
        clause = "wanted to start by now" if days < 0 else f"wants to start within {bound:g} days"
        return Evidence("", f"{days:.1f} days" if days >= 0 else "the date has passed", None), clause
    if component == "recency":
        last = latest(signals.serious, now)
        age = now - last if last is not None else 0
        return Evidence("", "last signal", age / SECOND), f"last heard of {ago(age)}"
    if component == "momentum":
        recent = sum(at > now - basis.profile.timing.recent for at in signals.ats if at <= now)
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


def _against(basis: Basis) -> list[Reason]:
    """One reason for each type that counts against the lead."""
    rows: dict[str, list[Seen]] = {}
    for row in basis.signals.against:
        if row[0] <= basis.now:
            rows.setdefault(row[2].name, []).append(row)
    found = []
    for name in sorted(rows):
        newest = max(rows[name], key=lambda row: (row[0], signal_id(row[3])))
        points = sum(sorted(faded(row, basis.now) for row in rows[name]))
        evidence, clause = _of_signal(newest, basis.now, AGAINST)
        times = f" ({len(rows[name])} times)" if len(rows[name]) > 1 else ""
        found.append(_negative(AXES[newest[2].axis], points, evidence, clause + times))
    for name in basis.facts.against:
        if name not in rows:
            said = AGAINST.get(name, name.replace("_", " "))
            found.append(_negative(AXES[FIT], basis.profile.kinds[name].points, Evidence("", name, None), said))
    return [reason for reason in found if reason.points < 0]


def _negative(axis: str, points: float, evidence: Evidence, clause: str) -> Reason:
    return Reason(axis, -points, None, evidence, f"-{_shown(points)} {clause}")


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
