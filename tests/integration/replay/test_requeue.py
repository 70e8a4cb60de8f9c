"""Past events put back on the queue: with what their handler is given, and what they must not undo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import ReplayRefused
from circuit_script.events.requeue import Past, requeue
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from tests.road import SCORE, Incoming, Road, contact, open_road

OTHER = HandlerSpec("other", (("Contact", "afterUpdate"),))
QUEUE = "SELECT count(*) FROM circuit.queue"


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def put_back(road: Road, *past: Past, **options: Any) -> list[int]:
    async with road.pool.connection() as connection:
        return await requeue(connection, past, by="ann", **options)


@pytest.mark.every_server
async def test_the_handler_gets_the_current_state_and_what_arrived_then(road: Road) -> None:
    worker = await road.start()
    (delivery,) = await road.take_in(contact("1", "afterUpdate", name="Ann", city="Rome"))
    await road.done()
    await road.take_in(contact("1", "afterUpdate", name="Anna"))
    await road.done()

    (id_,) = await put_back(road, Past(delivery, 0, road.handler("score")))
    await road.done()

    work = worker.children.works[-1]
    assert work.records == [{"id": "1", "name": "Anna", "city": "Rome"}]
    (event,) = work.events
    assert event["original"] == {"id": "1", "name": "Ann", "city": "Rome"}
    assert event["replay"] is None
    assert event["attempt"] == 1
    assert event["id"] < id_
    assert await road.record("1") == {"id": "1", "name": "Anna", "city": "Rome"}
    kept = "SELECT past < id, by_whom FROM circuit.requeued WHERE id = %s"
    assert await road.rows(kept, id_) == [(True, "ann")]


async def test_an_old_event_brings_no_record_back(road: Road) -> None:
    worker = await road.start()
    (delivery,) = await road.take_in(contact("1", name="Ann"))
    await road.take_in(contact("1", "afterDelete"))
    await road.done()
    ran = len(worker.children.works)

    await put_back(road, Past(delivery, 0, road.handler("score")))
    await road.done()

    assert len(worker.children.works) == ran
    assert await road.record("1") is None
    reasons = await road.rows("SELECT reason FROM circuit.dead_letters")
    assert ["deleted since" in reason for reason in reasons] == [True]


async def test_what_is_put_back_keeps_order_with_what_arrives(road: Road) -> None:
    (delivery,) = await road.take_in(contact("1", n=1))
    worker = await road.start()
    await road.done()
    await worker.stop()
    await road.take_in(contact("1", "afterUpdate", n=2))
    await put_back(road, Past(delivery, 0, road.handler("score")))
    await road.take_in(contact("1", "afterUpdate", n=3))

    later = await road.start()
    await road.done()

    # The second knows nothing yet of what arrived after it, though it ran behind it.
    assert [work.records[0]["n"] for work in later.children.works] == [2, 2, 3]
    assert ["original" in work.events[0] for work in later.children.works] == [False, True, False]
    assert (await road.record("1") or {})["n"] == 3


async def test_one_event_goes_back_for_each_of_several_handlers(road: Road) -> None:
    await road.live(SCORE, OTHER)
    (delivery,) = await road.take_in(contact("1", "afterUpdate"))
    worker = await road.start()
    await road.done()
    handlers = [road.handler("score"), road.handler("other")]

    ids = await put_back(road, *(Past(delivery, 0, each) for each in handlers))
    await road.done()

    assert len(set(ids)) == 2
    assert sorted(work.handler for work in worker.children.works) == ["other", "other", "score", "score"]


async def test_what_was_unrouted_counts_as_handled(road: Road) -> None:
    (delivery,) = await road.take_in(Incoming("7", object="Invoice"))
    assert await road.rows("SELECT handled FROM circuit.events") == [0]
    await road.live(SCORE, HandlerSpec("invoices", (("Invoice", "afterInsert"),)))
    worker = await road.start()

    await put_back(road, Past(delivery, 0, road.handler("invoices")))
    await road.done()

    assert worker.children.handled == ["7"]
    assert await road.rows("SELECT handled FROM circuit.events") == [1]


async def test_what_nobody_owned_gets_its_owner(road: Road) -> None:
    (delivery,) = await road.take_in(contact("1", name="Ann"))
    await road.run("DELETE FROM circuit.queue")
    await road.run("UPDATE circuit.events SET tenant = NULL")
    await road.run("UPDATE circuit.deliveries SET tenant = NULL")
    with pytest.raises(ReplayRefused, match="belongs to no tenant"):
        await put_back(road, Past(delivery, 0, road.handler("score")))
    worker = await road.start()

    await put_back(road, Past(delivery, 0, road.handler("score"), "zoe"))
    await road.done()

    assert [work.tenant for work in worker.children.works] == ["zoe"]
    assert await road.record("1", tenant="zoe") == {"id": "1", "name": "Ann"}
    owners = "SELECT d.tenant, e.tenant FROM circuit.deliveries d JOIN circuit.events e ON e.delivery = d.id"
    assert await road.rows(owners) == [("zoe", "zoe")]


async def test_all_or_none_where_one_has_left_the_ledger(road: Road) -> None:
    (delivery,) = await road.take_in(contact("1"))
    await road.start()
    await road.done()

    with pytest.raises(ReplayRefused, match="no longer in the ledger"):
        await put_back(road, Past(delivery, 0, road.handler("score")), Past(uuid7(), 0, road.handler("score")))

    assert await road.rows(QUEUE) == [0]


async def test_replies_that_were_paid_for_are_found_again_also_the_second_time(road: Road) -> None:
    (delivery,) = await road.take_in(contact("1"))
    handler = road.handler("score")
    (first,) = await road.rows("SELECT id FROM circuit.queue")
    await road.run("DELETE FROM circuit.queue")
    keep = "INSERT INTO circuit.journal (event, handler, key, tenant, reply) VALUES (%s, %s, %s, 'acme', %s)"
    await road.run(keep, first, handler, b"a", b"1")

    (second,) = await put_back(road, Past(delivery, 0, handler), journal=True)
    await road.run(keep, second, handler, b"b", b"2")
    (third,) = await put_back(road, Past(delivery, 0, handler), journal=True)
    (fourth,) = await put_back(road, Past(delivery, 0, handler))

    replies = "SELECT key FROM circuit.journal WHERE event = %s ORDER BY key"
    assert await road.rows(replies, second) == [b"a", b"b"]
    assert await road.rows(replies, third) == [b"a", b"b"]
    assert await road.rows(replies, fourth) == []


async def test_what_is_put_back_is_as_deep_as_it_was(road: Road) -> None:
    async def deep(work: Work, broker: ExecutionBroker) -> Outcome:
        return Succeeded(Usage(depth=work.depth))

    await road.start(deep)
    (delivery,) = await road.take_in(contact("1"))
    await road.run("UPDATE circuit.queue SET depth = 0")
    await road.done()
    await road.run("""UPDATE circuit.executions SET usage = usage || '{"depth": 5}'""")
    await road.close_workers()

    await put_back(road, Past(delivery, 0, road.handler("score")))

    assert await road.rows("SELECT depth FROM circuit.queue") == [4]


async def test_a_sleeping_worker_is_told(road: Road) -> None:
    worker = await road.start()
    (delivery,) = await road.take_in(contact("1"))
    await road.done()
    await road.until("SELECT asleep FROM circuit.workers", [True])
    await worker.stop()
    await road.run("INSERT INTO circuit.workers (id, host, pid, expires_at, asleep) "
                   "VALUES (gen_random_uuid(), 'h', 1, now() + interval '1 hour', true)")  # fmt: skip
    listener = await road.connect()
    try:
        await listener.execute("LISTEN circuit_queue")
        await put_back(road, Past(delivery, 0, road.handler("score")))
        async with asyncio.timeout(30):
            async for notice in listener.notifies():
                assert notice.channel == "circuit_queue"
                break
    finally:
        await listener.close()


async def test_nothing_to_put_back_costs_nothing(road: Road) -> None:
    assert await put_back(road) == []
