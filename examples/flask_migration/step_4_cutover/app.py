"""The score of a lead as a trigger, which runs beside the old service until both agree."""

import re

from circuit_script import Cancel, CircuitDB, trigger

SUSPICIOUS = re.compile(r"(ignore|forget).{0,40}instructions", re.IGNORECASE)


@trigger("Contact", ["afterInsert"])
async def score(context):
    """Was POST /score, is /webhooks/hmac/leads: up to 200 leads at once, and one write."""
    scored = []
    for lead in context.new_records:
        if SUSPICIOUS.search(lead.get("message", "")):
            context.add_error(lead, Cancel("text refused"))  # and not tried again
            continue
        points = 20
        if not lead.get("email", "").endswith(("@gmail.com", "@outlook.com")):
            points += 30
        if lead.get("seats", 0) >= 10:
            points += 40
        scored.append({"id": lead["id"], "score": points})
    await CircuitDB.update("Contact", scored)
