"""New signals, added to those that a contact carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.agents.virtual_lpr.profile import SECOND
from circuit_script.agents.virtual_lpr.reading import instant, moment
from circuit_script.agents.virtual_lpr.signals import rows_of, signal_id

NEWEST = 200


def with_signal(stored: object, record: Mapping[str, Any], name: str, now: float) -> list[Any]:
    """The newest signals with the one of this message or appointment, once. A vendor's clock that runs ahead
    of ours does not date it into the future."""
    signals = list(rows_of(stored))
    identifier = signal_id(record)
    if identifier and any(signal_id(signal) == identifier for signal in signals):
        return signals
    given, present = instant(record.get("dateAdded")), round(now * SECOND)
    at = min(given, present) if given is not None else present
    signals.append({"id": identifier, "type": name, "at": moment(at).isoformat(), "confidence": 1})
    signals.sort(key=_age)
    return signals[-NEWEST:]


def _age(signal: object) -> int:
    return (instant(signal.get("at")) or 0) if isinstance(signal, Mapping) else 0
