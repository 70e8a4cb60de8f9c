"""The Judgment Protocol: judges untrusted texts before a model or a handler sees them.

What is exported is imported when it is first asked for: a child needs verdicts and `Untrusted`, and none of the levels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuit_script.judgment.configured import policy_of
    from circuit_script.judgment.policy import OFF, PRESETS, Allowed, Policy, Thresholds, digest_of
    from circuit_script.judgment.protocol import LEVELS, JudgmentProtocol, Level, judge
    from circuit_script.judgment.residue import masked
    from circuit_script.judgment.untrusted import Untrusted, fence, prompt
    from circuit_script.judgment.verdict import Action, Finding, Verdict

__all__ = [
    "LEVELS",
    "OFF",
    "PRESETS",
    "Action",
    "Allowed",
    "Finding",
    "JudgmentProtocol",
    "Level",
    "Policy",
    "Thresholds",
    "Untrusted",
    "Verdict",
    "digest_of",
    "fence",
    "judge",
    "masked",
    "policy_of",
    "prompt",
]
_OF = {
    "configured": ("policy_of",),
    "policy": ("OFF", "PRESETS", "Allowed", "Policy", "Thresholds", "digest_of"),
    "protocol": ("LEVELS", "JudgmentProtocol", "Level", "judge"),
    "residue": ("masked",),
    "untrusted": ("Untrusted", "fence", "prompt"),
    "verdict": ("Action", "Finding", "Verdict"),
}
_WHERE = {name: module for module, names in _OF.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
