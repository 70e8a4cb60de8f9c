"""Facts that a raw CRM contact shows, by the field names and word lists of the profile. None is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from circuit_script.agents.virtual_lpr.profile import DAY, Point, Profile
from circuit_script.agents.virtual_lpr.reading import (
    amount,
    flag,
    has_phrase,
    instant,
    number,
    text,
    texts,
    written,
)

Fields = Mapping[str, Any]
Raw = Mapping[str, Any]
EARTH_MILES = 3958.7613  # mean radius
_BUYS_FOR = {"self": "self", "myself": "self", "me": "self", "family": "family", "my family": "family"}
LONGEST_TITLE = 8  # words; a sentence is no title
_EMAIL = re.compile(r"[^@\s<>\"(),;:\\]{1,64}@((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})")
_PHONE = re.compile(r"[+0-9 ().\-/]{7,32}")
_NO_SIGNS = str.maketrans("", "", "+ ().-/")


def gather(lead: Fields, profile: Profile) -> dict[str, Any]:
    """What the contact's fields hold of each raw fact: of several fields the first one named in the profile."""
    raw: dict[str, Any] = {}
    get = lead.get
    for fact, name in profile.field_pairs:
        value = get(name)
        if value is not None and value != "":
            raw[fact] = value
    return raw


def industry(raw: Raw, profile: Profile) -> str | None:
    target, adjacent = profile.company.target_industries, profile.company.adjacent_industries
    if "industry" not in raw or not (target or adjacent):
        return None
    found = texts(raw["industry"])
    if not any(found):
        return None
    if not target.isdisjoint(found):
        return "target"
    if not adjacent.isdisjoint(found):
        return "adjacent"
    return "other" if target else None


def distance(raw: Raw, profile: Profile) -> tuple[float | None, bool]:
    """Miles to the nearest location, and whether only the postal code's centre was known."""
    places = profile.location.locations
    if not places:
        return None, False
    here, by_zip = _point(raw), False
    if here is None:
        here, by_zip = profile.location.zip_centers.get(_zip(raw)), True
    if here is None:
        return None, False
    return min(haversine(here, place) for place in places), by_zip


def haversine(one: Point, other: Point) -> float:
    """Great-circle distance in miles between two points of (latitude, longitude) in degrees."""
    (lat1, lon1), (lat2, lon2) = one, other
    north, east = math.radians(lat2 - lat1) / 2, math.radians(lon2 - lon1) / 2
    h = math.sin(north) ** 2 + math.cos(math.radians(lat1)) * math.cos(math.radians(lat2)) * math.sin(east) ** 2
    return 2 * EARTH_MILES * math.asin(min(1.0, math.sqrt(h)))


def territory(raw: Raw, profile: Profile) -> str | None:
    location = profile.location
    if not location.territory_zips and not location.territory_areas:
        return None
    if listed := location.territory_zips.get(_zip(raw)):
        return listed
    here = _point(raw)
    if here is None:
        return None
    return next((state for state, corners in location.territory_areas if _inside(here, corners)), None)


def _inside(point: Point, corners: Sequence[Point]) -> bool:
    """Even-odd rule: a ray from the point crosses the border an odd number of times."""
    y, x = point
    inside = False
    for (y1, x1), (y2, x2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


def _point(raw: Raw) -> Point | None:
    latitude = number(raw.get("latitude"))
    longitude = number(raw.get("longitude"))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude


def _zip(raw: Raw) -> str:
    return written(raw.get("postal_code"))[:5]


def budget_ratio(raw: Raw, profile: Profile) -> float | None:
    if not profile.finance.requirement:
        return None
    stated = amount(raw.get("budget"))
    return stated / profile.finance.requirement if stated is not None and stated >= 0 else None


def area_ratio(raw: Raw, profile: Profile) -> float | None:
    if not profile.finance.reference_income:
        return None
    income = amount(raw.get("income"))
    return income / profile.finance.reference_income if income is not None and income >= 0 else None


def authority(raw: Raw, profile: Profile) -> str | None:
    if buys_for := _BUYS_FOR.get(text(raw.get("buying_for"))):
        return buys_for
    title = text(raw.get("title"))
    if title and len(title.split()) <= LONGEST_TITLE:
        for found, phrases in profile.authority.titles:
            for phrase in phrases:
                if phrase in title and has_phrase(title, phrase):
                    return found
    return None


def need(raw: Raw, profile: Profile) -> str | None:
    services, related = profile.need.services, profile.need.related_services
    if not services and not related:
        return None
    asked = [word for word in texts(raw.get("need")) if word]
    if any(word in services for word in asked):
        return "exact"
    if any(word in related for word in asked):
        return "related"
    notes = text(raw.get("notes"))
    if notes and any(has_phrase(notes, service) for service in services):
        return "mentioned"
    return "other" if asked else None


def phone(raw: Raw) -> bool | None:
    """Whether the number looks dialable; whether somebody answers only a call can tell."""
    value = raw.get("phone")
    if value is None:
        return None
    dialled = written(value)
    if not _PHONE.fullmatch(dialled):
        return False
    digits = dialled.translate(_NO_SIGNS)
    return 10 <= len(digits) <= 15 and digits.count(digits[0]) < len(digits)


def email(raw: Raw, lead: Fields, domain: str, profile: Profile) -> bool | None:
    if "email" not in raw:
        return None
    known_bad = flag(lead.get("validEmail")) is False or flag(lead.get("hard_bounce")) is True
    return bool(domain) and not known_bad and domain not in profile.reachability.disposable_domains


def domain(raw: Raw) -> str:
    """The domain of the e-mail address, or empty where there is none that looks like one."""
    value = raw.get("email")
    found = _EMAIL.fullmatch(value.strip().lower()) if isinstance(value, str) and len(value) < 255 else None
    return found[1] if found else ""


def consent(raw: Raw, lead: Fields, profile: Profile) -> bool | None:
    if "consent" not in raw:
        return None
    known = [found for name in profile.fields["consent"] if (found := flag(lead.get(name))) is not None]
    return any(known) if known else None


def due_at(raw: Raw, lead: Fields, profile: Profile) -> int | None:
    """The stated date, or the day of the form plus what its answer says ("within 30 days")."""
    value = raw.get("due")
    if value is None:
        return None
    said = text(value)
    after = profile.timing.phrases.get(said) if said else None
    if after is None:
        return instant(value)
    given = instant(lead.get("dateAdded"))
    return given + round(after * DAY) if given is not None else None


def trigger_at(raw: Raw, lead: Fields, profile: Profile) -> int | None:
    """The latest of the events that make people buy."""
    if "trigger" not in raw:
        return None
    found = [at for name in profile.fields["trigger"] if (at := instant(lead.get(name))) is not None]
    return max(found, default=None)


def tags(raw: Raw) -> frozenset[str]:
    value = raw.get("tags")
    return frozenset(texts(value)) if value else frozenset()


def do_not_disturb(raw: Raw, lead: Fields, profile: Profile) -> bool:
    return "dnd" in raw and any(flag(lead.get(name)) for name in profile.fields["dnd"])
