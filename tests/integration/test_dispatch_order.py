from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from inspect import signature

import pytest

from circuit_script.config import Address
from circuit_script.db.pool import Connection
from circuit_script.events import dispatch
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.outcome import HandlerSpec, Work
from tests.receiver import receiving, response
from tests.road import SCORE, FakeChildren, Incoming, Road, contact, happens, open_road, score


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def test_a_worker_that_may_start_nothing_looks_seldom_and_starts_at_once_when_it_may(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await road.start(score)
    worker.dispatcher.hold(True)
    looks: list[int] = []
    refresh = worker.dispatcher.pauses.refresh

    async def counted(connection: Connection) -> bool:
        looks.append(1)
        return await refresh(connection)

    monkeypatch.setattr(worker.dispatcher.pauses, "refresh", counted)
    await road.take_in(*(contact(f"c{n}") for n in range(10)))
    await happens(lambda: len(worker.dispatcher.backlog) == 10, "they are read")
    looks.clear()
    seen = await road.rows("SELECT clock_timestamp()")
    await road.until("SELECT clock_timestamp() > %s::timestamptz + interval '1.5 s'", [True], *seen)
    assert len(looks) < 100, "by the poll of 0.05 s, not by what is due"
    assert worker.children.handled == []
    worker.dispatcher.hold(False)
    await road.done()
    assert len(worker.children.handled) == 10


@pytest.mark.every_server
async def test_an_event_goes_the_whole_road(road: Road) -> None:
    worker = await road.start(score)

    await road.take_in(*(contact(f"c{n}", n=n) for n in range(300)))
    await road.done()

    assert Counter(worker.children.handled) == Counter(f"c{n}" for n in range(300))
    assert max(map(len, worker.children.batches)) <= 200
    assert len(worker.children.batches) < 30, "they run in batches"
    assert await road.record("c7") == {"id": "c7", "n": 7, "score": 1}
    assert await road.rows("SELECT status, sum(records) FROM circuit.executions GROUP BY 1") == [("succeeded", 300)]
    await worker.stop()
    assert await road.rows("SELECT count(*) FROM circuit.lanes WHERE owner IS NOT NULL") == [0]
    assert await road.rows("SELECT count(*) FROM circuit.workers") == [0]


async def test_a_handler_is_given_records_before_images_and_what_the_vendor_sent(road: Road) -> None:
    worker = await road.start()
    await road.take_in(contact("c1", name="Ann", city="Rome"))
    await road.done()
    (delivery,) = await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()

    first, second = worker.children.works
    assert (first.tenant, first.handler, first.object, first.event) == ("acme", "score", "Contact", "afterInsert")
    assert (first.records, first.old) == ([{"id": "c1", "name": "Ann", "city": "Rome"}], [None])
    assert second.records == [{"id": "c1", "name": "Ann", "city": "Oslo"}]
    assert second.old == [{"id": "c1", "name": "Ann", "city": "Rome"}]
    assert second.events[0]["delivery"] == str(delivery)
    assert second.events[0]["attempt"] == 1


async def test_every_handler_of_an_event_gets_the_same_before_image(road: Road) -> None:
    insert_only = HandlerSpec("insert", (("Contact", "afterInsert"),))
    changes = [HandlerSpec(name, (("Contact", "afterUpdate"), ("Contact", "afterDelete"))) for name in "xyz"]
    await road.live(insert_only, *changes)
    worker = await road.start(score, size=1)

    await road.take_in(contact("c1", city="Rome"))
    await road.done()
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()
    await road.take_in(contact("c1", "afterDelete"))
    await road.done()

    _, *updates = [work.old[0] for work in worker.children.works]
    assert len(updates) == 6
    assert [{k: v for k, v in (old or {}).items() if v is not None} for old in updates[:3]] == [
        {"id": "c1", "city": "Rome", "score": 1}
    ] * 3
    assert updates[3:] == [{"id": "c1", "city": "Oslo", "score": 1}] * 3


async def test_a_record_that_was_only_in_the_ledger_has_its_before_image_for_every_handler(road: Road) -> None:
    await road.live(*(HandlerSpec(name, (("Contact", "afterUpdate"),)) for name in "xy"))
    worker = await road.start(size=1)

    await road.take_in(contact("c1", city="Rome"))
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()

    assert [work.old for work in worker.children.works] == [[{"id": "c1", "city": "Rome"}]] * 2


async def test_events_of_one_record_run_in_the_order_of_their_commit_never_two_at_once(road: Road) -> None:
    seen: dict[str, list[int]] = {}
    inside: set[str] = set()

    async def watch(work: Work, broker: ExecutionBroker) -> None:
        for record in work.records:
            assert record["id"] not in inside
            inside.add(record["id"])
        await asyncio.sleep(0)
        for record in work.records:
            seen.setdefault(record["id"], []).append(record["n"])
            inside.remove(record["id"])

    await road.start(watch, size=4)
    for first in range(0, 100, 10):
        await road.take_in(*(contact(f"c{n % 7}", "afterUpdate", n=n) for n in range(first, first + 10)))
    await road.done()

    assert seen == {f"c{k}": list(range(k, 100, 7)) for k in range(7)}


async def test_an_echo_of_our_own_write_starts_no_handler_unless_it_asked_for_them(road: Road) -> None:
    await road.live(SCORE, replace(SCORE, name="all", echoes=True))
    worker = await road.start(score)
    await road.take_in(contact("c1", name="Ann"))
    await road.done()
    worker.children.works.clear()

    await road.take_in(contact("c1", "afterUpdate", name="Ann", score=1))
    await road.take_in(contact("c2", "afterUpdate", name="Bob", score=1))
    await road.done()

    assert Counter((work.handler, record["id"]) for work in worker.children.works for record in work.records) == {
        ("all", "c1"): 1,
        ("all", "c2"): 1,
        ("score", "c2"): 1,
    }
    assert await road.rows("SELECT status, handler FROM circuit.outcomes WHERE status = 'echo'") == [
        ("echo", road.handler("score"))
    ]


async def test_a_batch_may_hold_echoes_and_changes(road: Road) -> None:
    worker = await road.start(score)
    await road.take_in(*(contact(f"c{n}") for n in range(4)))
    await road.done()
    worker.children.works.clear()

    await road.take_in(
        *(contact(f"c{n}", "afterUpdate", score=1, **({"city": "Rome"} if n % 2 else {})) for n in range(4))
    )
    await road.done()

    assert sorted(worker.children.handled) == ["c1", "c3"]
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'echo'") == [2]


async def test_two_tenants_never_share_a_batch_nor_see_each_others_records(road: Road) -> None:
    found: dict[str, list[str]] = {}

    async def look(work: Work, broker: ExecutionBroker) -> None:
        rows = await broker.request("query", {"object": "Contact"})
        found[work.tenant] = [row["id"] for row in rows]

    await road.start()
    await road.take_in(Incoming("a1"), Incoming("b1", tenant="bolt"), Incoming("a2"), Incoming("b2", tenant="bolt"))
    await road.done()
    await road.close_workers()
    worker = await road.start(look)
    await road.take_in(Incoming("a3"), Incoming("b3", tenant="bolt"))
    await road.done()

    assert {work.tenant: work.records[0]["id"] for work in worker.children.works} == {"acme": "a3", "bolt": "b3"}
    assert found == {"acme": ["a1", "a2"], "bolt": ["b1", "b2"]}


async def test_a_noisy_tenant_delays_a_quiet_one_by_no_more_than_a_batch(road: Road) -> None:
    await road.live(replace(SCORE, batch_size=10))
    gate = asyncio.Semaphore(0)

    async def slow(work: Work, broker: ExecutionBroker) -> None:
        await gate.acquire()

    worker = await road.start(slow, look_ahead=50)
    await road.take_in(*(Incoming(f"n{n}", tenant="noisy") for n in range(400)))
    await happens(lambda: worker.children.running == 2, "both children are busy")
    await road.take_in(Incoming("q", tenant="quiet"))
    await happens(lambda: len(worker.dispatcher.backlog) == 51, "the quiet one was read")

    for _ in range(60):
        gate.release()
    await road.done()
    assert worker.children.handled.index("q") < 200, "a batch holds up to 200 records"
    assert Counter(worker.children.handled) == Counter([*(f"n{n}" for n in range(400)), "q"])


@pytest.mark.parametrize("look_ahead", [5, 50])
async def test_nothing_is_lost_when_more_waits_than_fits_in_memory(
    road: Road, look_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "READ_LIMIT", 30)
    await road.live(SCORE, replace(SCORE, name="other"))
    await road.take_in(*(contact(f"c{n}") for n in range(150)))

    worker = await road.start(look_ahead=look_ahead)
    await road.done()

    assert Counter(worker.children.handled) == Counter({f"c{n}": 2 for n in range(150)})


async def test_an_idle_dispatcher_tells_the_gateways_that_it_sleeps_and_wakes_when_told(road: Road) -> None:
    worker = await road.start(backoff=3600.0, attempts=9)
    await road.until("SELECT asleep FROM circuit.workers", [True])

    await road.take_in(contact("c1"))
    worker.dispatcher.wake()
    await road.done()
    assert worker.children.handled == ["c1"]

    await road.until("SELECT asleep FROM circuit.workers", [True])


async def test_log_lines_and_sends_of_a_handler_reach_their_writers(road: Road) -> None:
    async with receiving(lambda got: response(200)) as receiver:

        async def alert(work: Work, broker: ExecutionBroker) -> None:
            broker.log({"message": "hot lead", "level": "info"})
            asked = {"connector": "webhook", "operation": "post", "to": "alerts", "payload": {"n": 1}}
            await broker.request("send", asked)

        worker = await road.start(alert, addresses={"alerts": Address(url=receiver.url)})
        courier = asyncio.create_task(worker.courier.run())
        await road.take_in(contact("c1"))
        await road.until("SELECT status FROM circuit.effects", ["delivered"])
        worker.courier.stop()
        await courier

    assert [line["message"] for line in road.lines] == ["hot lead"]
    assert [got.body for got in receiver.got] == [b'{"n":1}']


def test_the_fake_pool_has_the_shape_of_the_real_one() -> None:
    for name in ("idle", "run"):
        real, fake = signature(getattr(Pool, name)), signature(getattr(FakeChildren, name))
        assert list(fake.parameters) == list(real.parameters)
