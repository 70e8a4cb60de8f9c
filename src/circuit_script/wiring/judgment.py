"""Settings → the Judgment Protocol, and what screens records with it."""

from __future__ import annotations

from circuit_script.config import Settings
from circuit_script.events.screening import Screen
from circuit_script.judgment import JudgmentProtocol, policy_of


def make_protocol(settings: Settings) -> JudgmentProtocol | None:
    """The protocol with the app's policy; None where nothing is judged."""
    policy = policy_of(settings.judgment)
    return None if policy is None else JudgmentProtocol(policy)


def make_screen(protocol: JudgmentProtocol | None, settings: Settings) -> Screen | None:
    """What judges records before a handler sees them; None where they are not judged."""
    return Screen(protocol) if protocol is not None and settings.judgment.records else None


def warm(settings: Settings) -> None:
    """Read patterns and weights before the first text comes: that takes a second."""
    if (protocol := make_protocol(settings)) is not None:
        protocol.judge("a first look")
