"""Rows of the queue that nobody knows of are found again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from circuit_script.events import dispatch
from tests.road import SCORE, Road, contact, happens, open_road


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def test_a_row_below_low_water_runs_after_a_start(road: Road) -> None:
    await road.take_in(contact("c1"))
    await road.run("UPDATE circuit.lanes SET low_water = 1000000")
    worker = await road.start()
    await road.done()
    assert worker.children.handled == ["c1"]


async def test_a_row_whose_id_was_given_out_before_is_found_while_work_goes_on(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that lacks the latest commits is promoted: its sequence stands where it stood then."""
    monkeypatch.setattr(dispatch, "RESCUE", 0.0)
    await road.run("SELECT setval('circuit.event_ids', 1000)")
    worker = await road.start(lease=1.0)
    await road.take_in(contact("c1"))
    await road.done()
    await road.until("SELECT min(low_water) > 1000 FROM circuit.lanes", [True])
    await road.run("SELECT setval('circuit.event_ids', 500)")
    await road.take_in(contact("c2"), contact("c2", "afterUpdate"))
    await road.done()
    assert worker.children.handled == ["c1", "c2", "c2"]
    await happens(lambda: len(worker.dispatcher.backlog) == 0, "nothing is left in memory")
