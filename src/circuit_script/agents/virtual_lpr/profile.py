"""The numbers that a tenant scores by: one frozen value, made from one TOML file (see profile_file)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SECOND = 1_000_000  # instants and spans are whole microseconds, so that bounds are met exactly
HOUR = 3600 * SECOND
DAY = 24 * HOUR

FIT, INTENT, TIMING = 0, 1, 2
AXES = ("fit", "intent", "timing")
CAPS = (40, 40, 20)
GROUPS = ("hand_raise", "commercial_interest", "conversation", "engagement")
HAND_RAISES, SERIOUS = (0,), (0, 1, 2)  # places in GROUPS: who asks us; all but Engagement
FIT_PARTS = ("company_match", "location_fit", "financial_capacity", "decision_authority", "need_match", "reachability")
TIMING_PARTS = ("stated_timeline", "recency", "momentum", "trigger_event")
PARTS = FIT_PARTS + GROUPS + TIMING_PARTS
AXIS_OF = (FIT,) * 6 + (INTENT,) * 4 + (TIMING,) * 4

Steps = tuple[tuple[float, float], ...]
Point = tuple[float, float]


class ProfileError(ValueError):
    """The profile of the lead score is not valid; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of signal. ``group`` is the index in GROUPS, or -1 for what counts against the lead."""

    name: str
    axis: int
    group: int
    points: float
    half_life: int | None  # microseconds; None does not fade
    fades: float  # the same as a divisor: infinite where nothing fades


@dataclass(frozen=True, slots=True)
class Company:
    cap: float
    target: float
    adjacent: float
    target_industries: frozenset[str]
    adjacent_industries: frozenset[str]


@dataclass(frozen=True, slots=True)
class Location:
    cap: float
    miles: Steps
    zip_most: float
    territory: Mapping[str, float]
    locations: tuple[Point, ...]
    zip_centers: Mapping[str, Point]
    territory_zips: Mapping[str, str]
    territory_areas: tuple[tuple[str, tuple[Point, ...]], ...]


@dataclass(frozen=True, slots=True)
class Finance:
    cap: float
    ratio: Steps
    area: Steps
    area_evidence: bool
    requirement: float
    reference_income: float


@dataclass(frozen=True, slots=True)
class Authority:
    cap: float
    points: Mapping[str, float]
    titles: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Need:
    cap: float
    points: Mapping[str, float]
    services: frozenset[str]
    related_services: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reachability:
    cap: float
    phone: float
    email: float
    free_mail: float
    consent: float
    free_domains: frozenset[str]
    disposable_domains: frozenset[str]


@dataclass(frozen=True, slots=True)
class Timing:
    """Spans in microseconds, save the timeline's bounds, which are days."""

    timeline: Steps
    lapse: float
    phrases: Mapping[str, float]
    recency: tuple[tuple[int, float], ...]
    momentum: Steps
    momentum_any: float
    recent: int
    earlier: int
    trigger: tuple[tuple[int, float], ...]
    seasons: tuple[tuple[tuple[int, int], tuple[int, int]], ...]


@dataclass(frozen=True, slots=True)
class Gates:
    names: frozenset[str]
    served_miles: float
    reversed_by: Mapping[str, frozenset[str]]
    tags: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Grades:
    a: int
    b: int
    one: int
    two: int


@dataclass(frozen=True, slots=True)
class Bands:
    hot: int
    hot_fit: int
    hot_intent: int
    warm: int
    slack: int
    hand_raise: int  # microseconds
    hand_raise_fit: int


@dataclass(frozen=True, slots=True)
class Alert:
    address: str
    repeat: int  # microseconds
    opening: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that decides a score besides the lead itself. ``caps`` are parallel to PARTS."""

    name: str
    version: str
    caps: tuple[float, ...]
    company: Company
    location: Location
    finance: Finance
    authority: Authority
    need: Need
    reachability: Reachability
    timing: Timing
    kinds: Mapping[str, Kind]
    gates: Gates
    grades: Grades
    bands: Bands
    alert: Alert
    fields: Mapping[str, tuple[str, ...]]  # raw fact → the contact's fields, in order of preference
    field_pairs: tuple[tuple[str, str], ...]  # the same as (fact, field), the preferred field of a fact last
    replies: Mapping[str, tuple[str, ...]]  # rule → words of all languages
    against_fit: frozenset[str]  # names of the kinds that count against FIT

    @property
    def label(self) -> str:
        """What a score says it was made by."""
        return f"{self.name}@{self.version}"


def at_most(steps: Sequence[tuple[float, float]], value: float) -> float:
    """Points of the first bound that ``value`` does not pass, going up; else 0."""
    for bound, points in steps:
        if value <= bound:
            return points
    return 0.0


def at_least(steps: Steps, value: float) -> float:
    """Points of the first bound that ``value`` reaches, going down; else 0."""
    for bound, points in steps:
        if value >= bound:
            return points
    return 0.0
