"""The trigger that keeps every contact's score fresh. An app switches it on, and off, by one line:

from circuit_script.agents.virtual_lpr.trigger import LeadScoring
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuit_script import CircuitDB, CircuitTrigger, Context, Record, send_webhook, trigger
from circuit_script.agents.virtual_lpr.agent import previous_band, profile_of, stored_signals
from circuit_script.agents.virtual_lpr.alert import alert_of, is_due
from circuit_script.agents.virtual_lpr.facts import DERIVED
from circuit_script.agents.virtual_lpr.inbox import with_signal
from circuit_script.agents.virtual_lpr.profile import PARTS, Profile
from circuit_script.agents.virtual_lpr.reasons import Reason
from circuit_script.agents.virtual_lpr.replies import classify_appointment, classify_message
from circuit_script.agents.virtual_lpr.rows import is_scored, row_of, watched_fields, worth_writing
from circuit_script.agents.virtual_lpr.score import LeadScore, calculate, settle

Fields = dict[str, Any]


@dataclass(slots=True)
class Lead:
    """One contact to score, the record of the batch that asks for it, and what to write besides the score."""

    contact: Mapping[str, Any]
    record: Record
    write: Fields = field(default_factory=dict)


class LeadScoring(CircuitTrigger):
    """Scores contacts when they appear, change, write, call or book."""

    @trigger("Contact", ["afterInsert", "afterUpdate"], share_child=True)
    @trigger("Message", ["afterInsert"], share_child=True)
    @trigger("Appointment", ["afterInsert"], share_child=True)
    async def score_leads(self, context: Context) -> None:
        """Score the leads of this batch, keep each score, and tell sales of those who became hot."""
        profile = profile_of(None)
        if context.object == "Contact":
            leads = _changed_contacts(context, profile)
        else:
            leads = await _contacts_with_signals(context, profile)
        updates, scores = [], []
        for lead in leads:
            found = calculate(lead.contact, None, stored_signals(lead.contact, profile), context.started_at, profile)
            score = settle(found, previous_band(lead.contact))
            reasons = score.reasons
            scores.append(_kept(lead.contact, score, reasons))
            if profile.alert.address and is_due(lead.contact, score, context.started_at, profile):
                lead.write["lpr_alerted_at"] = score.scored_at.isoformat()
                await send_webhook(
                    profile.alert.address, alert_of(lead.contact, score, reasons, profile), record=lead.record
                )
            row = row_of(lead.contact, score, reasons)
            if worth_writing(lead.contact, row):
                lead.write = row | lead.write
            if lead.write:
                updates.append({"id": lead.contact.get("id"), **lead.write})
        if updates:
            await CircuitDB.update("Contact", updates)
        if scores:
            await CircuitDB.insert("LeadScore", scores)


def _changed_contacts(context: Context, profile: Profile) -> list[Lead]:
    """New contacts, and those of which a field that the profile reads has changed."""
    watched = {*watched_fields(profile), *DERIVED, *profile.gates.names, *profile.against_fit}
    leads = []
    for record, old in zip(context.new_records, context.old_records, strict=True):
        before: Mapping[str, Any] = old or {}
        contact = {**before, **record}  # a vendor may send only what it knows; our own fields stand in the last state
        if context.event_name == "afterInsert" or not is_scored(contact) or _moved(before, record, watched):
            leads.append(Lead(contact, record))
    return leads


def _moved(before: Mapping[str, Any], record: Record, watched: set[str]) -> bool:
    return any(record[name] != before.get(name) for name in watched & record.keys())


async def _contacts_with_signals(context: Context, profile: Profile) -> list[Lead]:
    """The contacts of in-bound messages and of appointments, with the new signal added to each."""
    told: list[tuple[Record, str, str]] = []
    for record in context.new_records:
        name = classify_message(record, profile) if context.object == "Message" else classify_appointment(record)
        contact = record.get("contactId")
        if name and isinstance(contact, str) and contact:
            told.append((record, contact, name))
    if not told:
        return []
    ids = list(dict.fromkeys(contact for _, contact, _ in told))
    found = dict(zip(ids, await CircuitDB.get("Contact", ids), strict=True))
    leads: dict[str, Lead] = {}
    for record, contact, name in told:
        stored = found[contact]
        if stored is None:
            continue  # nobody we know: the contact's own event will score it
        lead = leads.setdefault(contact, Lead(stored, record))
        signals = with_signal(stored_signals(lead.contact, profile), record, name, context.started_at)
        target = profile.fields["signals"][0]
        lead.contact = {**lead.contact, "id": contact, target: signals}
        lead.write[target] = signals
    return list(leads.values())


def _kept(contact: Mapping[str, Any], score: LeadScore, reasons: tuple[Reason, ...]) -> Fields:
    """The score as it is kept for history, backtests and appeals."""
    change = score.next_change_at
    return {
        "contactId": contact.get("id"),
        "at": score.scored_at.isoformat(),
        "total": score.total,
        "fit": score.fit,
        "intent": score.intent,
        "timing": score.timing,
        "grade": score.grade,
        "band": score.band,
        "route": score.route,
        "gates": score.gated_by,
        "parts": dict(zip(PARTS, score.points, strict=True)),
        "negative": score.negative,
        "reasons": [reason.sentence for reason in reasons],
        "next_change_at": change.isoformat() if change is not None else None,
        "profile": score.profile_version,
        "signals": score.signals_used,
    }
