"""A chain of executions of which each causes the next ends, whatever way it takes; nobody else's does."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from circuit_script.config import Address
from circuit_script.connectors import depth
from circuit_script.connectors.webhook import signature
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Limits
from tests.gateways import SECRET, running
from tests.road import Road, contact, open_road

ROUTES = (("Contact", "afterInsert"), ("Contact", "afterUpdate"))
TOO_DEEP = "limit depth exceeded: {} of {}: it is the last of a chain of executions, of which each caused the next"
DEAD = "SELECT kind, tenant, record, attempts, reason FROM circuit.dead_letters ORDER BY id"
DEPTHS = "SELECT (usage ->> 'depth')::int FROM circuit.executions WHERE status = 'succeeded' ORDER BY id"


async def pass_on(work: Work, broker: ExecutionBroker) -> Outcome:
    """Tell the address `self` of each record that wants it, as a change of the same record."""
    for place, record in enumerate(work.records):
        if record.get("again", True):
            payload = {"type": "Contact.afterUpdate", "data": {"id": record["id"], "n": record.get("n", 0) + 1}}
            asked = {"connector": "webhook", "operation": "post", "to": "self", "payload": payload, "record": place}
            await broker.request("send", asked)
    return Succeeded(broker.usage)


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        yield road


@pytest.fixture
def gateway(road: Road, tmp_path: Any) -> Iterator[int]:
    with running(road.url, tmp_path) as port:
        yield port


Start = Callable[[dict[str, Address]], Awaitable[None]]


@pytest.fixture
async def start(road: Road) -> AsyncIterator[Start]:
    """Starts a worker that passes on, and its courier."""
    running_: list[tuple[Any, asyncio.Task[None]]] = []

    async def begin(addresses: dict[str, Address]) -> None:
        worker = await road.start(pass_on, addresses=addresses)
        running_.append((worker.courier, asyncio.create_task(worker.courier.run())))

    yield begin
    for courier, task in running_:
        courier.stop()
        await task


def to_ourselves(port: int, secret: str = SECRET) -> dict[str, Address]:
    return {"self": Address(url=f"http://127.0.0.1:{port}/webhooks/standard/acme", secret=secret)}


async def deliver(road: Road, port: int, record: str, **headers: str) -> int:
    """A delivery as an outsider makes it who has the account's secret."""
    body = json.dumps({"type": "Contact.afterInsert", "data": {"id": record}}).encode()
    signed = signature(SECRET, str(uuid4()), int(time.time()), body)
    url = f"http://127.0.0.1:{port}/webhooks/standard/acme"
    return (await road.client.post(url, content=body, headers=signed | headers)).status_code


async def test_a_chain_through_a_signed_webhook_to_ourselves_ends_as_a_dead_letter(
    road: Road, gateway: int, start: Start
) -> None:
    await road.live(HandlerSpec("passes_on", ROUTES))
    await start(to_ourselves(gateway))

    assert await deliver(road, gateway, "c1") == 202

    await road.until(DEAD, [("event", "default", "c1", 1, TOO_DEEP.format(17, 16))])
    await road.done()
    assert await road.rows(DEPTHS) == list(range(1, 17))
    assert await road.rows(
        "SELECT status, (usage ->> 'depth')::int FROM circuit.executions WHERE status = 'breached'"
    ) == [("breached", 17)]
    assert await road.rows("SELECT depth FROM circuit.effects ORDER BY id") == list(range(1, 17))


async def test_the_depth_is_the_handlers_limit(road: Road, gateway: int, start: Start) -> None:
    await road.live(HandlerSpec("passes_on", ROUTES, limits=Limits(depth=3)))
    await start(to_ourselves(gateway))

    await deliver(road, gateway, "c1")

    await road.until(DEAD, [("event", "default", "c1", 1, TOO_DEEP.format(4, 3))])
    await road.done()
    assert await road.rows(DEPTHS) == [1, 2, 3]


async def test_what_shares_a_batch_with_a_chain_is_not_deeper_for_it(road: Road, gateway: int) -> None:
    """Queued while no worker runs, so that all are there at once."""
    await road.live(HandlerSpec("handles", ROUTES, limits=Limits(depth=3)))
    for n in range(6):
        await deliver(road, gateway, f"c{n}", **{depth.HEADER: ""})
    await road.run("UPDATE circuit.queue SET depth = 2 WHERE record = 'c1'")
    await road.run("UPDATE circuit.queue SET depth = 3 WHERE record = 'c2'")

    worker = await road.start(pass_nothing_on)
    await road.done()

    assert await road.rows("SELECT record FROM circuit.dead_letters") == ["c2"]
    assert sorted(worker.children.handled) == ["c0", "c1", "c3", "c4", "c5"]
    assert {work.depth: len(work.records) for work in worker.children.works} == {1: 4, 3: 1}
    assert {event["depth"] for work in worker.children.works for event in work.events} == {0, 2}


