"""Where deliveries come from: one file per vendor's signature and shape, and ``verify`` for what they share."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.github import GitHub
from circuit_script.events.sources.gohighlevel import GoHighLevel
from circuit_script.events.sources.google import Google
from circuit_script.events.sources.hubspot import HubSpot
from circuit_script.events.sources.linkedin import LinkedIn
from circuit_script.events.sources.meta import Meta
from circuit_script.events.sources.own import Hmac
from circuit_script.events.sources.resend import Resend
from circuit_script.events.sources.salesforce import Salesforce
from circuit_script.events.sources.slack import Slack
from circuit_script.events.sources.source import EventDraft, Parsed, Reason, Reply, Request, Source
from circuit_script.events.sources.standard import Standard
from circuit_script.events.sources.stripe import Stripe
from circuit_script.events.sources.twilio import Twilio
from circuit_script.events.sources.vapi import Vapi

__all__ = ["SOURCES", "EventDraft", "Parsed", "Reason", "Reply", "Request", "Source", "open_sources"]

SOURCES: dict[str, type[Source]] = {
    each.name: each
    for each in (
        GoHighLevel,
        Salesforce,
        HubSpot,
        Twilio,
        Vapi,
        Resend,
        Slack,
        Google,
        GitHub,
        Meta,
        Stripe,
        LinkedIn,
        Hmac,
        Standard,
    )
}


def open_sources(settings: SourceSettings) -> dict[str, Source]:
    """Every source by its name, with its keys. Raises ConfigError for a key that is none."""
    return {name: source.from_settings(settings) for name, source in SOURCES.items()}
