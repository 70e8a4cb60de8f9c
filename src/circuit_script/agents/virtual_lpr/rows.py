"""A score as the fields of a CRM contact, and whether they are worth a write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from circuit_script.agents.virtual_lpr.bands import DISQUALIFIED
from circuit_script.agents.virtual_lpr.profile import Profile
from circuit_script.agents.virtual_lpr.reading import number
from circuit_script.agents.virtual_lpr.reasons import Reason
from circuit_script.agents.virtual_lpr.score import LeadScore
from circuit_script.agents.virtual_lpr.signals import rows_of

TAG = "lpr:"
WRITTEN = (
    *("lpr_score", "lpr_fit", "lpr_intent", "lpr_timing", "lpr_grade", "lpr_band", "lpr_route", "lpr_reasons"),
    *("lpr_p_win", "lpr_scored_at", "lpr_profile"),
)
_MOVING = re.compile(r"^[+-]?[\d.]+(/[\d.]+)?\s|\d+ (minute|hour|day)s? ago|just now|\(\d+ times\)|\d+ signals?")


def row_of(record: Mapping[str, Any], score: LeadScore, reasons: tuple[Reason, ...]) -> dict[str, Any]:
    """The update for this contact; ``tags`` only where its lpr tag is not right already."""
    row = {
        "id": record.get("id"),
        "lpr_score": score.total,
        "lpr_fit": score.fit,
        "lpr_intent": score.intent,
        "lpr_timing": score.timing,
        "lpr_grade": score.grade,
        "lpr_band": score.band,
        "lpr_route": score.route,
        "lpr_reasons": [reason.sentence for reason in reasons],
        "lpr_p_win": score.p_win,
        "lpr_scored_at": score.scored_at.isoformat(),
        "lpr_profile": score.profile_version,
    }
    tags = record.get("tags")
    before = list(tags) if isinstance(tags, (list, tuple)) else [tags] if isinstance(tags, str) and tags else []
    after = _tagged(before, score.band)
    return row if after == before else row | {"tags": after}


def worth_writing(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether an integer, the band, the route or the top reason differs from what the contact carries."""
    for name in ("lpr_score", "lpr_fit", "lpr_intent", "lpr_timing"):
        if number(record.get(name)) != row[name]:
            return True
    if record.get("lpr_band") != row["lpr_band"] or record.get("lpr_route") != row["lpr_route"]:
        return True
    return _top(record.get("lpr_reasons")) != _top(row["lpr_reasons"])


def is_scored(record: Mapping[str, Any]) -> bool:
    return number(record.get("lpr_score")) is not None


def watched_fields(profile: Profile) -> frozenset[str]:
    """The contact's fields that the profile reads a score from."""
    return frozenset(name for names in profile.fields.values() for name in names)


def _tagged(tags: list[Any], band: str) -> list[Any]:
    wanted = [] if band == DISQUALIFIED else [TAG + band]
    kept = [tag for tag in tags if not (isinstance(tag, str) and tag.startswith(TAG) and tag not in wanted)]
    return kept + [tag for tag in wanted if tag not in kept]


def _top(reasons: object) -> str:
    """The first reason without what moves by itself (points and ages)."""
    listed = rows_of(reasons)  # a CRM whose fields hold no lists has it as JSON text
    first = listed[0] if listed else reasons
    return _MOVING.sub("", first) if isinstance(first, str) else ""
