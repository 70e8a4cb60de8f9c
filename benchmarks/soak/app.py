"""The app of the soak, and the deliveries it gets: most go well, some fail at first, some for good, one breaches."""

from __future__ import annotations

from pathlib import Path

from benchmarks import app
from benchmarks.bench import PATH
from benchmarks.load import request
from benchmarks.processes import free_port
from circuit_script.cli.demo.vendor import Vendor

LOCATION = "soakLocation00000001"
TRIGGERS = """
from circuit_script import CircuitDB, send_webhook, trigger

from app.scoring import score


@trigger("Contact", ["afterInsert"], batch_size=50, limits={"memory": 200_000_000})
async def handle(context):
    for contact, event in zip(context.new_records, context.events):
        async with context.record(contact):
            await CircuitDB.update("Contact", [score(contact)])
            await send_webhook("hooks", {"contact": contact["id"]})
            fault = contact.get("fault")
            if fault == "always" or (fault == "once" and event["attempt"] == 1):
                raise ValueError("a failure that was asked for")
            if fault == "memory" and event["attempt"] == 1:
                bytearray(400_000_000)
"""
FAULTS = {0: "once", 33: "once", 66: "always", 99: "memory"}  # of a hundred deliveries


def scaffold(folder: Path, public_key: str, receiver: int) -> int:
    """The app; the port of its gateway."""
    port = free_port()
    app.scaffold(folder, triggers=TRIGGERS, port=port, public_key=public_key)
    config = folder / "circuit.toml"
    more = f'[addresses.hooks]\nurl = "http://127.0.0.1:{receiver}/"\n'
    config.write_text(config.read_text().replace("children = 2", "children = 2\nattempts = 3\nbackoff = 0.2") + more)
    return port


def requests(vendor: Vendor, count: int) -> list[bytes]:
    """Signed deliveries of new contacts; four of a hundred have a fault."""
    made = []
    for number in range(count):
        contact = vendor.contact()
        if fault := FAULTS.get(number % 100):
            contact["customFields"] = [*contact["customFields"], {"id": "fault", "value": fault}]
        signed = vendor.webhook({"type": "ContactCreate", **contact})
        made.append(request(PATH, signed.headers, signed.body))
    return made
