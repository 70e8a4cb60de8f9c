"""What a reply or a call says, by rule words; what no rule knows stays neutral."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from circuit_script.agents.virtual_lpr.profile import Profile
from circuit_script.agents.virtual_lpr.reading import has_phrase, number, text

TALK = 60  # seconds from which on a call counts as one
_TAG = re.compile(r"<[^<>]{0,500}>")
_QUOTED = re.compile(r"(?m)^>.*$")
_SIGNALS = (  # rule → signal; the first rule whose words stand in the reply decides
    ("stop_all", "do_not_contact"),
    ("automatic", ""),
    ("not_now", "stated_not_now"),
    ("no", "not_interested_reply"),
    ("price", "price_question"),
    ("person", "asked_for_person"),
    ("yes", "positive_reply"),
)


def classify_reply(body: object, profile: Profile) -> str:
    """The signal that a text stands for; empty for an automatic answer or no text at all.

    STOP and START count only where they are the whole message: "stop by on Friday" is no refusal.
    """
    said = text(_QUOTED.sub(" ", _TAG.sub(" ", body[:20_000])) if isinstance(body, str) else None)
    if not said:
        return ""
    whole = said.strip(" .!?,;:\"'")
    if whole in profile.replies["stop"]:
        return "unsubscribed"
    if whole in profile.replies["start"]:
        return "opted_in"
    for rule, signal in _SIGNALS:
        if any(_says(said, whole, phrase) for phrase in profile.replies[rule]):
            return signal
    return "neutral_reply"


def _says(said: str, whole: str, phrase: str) -> bool:
    """A word as short as "no" or "si" must open the message or be all of it; longer ones may stand anywhere."""
    if len(phrase) <= 3:
        return whole == phrase or said.startswith((f"{phrase},", f"{phrase}.", f"{phrase}!"))
    return has_phrase(said, phrase)


def classify_call(message: Mapping[str, Any]) -> str:
    """A call of a minute or more, or one that nobody took; a short answered call says nothing."""
    seconds = number(message.get("callDuration")) or 0.0
    if seconds >= TALK:
        return "inbound_call"
    answered = text(message.get("callStatus") or message.get("status")) in ("completed", "answered")
    return "" if answered and seconds > 0 else "missed_inbound_call"


def classify_message(message: Mapping[str, Any], profile: Profile) -> str:
    """The signal of a message of the CRM; empty unless the lead sent it and it says something."""
    if text(message.get("direction")) != "inbound":
        return ""
    if text(message.get("messageType")) in ("call", "voicemail"):
        return classify_call(message)
    return classify_reply(message.get("body"), profile)


def classify_appointment(appointment: Mapping[str, Any]) -> str:
    """A booking, unless it was called off; a no-show counts against the lead."""
    match text(appointment.get("appointmentStatus")).replace("-", "").replace("_", "").replace(" ", ""):
        case "cancelled" | "canceled" | "invalid":
            return ""
        case "noshow":
            return "no_show"
        case _:
            return "appointment_booked"
