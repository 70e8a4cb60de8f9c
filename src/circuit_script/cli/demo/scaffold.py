"""The demo's app: lead scoring on a CRM outside, and one trigger that two of the contacts break."""

from __future__ import annotations

import json
from pathlib import Path

from circuit_script.cli import init
from circuit_script.cli.demo.desk import LOCATION, WINDOW, Desk
from circuit_script.cli.demo.traffic import ENDLESS, RAISES

ATTEMPTS = 2

TRIGGERS = f'''"""What happens when something happens."""

from circuit_script import CircuitTrigger, Limits, trigger
from circuit_script.agents.virtual_lpr.trigger import LeadScoring


class Welcome(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], limits=Limits(wall_time=1))
    async def greet(self, context):
        """Works for everybody but two, so that you can see what happens then."""
        for contact in context.new_records:
            async with context.record(contact):
                if contact["firstName"] == "{RAISES}":
                    raise ValueError("this contact cannot be greeted")
                while contact["firstName"] == "{ENDLESS}":
                    pass
'''

PROFILE = """# What makes a good lead of this gym. Everything that is not said here is as in the preset.
extends = "local_service"
name = "demo gym"

# GoHighLevel has the form's fields under keys of its own.
[fields]
title = ["jobtitle"]

[alert]
address = "alerts"

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
"""

CONFIG = """[gateway]
port = {port}

[worker]
children = 2
attempts = {attempts}
backoff = 0.5

# Records live in GoHighLevel: here a stand-in on this machine. Its token is in CIRCUIT_SECRET_GOHIGHLEVEL_TOKEN.
[crm]
home = "gohighlevel"

[connectors.gohighlevel]
url = {crm}
account = {location}

# The vendor's 100 requests in 10 seconds, with the demo's clock.
[connectors.gohighlevel.rates]
update = {{ calls = 96, seconds = {window}, burst = 4, of = "connector" }}

# The throwaway key with which the stand-in signs its webhooks.
[sources.gohighlevel]
public_key = {public_key}

# Where the alerts about hot leads go: a receiver inside the demo.
[addresses.alerts]
url = "http://127.0.0.1:{alerts_port}/alerts"
"""


def scaffold(folder: Path, *, port: int, alerts_port: int, desk: Desk) -> Path:
    """Write the demo's app into ``folder``."""
    config = CONFIG.format(
        port=port, alerts_port=alerts_port, attempts=ATTEMPTS, public_key=json.dumps(desk.public_key),
        crm=json.dumps(desk.url), location=json.dumps(LOCATION), window=WINDOW,
    )  # fmt: skip
    others: dict[str, str | None] = dict.fromkeys(
        ("app/endpoints.py", "tests/test_triggers.py", "tests/test_endpoints.py")
    )
    files = others | {"app/triggers.py": TRIGGERS, "circuit.toml": config, "lpr.toml": PROFILE}
    return init.scaffold(folder, files)
