"""The alert about a lead that became hot: when it is due, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.agents.virtual_lpr.bands import HOT
from circuit_script.agents.virtual_lpr.contact import phone
from circuit_script.agents.virtual_lpr.facts import shown
from circuit_script.agents.virtual_lpr.profile import SECOND, Profile
from circuit_script.agents.virtual_lpr.reading import instant, written
from circuit_script.agents.virtual_lpr.reasons import Reason
from circuit_script.agents.virtual_lpr.score import LeadScore

Fields = Mapping[str, Any]


def is_due(contact: Fields, score: LeadScore, now: float, profile: Profile) -> bool:
    """Whether the lead has just become hot, or is still hot so long after its last alert that it repeats."""
    if HOT not in (score.band, score.route):
        return False
    if HOT not in (contact.get("lpr_band"), contact.get("lpr_route")):
        return True
    last = instant(contact.get("lpr_alerted_at"))
    return last is not None and now * SECOND - last >= profile.alert.repeat


def alert_of(contact: Fields, score: LeadScore, reasons: tuple[Reason, ...], profile: Profile) -> dict[str, Any]:
    """Score, three reasons, phone and a first sentence. Of the lead's own texts only short plain ones pass."""
    number = written(next((contact[name] for name in profile.fields["phone"] if contact.get(name)), None))
    first_name = shown(contact.get("firstName")) or "there"
    return {
        "contact": contact.get("id"),
        "score": score.total,
        "fit": score.fit,
        "intent": score.intent,
        "timing": score.timing,
        "grade": score.grade,
        "band": score.band,
        "route": score.route,
        "reasons": [reason.sentence for reason in reasons[:3]],
        "phone": number if phone({"phone": number}) else None,
        "opening": profile.alert.opening.replace("{first_name}", first_name),
        "at": score.scored_at.isoformat(),
    }
