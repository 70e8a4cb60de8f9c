"""The handler that every contestant runs: the same trivial score of one contact.

Kept trivial on purpose: what is measured is the road, not the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCES = {"referral": 30, "walk-in": 25, "phone": 20, "website form": 15}


def score(contact: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to write back for one contact."""
    points = SOURCES.get(contact.get("source", ""), 5)
    points += 20 if contact.get("companyName") else 0
    points += 10 if contact.get("email") else 0
    points += 10 if contact.get("phone") else 0
    points += 5 * len(contact.get("tags") or ())
    points += 10 if contact.get("state") == "TX" else 0
    return {"id": contact["id"], "score": min(points, 100), "band": "hot" if points >= 60 else "cold"}
