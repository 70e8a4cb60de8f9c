"""`kill -9` of a worker after a checkpoint: what was behind it is done, and only the rest runs again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from uuid import UUID

import pytest

from tests.acceptance.platform import Platform, served
from tests.acceptance.vendor import Load, contact_stream, make_vendor
from tests.servers import Server, until

CONTACTS = 60

# Waits until many events are there, so that one batch holds several; the first of these hangs behind its checkpoint.
HALF = """
import asyncio
import json
from pathlib import Path

from circuit_script import CircuitDB, trigger

HERE = Path(__file__).parent


@trigger("Contact", ["afterInsert"])
async def tally(context):
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    for record in context.new_records:
        async with context.record(record):
            await CircuitDB.insert("Tally", {"contact": record.id, "execution": str(context.execution_id)})
    if len(context.new_records) > 4 and not (HERE / "reached").exists():
        await context.checkpoint(upto=context.new_records[2])
        done = [record.id for record in context.new_records[:3]]
        (HERE / "part").write_text(json.dumps({"execution": str(context.execution_id), "done": done}))
        (HERE / "part").rename(HERE / "reached")
        await asyncio.Event().wait()
"""


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with served(embedded_server, HALF, public_key=make_vendor().public_key) as started:
        yield started


def test_a_worker_killed_after_a_checkpoint_runs_only_the_rest_again(platform: Platform, chance: random.Random) -> None:
    vendor = make_vendor()
    vendor.random.seed(chance.random())
    reached = platform.folder / "app" / "reached"
    with Load(platform.port, [contact_stream(vendor, 1) for _ in range(CONTACTS)]) as load:
        load.wait_for(1.0)
    (platform.folder / "app" / "go").touch()
    until(reached.exists, "a handler is behind its checkpoint", 30)
    platform.one("worker").kill()
    platform.wait_settled()

    first = json.loads(reached.read_text())
    tally = platform.rows("SELECT data->>'contact', data->>'execution' FROM circuit.records WHERE object = 'Tally'")
    assert len(tally) == len(dict(tally)) == CONTACTS, "each contact was written once"
    assert sorted(contact for contact, execution in tally if execution == first["execution"]) == sorted(first["done"])
    assert platform.value("SELECT status FROM circuit.executions WHERE id = %s", UUID(first["execution"])) == "partial"
    outcomes = platform.rows("SELECT status, count(*), count(DISTINCT delivery) FROM circuit.outcomes GROUP BY 1")
    assert outcomes == [("succeeded", CONTACTS, CONTACTS)]
