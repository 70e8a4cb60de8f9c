"""How far it is to the nearest of several places."""

from __future__ import annotations

import math
from collections.abc import Sequence

from circuit_script.enrichment.leads import Point

EARTH_MILES = 3958.7613  # mean radius


def miles(one: Point, other: Point) -> float:
    """Along the surface, between points of (latitude, longitude) in degrees (haversine)."""
    (lat1, lon1), (lat2, lon2) = one, other
    north, east = math.radians(lat2 - lat1) / 2, math.radians(lon2 - lon1) / 2
    h = math.sin(north) ** 2 + math.cos(math.radians(lat1)) * math.cos(math.radians(lat2)) * math.sin(east) ** 2
    return 2 * EARTH_MILES * math.asin(min(1.0, math.sqrt(h)))


def nearest(here: Point, places: Sequence[Point]) -> tuple[int, float]:
    """Which of them it is, from 0, and the miles to it. ``places`` are not empty."""
    distances = [miles(here, place) for place in places]
    place = min(range(len(places)), key=distances.__getitem__)
    return place, round(distances[place], 2)