async def pass_nothing_on(work: Work, broker: ExecutionBroker) -> Outcome:
    assert broker.usage.depth == work.depth
    return Succeeded(broker.usage)


async def test_a_claim_that_is_not_signed_says_nothing(road: Road, gateway: int) -> None:
    await road.live(HandlerSpec("handles", ROUTES))

    for n, claim in enumerate(("15", "16 v1," + "A" * 44)):
        assert await deliver(road, gateway, f"c{n}", **{depth.HEADER: claim}) == 202

    assert await road.rows("SELECT depth FROM circuit.queue") == [0, 0]


async def test_a_depth_that_was_signed_for_another_delivery_says_nothing(road: Road, gateway: int) -> None:
    await road.live(HandlerSpec("handles", ROUTES))
    theirs = depth.header(SECRET, "another", int(time.time()), 16)

    assert await deliver(road, gateway, "c1", **{depth.HEADER: theirs}) == 202

    assert await road.rows("SELECT depth FROM circuit.queue") == [0]


async def test_a_chain_through_an_address_without_our_secret_is_an_outsiders(
    road: Road, gateway: int, start: Start
) -> None:
    """Who signs with another secret is refused; who has none says nothing that is believed."""
    other = "whsec_" + base64.b64encode(b"another secret, of 32 characters").decode()
    await road.live(HandlerSpec("passes_on", ROUTES))
    await start(to_ourselves(gateway, other))

    await deliver(road, gateway, "c1")

    refused = "SELECT status FROM circuit.effects WHERE status <> 'pending'"
    await road.until(refused, ["dead"])
    assert await road.rows(DEPTHS) == [1]


async def test_a_chain_through_echoes_ends_for_who_asks_for_them(road: Road) -> None:
    """Each echo of what was written starts the handler once more, which writes another value."""
    await road.live(HandlerSpec("scores", ROUTES, echoes=True, limits=Limits(depth=4)))

    async def rescore(work: Work, broker: ExecutionBroker) -> Outcome:
        rows = [{"id": record["id"], "score": record.get("score", 0) + 1} for record in work.records]
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
        return Succeeded(broker.usage)

    worker = await road.start(rescore)
    await road.take_in(contact("c1", name="Ann"), contact("c2", name="Bea"))
    await road.done()
    for n in range(1, 5):
        await road.take_in(contact("c1", "afterUpdate", name="Ann", score=n))
        await road.done()
    await road.take_in(contact("c2", "afterUpdate", name="Bea", score=1), contact("c2", "afterUpdate", name="Bella"))
    await road.done()

    of_ann = [work.depth for work in worker.children.works for record in work.records if record["id"] == "c1"]
    of_bea = [work.depth for work in worker.children.works for record in work.records if record["id"] == "c2"]
    assert of_ann == [1, 2, 3, 4]
    assert of_bea == [1, 2, 1], "a change that is no echo begins a chain of its own"
    assert await road.rows("SELECT record, reason FROM circuit.dead_letters") == [("c1", TOO_DEEP.format(5, 4))]
    ann = await road.record("c1")
    assert (ann or {}).get("score") == 4, "what was too deep still brought its state"


async def test_echoes_of_several_depths_in_one_batch_run_apart(road: Road) -> None:
    await road.live(HandlerSpec("scores", ROUTES, echoes=True))

    async def score_once(work: Work, broker: ExecutionBroker) -> Outcome:
        rows = [{"id": record["id"], "score": 1} for record in work.records if "score" not in record]
        if rows:
            await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
        return Succeeded(broker.usage)

    worker = await road.start(score_once)
    await road.take_in(*(contact(f"c{n}", name="Ann") for n in range(4)))
    await road.done()
    await road.run("UPDATE circuit.records SET depth = 7 WHERE id = 'c3'")
    await worker.stop()
    later = await road.start(score_once)
    await road.take_in(*(contact(f"c{n}", "afterUpdate", name="Ann", score=1) for n in range(4)))
    await road.done()

    assert sorted((work.depth, len(work.records)) for work in later.children.works) == [(2, 3), (8, 1)]
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'succeeded'") == [8]


async def test_a_write_of_an_outside_change_begins_a_new_chain(road: Road) -> None:
    """The depth of a record is that of who wrote it last."""
    await road.live(HandlerSpec("scores", ROUTES))

    async def score(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [{"id": "c1", "score": work.depth}]})
        return Succeeded(broker.usage)

    await road.start(score)
    await road.take_in(contact("c1", name="Ann"))
    await road.done()
    await road.run("UPDATE circuit.records SET depth = 9")
    await road.take_in(contact("c1", "afterUpdate", name="Anna"))
    await road.done()

    assert await road.rows("SELECT depth FROM circuit.records") == [1]
