"""What is known of a lead, apart from its signals: read from derived facts, else from the raw CRM contact."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import msgspec

from circuit_script.agents.virtual_lpr import contact
from circuit_script.agents.virtual_lpr.profile import Profile
from circuit_script.agents.virtual_lpr.reading import flag, instant, number, text

Fields = Mapping[str, Any]

DERIVED = (  # the facts by their own names; a lead may carry them ready made
    *("industry_match", "distance_miles", "distance_precision", "territory", "budget_ratio", "area_income_ratio"),
    *("authority", "need", "phone_valid", "email_deliverable", "email_free_mail", "consent"),
    *("due_at", "due_in_days", "trigger_at", "trigger_age_days"),
)
_INDUSTRIES = ("target", "adjacent")
_NOTHING = frozenset({"none", "other", "no", "false"})


class Facts(msgspec.Struct, frozen=True, gc=False):
    """None is unknown; "other" is known, and earns nothing. Instants in microseconds, spans in days."""

    industry: str | None
    distance: float | None
    by_zip: bool
    territory: str | None
    budget_ratio: float | None
    area_ratio: float | None
    authority: str | None
    need: str | None
    phone: bool | None
    email: bool | None
    free_mail: bool
    consent: bool | None
    due_at: int | None
    due_in: float | None
    trigger_at: int | None
    trigger_age: float | None
    gates: tuple[tuple[str, str], ...]  # (gate, who or what set it)
    against: tuple[str, ...]  # negative FIT signals that the record itself shows


def read_facts(lead: Fields, enriched: Fields | None, profile: Profile) -> Facts:
    """The facts of one lead; its own values go before enriched ones. Never raises on bad values."""
    lead = merged(lead, enriched)
    get, raw = lead.get, contact.gather(lead, profile)
    distance, by_zip = _distance(lead, raw, profile)
    dialable, domain = contact.phone(raw), contact.domain(raw)
    phone, email, consent = flag(get("phone_valid")), flag(get("email_deliverable")), flag(get("consent"))
    free_mail, due_at, trigger_at = flag(get("email_free_mail")), instant(get("due_at")), instant(get("trigger_at"))
    budget, area = _positive(get("budget_ratio")), _positive(get("area_income_ratio"))
    return Facts(
        industry=_choice(get("industry_match"), _INDUSTRIES) or contact.industry(raw, profile),
        distance=distance,
        by_zip=by_zip,
        territory=_choice(get("territory"), profile.location.territory) or contact.territory(raw, profile),
        budget_ratio=budget if budget is not None else contact.budget_ratio(raw, profile),
        area_ratio=area if area is not None else contact.area_ratio(raw, profile),
        authority=_choice(get("authority"), profile.authority.points) or contact.authority(raw, profile),
        need=_choice(get("need"), profile.need.points) or contact.need(raw, profile),
        phone=phone if phone is not None else dialable,
        email=email if email is not None else contact.email(raw, lead, domain, profile),
        free_mail=free_mail if free_mail is not None else domain in profile.reachability.free_domains,
        consent=consent if consent is not None else contact.consent(raw, lead, profile),
        due_at=due_at if due_at is not None else contact.due_at(raw, lead, profile),
        due_in=number(get("due_in_days")),
        trigger_at=trigger_at if trigger_at is not None else contact.trigger_at(raw, lead, profile),
        trigger_age=number(get("trigger_age_days")),
        gates=_gates(lead, raw, distance, profile),
        against=_against(lead, dialable, domain, profile),
    )


def merged(lead: object, enriched: object) -> Fields:
    """One record of both; what is no record counts as empty."""
    own: Fields = lead if isinstance(lead, Mapping) else {}
    if not isinstance(enriched, Mapping) or not enriched:
        return own
    return {**enriched, **{name: value for name, value in own.items() if value is not None}}


def _choice(value: object, known: Container[str]) -> str | None:
    if not isinstance(value, str):
        return None
    if value in known:
        return value
    word = text(value)
    if word in known:
        return word
    return "other" if word in _NOTHING else None


def _positive(value: object) -> float | None:
    if value is None:
        return None
    found = number(value)
    return found if found is not None and found >= 0 else None


def _distance(lead: Fields, raw: Fields, profile: Profile) -> tuple[float | None, bool]:
    found = _positive(lead.get("distance_miles"))
    if found is not None:
        return found, lead.get("distance_precision") == "zip"
    return contact.distance(raw, profile)


def _gates(lead: Fields, raw: Fields, distance: float | None, profile: Profile) -> tuple[tuple[str, str], ...]:
    """The first that sets a gate names it: a person's field, a tag, then what follows from other facts."""
    gates = profile.gates
    found: dict[str, str] = {}
    if not lead.keys().isdisjoint(gates.names):
        found = {name: by for name in sorted(gates.names) if (by := _set_by(lead.get(name)))}
    if gates.tags and (tags := contact.tags(raw)):
        for name, known in gates.tags.items():
            if shared := known & tags:
                found.setdefault(name, f"tag {min(shared)}")
    if contact.do_not_disturb(raw, lead, profile) and "do_not_contact" in gates.names:
        found.setdefault("do_not_contact", "the CRM's do-not-disturb")
    if distance is not None and 0 < gates.served_miles < distance and "outside_area" in gates.names:
        found.setdefault("outside_area", f"{distance:g} miles away")
    return tuple(found.items())


def _set_by(value: object) -> str:
    """Who or what set a gate; empty where it is not set. An unclear text closes it: silence is the safe side."""
    if value is None or value is False:
        return ""
    if isinstance(value, Mapping):
        return shown(value.get("by")) or "the record"
    if isinstance(value, str) and value.strip() and flag(value) is None:
        return shown(value) or "the record"
    return "the record" if flag(value) else ""


def shown(value: object) -> str:
    """A foreign text that may stand in a message: one line, letters and plain signs, short."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value[:80] if c.isalnum() or c in " .,:+@#/-_").strip()[:60]


def _against(lead: Fields, dialable: bool | None, domain: str, profile: Profile) -> tuple[str, ...]:
    """What the record itself shows; a checked fact (``phone_valid``) goes before the look of the field."""
    found: list[str] = []
    if not lead.keys().isdisjoint(profile.against_fit):
        found = [name for name in sorted(profile.against_fit) if flag(lead.get(name))]
    if domain in profile.reachability.disposable_domains and lead.get("email_deliverable") is None:
        found.append("disposable_email")
    if dialable is False and lead.get("phone_valid") is None:
        found.append("invalid_phone")
    return tuple(name for name in dict.fromkeys(found) if name in profile.kinds) if found else ()
