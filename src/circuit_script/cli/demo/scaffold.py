"""The demo's app: the bundled lead scoring, and one trigger that two of the contacts break."""

from __future__ import annotations

import json
from pathlib import Path

from circuit_script.cli import init
from circuit_script.cli.demo.traffic import ENDLESS, RAISES

ATTEMPTS = 2

TRIGGERS = f'''"""What happens when something happens."""

from circuit_script import CircuitTrigger, Limits, trigger
from circuit_script.agents.virtual_lpr.trigger import LeadScoring  # scores every contact, message and appointment

__all__ = ["LeadScoring", "Welcome"]


class Welcome(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], limits=Limits(wall_time=1))
    async def greet(self, context):
        """Works for everybody but two, so that you can see what happens then."""
        for contact in context.new_records:
            async with context.record(contact):
                if contact["id"] == "{RAISES}":
                    raise ValueError("this contact cannot be greeted")
                while contact["id"] == "{ENDLESS}":
                    pass
'''

PROFILE = """# What makes a good lead of this gym. Everything that is not said here is as in the preset.
extends = "local_service"
name = "demo gym"

[fit.company]
target_industries = ["families", "young professionals"]
adjacent_industries = ["seniors"]

[fit.location]
locations = [[32.787, -96.799]]

[fit.location.zip_centers]
"75201" = [32.788, -96.800]
"75205" = [32.838, -96.794]
"75061" = [32.827, -96.961]
"75040" = [32.928, -96.620]
"75023" = [33.056, -96.731]
"76102" = [32.757, -97.331]
"76201" = [33.229, -97.131]
"76701" = [31.552, -97.138]
"78701" = [30.271, -97.743]
"74103" = [36.156, -95.993]

[fit.finance]
requirement = 60

[fit.need]
services = ["membership", "personal training", "family plan", "yoga"]
related_services = ["physiotherapy"]

[alert]
address = "alerts"
"""

CONFIG = """[gateway]
port = {port}

[worker]
children = 2
attempts = {attempts}
backoff = 0.5

# The throwaway key that signs this demo's webhooks.
[sources.gohighlevel]
public_key = {public_key}

# Where the alerts about hot leads go: a receiver inside the demo.
[addresses.alerts]
url = "http://127.0.0.1:{alerts_port}/alerts"
"""


def scaffold(folder: Path, *, port: int, alerts_port: int, public_key: str) -> Path:
    """Write the demo's app into ``folder``."""
    config = CONFIG.format(port=port, alerts_port=alerts_port, attempts=ATTEMPTS, public_key=json.dumps(public_key))
    others: dict[str, str | None] = dict.fromkeys(
        ("app/endpoints.py", "tests/test_triggers.py", "tests/test_endpoints.py")
    )
    files = others | {"app/triggers.py": TRIGGERS, "circuit.toml": config, "lpr.toml": PROFILE}
    return init.scaffold(folder, files)
