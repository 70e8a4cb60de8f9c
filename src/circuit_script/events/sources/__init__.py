"""Where deliveries come from: one file per vendor's signature and shape."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.gohighlevel import GoHighLevel
from circuit_script.events.sources.source import EventDraft, Parsed, Reason, Source
from circuit_script.events.sources.standard import Standard

__all__ = ["SOURCES", "EventDraft", "Parsed", "Reason", "Source", "open_sources"]

SOURCES: dict[str, type[GoHighLevel] | type[Standard]] = {
    GoHighLevel.name: GoHighLevel,
    Standard.name: Standard,
}


def open_sources(settings: SourceSettings) -> dict[str, Source]:
    """Every source by its name, with its keys. Raises ConfigError for a key that is none."""
    return {name: source.from_settings(settings) for name, source in SOURCES.items()}
