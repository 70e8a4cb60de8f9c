"""The demo's app: lead scoring on a CRM outside, and one trigger that two of the contacts break."""

from __future__ import annotations

import json
from pathlib import Path

from circuit_script.cli import init
from circuit_script.cli.demo.desk import LOCATION, WINDOW, Desk
from circuit_script.cli.demo.traffic import ENDLESS, RAISES

ATTEMPTS = 2

TRIGGERS = f'''"""What happens when something happens."""

import json

from circuit_script import CircuitDB, CircuitTrigger, Limits, send_webhook, trigger
from circuit_script.agents import VirtualLPR
from circuit_script.agents.virtual_lpr.agent import profile_of
from circuit_script.agents.virtual_lpr.inbox import with_signal
from circuit_script.agents.virtual_lpr.replies import classify_appointment, classify_message


class Scoring(CircuitTrigger):
    @trigger("Contact", ["afterInsert", "afterUpdate"], share_child=True)
    async def score_contacts(self, context):
        """Score who is new or has changed, and write the score back to GoHighLevel."""
        await keep_scores([(contact, contact) for contact in context.new_records])

    @trigger("Message", ["afterInsert"], share_child=True)
    @trigger("Appointment", ["afterInsert"], share_child=True)
    async def score_signals(self, context):
        """A message, a call, a booking: something about a contact that is read from GoHighLevel, and scored anew."""
        said = []
        for record in context.new_records:
            if context.object == "Message":
                name = classify_message(record, profile_of(None))
            else:
                name = classify_appointment(record)
            if name and record.get("contactId"):
                said.append((record, name))
        contacts = await CircuitDB.get("Contact", [record["contactId"] for record, _ in said])
        scored = []
        for contact, (record, name) in zip(contacts, said):
            if contact is not None:
                signals = with_signal(contact.get("lpr_signals"), record, name, context.started_at)
                scored.append(({{**contact, "lpr_signals": json.dumps(signals)}}, record))
        await keep_scores(scored)


async def keep_scores(scored):
    """GoHighLevel's fields hold text and numbers, so reasons and signals become text."""
    known = {{contact["id"]: (contact, record) for contact, record in scored}}
    updates = []
    for row in VirtualLPR.score([contact for contact, _ in scored]):
        contact, record = known[row["id"]]
        row["lpr_reasons"] = " · ".join(row["lpr_reasons"][:3])
        if contact.get("lpr_signals"):
            row["lpr_signals"] = contact["lpr_signals"]
        updates.append(row)
        if row["lpr_band"] == "hot" and contact.get("lpr_band") != "hot":
            await send_webhook("alerts", {{"lead": contact["name"], "score": row["lpr_score"]}}, record=record)
    if updates:
        await CircuitDB.update("Contact", updates)


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
