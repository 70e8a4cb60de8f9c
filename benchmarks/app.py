"""The benchmark's apps for Circuit Script: the contestants' common handler, on the public API only."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import scoring

SCORING = """
from circuit_script import CircuitDB, trigger

from app.scoring import score


@trigger("Contact", ["afterInsert"], batch_size={batch}, share_child=True)
async def score_contacts(context):
    await CircuitDB.update("Contact", [score(contact) for contact in context.new_records])
"""

# Handles nothing that arrives: the road ends at the ledger.
INTAKE = """
from circuit_script import trigger


@trigger("Nothing", ["afterInsert"])
async def wait_for_nothing(context):
    pass
"""

# One row per event, so that what was lost, doubled or overtaken can be counted.
TALLY = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=50)
async def tally(context):
    for contact in context.new_records:
        async with context.record(contact):
            await CircuitDB.insert("Tally", {"contact": contact["id"], "step": contact["step"]})
"""

Tenants = Mapping[str, Sequence[str]]


def scaffold(folder: Path, *, triggers: str, port: int, public_key: str, tenants: Tenants | None = None) -> Path:
    """An app in ``folder``; ``tenants`` maps a tenant to its GoHighLevel locations."""
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__init__.py").write_text("")
    (folder / "app" / "scoring.py").write_text(inspect.getsource(scoring))
    (folder / "app" / "triggers.py").write_text(triggers)
    lines = [
        'objects = ["Nothing"]',
        "[gateway]",
        f"port = {port}",
        "max_waiting = 1000000",
        "[worker]",
        "children = 2",
        "[sources.gohighlevel]",
        f"public_key = {json.dumps(public_key)}",
    ]
    if tenants:
        lines.append("[tenants]")
        lines += [f"{name} = {{ gohighlevel = {json.dumps(list(ids))} }}" for name, ids in tenants.items()]
    (folder / "circuit.toml").write_text("\n".join(lines) + "\n")
    return folder
