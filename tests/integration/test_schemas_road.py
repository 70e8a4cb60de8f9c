"""A record that does not fit its schema is a dead letter at once, and the others go on."""

from __future__ import annotations

import pytest

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Hint, Outcome, Succeeded, Work
from circuit_script.execution.retries import UNFIT
from tests.road import contact, open_road, places

REASON = "SchemaRefused: Contact: budget must be a whole number, and is a text"


@pytest.mark.parametrize("batch", ["each", "all-or-none"])
async def test_it_is_tried_no_more(database: str, batch: str) -> None:
    async def partly(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c1"])
        return Succeeded(broker.usage, dict.fromkeys(bad, REASON), hints=dict.fromkeys(bad, Hint((UNFIT,))))

    async with open_road(database) as road:
        await road.live(HandlerSpec("look", (("Contact", "afterInsert"),), batch=batch))
        await road.take_in(contact("c0"), contact("c1"), contact("c2"))
        await road.start(partly, attempts=9, backoff=3600.0)
        await road.done()
        letters = await road.rows("SELECT record, attempts, reason FROM circuit.dead_letters ORDER BY record")
    if batch == "each":
        assert letters == [("c1", 1, REASON)]
    else:
        assert [(record, attempts) for record, attempts, _ in letters] == [("c0", 1), ("c1", 1), ("c2", 1)]
