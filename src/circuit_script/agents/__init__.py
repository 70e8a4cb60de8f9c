"""The bundled agents, written only against the public API. Importing them starts nothing: an agent's trigger
runs in an app that imports it, for example ``from circuit_script.agents.virtual_lpr.trigger import LeadScoring``.
"""

from __future__ import annotations

from circuit_script.agents.virtual_lpr import (
    LeadScore,
    Profile,
    ProfileError,
    VirtualLPR,
    load_profile,
)

__all__ = ["LeadScore", "Profile", "ProfileError", "VirtualLPR", "load_profile"]
