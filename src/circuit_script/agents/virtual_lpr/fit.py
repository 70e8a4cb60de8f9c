"""FIT: who the lead is. It does not decay; only what is known counts."""

from __future__ import annotations

from circuit_script.agents.virtual_lpr.facts import Facts
from circuit_script.agents.virtual_lpr.profile import Profile, at_least, at_most

Six = tuple[float, float, float, float, float, float]


def fit_parts(facts: Facts, profile: Profile) -> Six:
    """Points of the six components, in the order of FIT_PARTS."""
    company = profile.company
    match facts.industry:
        case "target":
            industry = company.target
        case "adjacent":
            industry = company.adjacent
        case _:
            industry = 0.0
    return (
        industry,
        _location(facts, profile),
        _finance(facts, profile),
        profile.authority.points.get(facts.authority or "", 0.0),
        profile.need.points.get(facts.need or "", 0.0),
        _reachability(facts, profile),
    )


def _location(facts: Facts, profile: Profile) -> float:
    location = profile.location
    if facts.territory is not None:
        return location.territory.get(facts.territory, 0.0)
    if facts.distance is None:
        return 0.0
    points = at_most(location.miles, facts.distance)
    return min(points, location.zip_most) if facts.by_zip else points


def _finance(facts: Facts, profile: Profile) -> float:
    """What was stated; the area's income stands in only where nothing was."""
    if facts.budget_ratio is not None:
        return at_least(profile.finance.ratio, facts.budget_ratio)
    if facts.area_ratio is not None and profile.finance.area_evidence:
        return at_least(profile.finance.area, facts.area_ratio)
    return 0.0


def _reachability(facts: Facts, profile: Profile) -> float:
    reach = profile.reachability
    points = reach.phone if facts.phone else 0.0
    if facts.email:
        points += reach.free_mail if facts.free_mail else reach.email
    return points + (reach.consent if facts.consent else 0.0)


def unknown_points(facts: Facts, profile: Profile) -> Six:
    """Points of each component's cap whose input is not known; what was looked up in place of an answer
    (the area's income for a budget) does not make it known."""
    caps, reach = profile.caps, profile.reachability
    reachability = (
        (reach.phone if facts.phone is None else 0.0)
        + (reach.email if facts.email is None else 0.0)
        + (reach.consent if facts.consent is None else 0.0)
    )
    return (
        caps[0] if facts.industry is None else 0.0,
        caps[1] if facts.distance is None and facts.territory is None else 0.0,
        caps[2] if facts.budget_ratio is None else 0.0,
        caps[3] if facts.authority is None else 0.0,
        caps[4] if facts.need is None else 0.0,
        reachability,
    )


def possible_gain(parts: tuple[float, ...], unknown: Six, caps: tuple[float, ...]) -> Six:
    """By how much each component would rise if all that is unknown were at its best."""
    company, location, finance, authority, need, reachability = (
        min(gap, cap - points) if gap else 0.0 for points, gap, cap in zip(parts, unknown, caps, strict=False)
    )
    return company, location, finance, authority, need, reachability
