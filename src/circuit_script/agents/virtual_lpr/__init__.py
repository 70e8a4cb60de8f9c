"""Virtual LPR: who is worth a call now, and why. Pure scoring; the trigger is in ``trigger``."""

from __future__ import annotations

from circuit_script.agents.virtual_lpr.agent import VirtualLPR
from circuit_script.agents.virtual_lpr.explain import Change
from circuit_script.agents.virtual_lpr.profile import Profile, ProfileError
from circuit_script.agents.virtual_lpr.profile_file import PRESETS, load_profile
from circuit_script.agents.virtual_lpr.reasons import Evidence, Reason
from circuit_script.agents.virtual_lpr.score import LeadScore, Part

__all__ = [
    "PRESETS",
    "Change",
    "Evidence",
    "LeadScore",
    "Part",
    "Profile",
    "ProfileError",
    "Reason",
    "VirtualLPR",
    "load_profile",
]
