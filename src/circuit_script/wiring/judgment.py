"""Settings → the Judgment Protocol, and what screens records with it."""

from __future__ import annotations

import os

import structlog

from circuit_script.config import Settings
from circuit_script.events.screening import Screen
from circuit_script.judgment import JudgmentProtocol, policy_of

log = structlog.get_logger()


def make_protocol(settings: Settings) -> JudgmentProtocol | None:
    """The protocol with the app's policy; None where nothing is judged."""
    policy = policy_of(settings.judgment)
    return None if policy is None else JudgmentProtocol(policy)


def make_screen(protocol: JudgmentProtocol | None, settings: Settings) -> Screen | None:
    """What judges records before a handler sees it; None where they are not judged."""
    return Screen(protocol) if protocol is not None and judges_records(settings) else None


def judges_records(settings: Settings) -> bool:
    """Whether records are judged. By itself that is where a model could be told to do what stands in them."""
    records = settings.judgment.records
    return has_models(settings) if records == "auto" else records


def has_models(settings: Settings) -> bool:
    """Whether the app can ask a model: a provider needs no key, or has one."""
    return any(not each.key_env or each.key_env in os.environ for each in settings.llm.providers.values())


def warm(settings: Settings) -> None:
    """Read patterns and weights where texts will be judged, before the first one: that takes a second, and memory."""
    if (judges_records(settings) or has_models(settings)) and (protocol := make_protocol(settings)) is not None:
        protocol.judge("a first look, déjà vu &amp; more")
        from circuit_script.judgment.compiled import COMPLETE

        if not COMPLETE:
            remedy = "with a C compiler and Python's headers there, install circuit-script again"
            log.warning("judgment.slow", why="its loops are not compiled from this source", next=remedy)
