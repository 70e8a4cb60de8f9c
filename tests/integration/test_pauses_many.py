"""100,000 waiting rows of a paused trigger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from circuit_script.events.controls import Selection, cancel, found
from circuit_script.tenants.pauses import pause, resume
from tests.road import SCORE, Road, contact, happens, open_road

MANY = 100_000
FILL = """
INSERT INTO circuit.queue (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event, record)
SELECT n %% 64, nextval('circuit.event_ids'), %s, 0, n, circuit.uuid_floor(now() - n * interval '1 ms'), 'acme',
       'Contact', 'afterInsert', 'c' || n
FROM generate_series(1, %s) AS n
"""

pytestmark = pytest.mark.slow


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE, replace(SCORE, name="note"))
        async with made.pool.connection() as connection:
            await pause(connection, "trigger", "score", reason="a test", by="ada")
        await made.run(FILL, made.handler("score"), MANY)
        yield made


async def test_they_cost_nothing_and_keep_nothing_else_waiting(road: Road) -> None:
    worker = await road.start(look_ahead=200)
    await road.take_in(contact("d1"))

    await happens(lambda: worker.children.handled == ["d1"], "the other trigger starves")
    await happens(lambda: worker.dispatcher._asleep, "the reader does not rest")
    assert len(worker.dispatcher.backlog) == 0

    await worker.stop()
    again = await road.start(look_ahead=200)
    await road.take_in(contact("d2"))
    await happens(lambda: again.children.handled == ["d2"], "it starves after a restart")


async def test_they_are_cancelled_in_bounded_transactions_while_the_others_go_on(road: Road) -> None:
    worker = await road.start()
    told: list[int] = []
    async with road.pool.connection() as connection:
        meant = await found(connection, Selection("trigger", "score"))
        assert await cancel(connection, meant, reason="", by="ada", told=told.append) == MANY
        await resume(connection, "trigger", "score")
    await road.take_in(contact("d1"))
    await happens(
        lambda: sorted(work.handler for work in worker.children.works) == ["note", "score"], "it stands still"
    )

    assert [later - before for before, later in pairwise(told)] == [1000] * (MANY // 1000)
    await road.done()
