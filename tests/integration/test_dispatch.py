from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from inspect import signature
from typing import Any

import psycopg
import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.events import dispatch
from circuit_script.events.dispatch import RETIRED
from circuit_script.events.lanes import LANES
from circuit_script.events.reader import QueueReader
from circuit_script.execution.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.execution.pool import Pool
from tests.receiver import receiving, response
from tests.road import SCORE, FakeChildren, Incoming, Road, contact, eventually, open_road, places


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


async def score(work: Work, broker: ExecutionBroker) -> Outcome:
    rows = [{"id": record["id"], "score": 1} for record in work.records]
    await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
    return Succeeded(broker.usage)


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


@pytest.mark.parametrize("suspected", [True, False])
async def test_a_record_that_breaks_its_batch_fails_alone(road: Road, suspected: bool) -> None:
    async def break_at(work: Work, broker: ExecutionBroker) -> Outcome:
        bad = places(work, ["c77"])
        if bad:
            return Failed("boom", broker.usage, "Traceback …", bad[0] if suspected else None)
        return await score(work, broker)

    await road.take_in(*(contact(f"c{n}") for n in range(100)))
    worker = await road.start(break_at, attempts=2)
    await road.done()

    assert await road.rows("SELECT record, reason, attempts FROM circuit.dead_letters") == [("c77", "boom", 2)]
    scored = await road.rows("SELECT id FROM circuit.records WHERE data ? 'score'")
    assert set(scored) == {f"c{n}" for n in range(100)} - {"c77"}
    broken = [batch for batch in worker.children.batches if "c77" in batch]
    assert len(broken) == (3 if suspected else 9), "the suspect alone, or halves; then its second attempt"
    first_parts = [len(batch) for batch in worker.children.batches[1:3]]
    assert first_parts == ([1, 99] if suspected else [50, 50])
    assert await road.rows("SELECT detail FROM circuit.executions WHERE detail <> '' LIMIT 1") == ["Traceback …"]


async def test_a_record_that_breaches_a_limit_dies_with_that_reason(road: Road) -> None:
    async def endless(work: Work, broker: ExecutionBroker) -> Outcome | None:
        bad = places(work, ["c3"])
        return Breached("wall_time", 30.1, 30.0, broker.usage, bad[0]) if bad else None

    await road.take_in(*(contact(f"c{n}") for n in range(5)))
    await road.start(endless, attempts=1)
    await road.done()

    assert await road.rows("SELECT record, reason FROM circuit.dead_letters") == [
        ("c3", "limit wall_time exceeded: 30.10 s of 30.00 s")
    ]
    assert set(await road.rows("SELECT status FROM circuit.executions")) == {"breached", "succeeded"}
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'succeeded'") == [4]


async def test_of_a_partial_success_only_the_failed_record_is_tried_again(road: Road) -> None:
    async def partly(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        bad = places(work, ["c1"]) if work.events[0]["attempt"] == 1 else ()
        return Succeeded(broker.usage, dict.fromkeys(bad, "no phone"))

    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    worker = await road.start(partly)
    await road.done()

    assert worker.children.batches == [["c0", "c1", "c2"], ["c1"]]
    assert worker.children.works[1].events[0]["attempt"] == 2
    assert await road.rows("SELECT status, reason FROM circuit.executions ORDER BY id") == [
        ("partial", "no phone"),
        ("succeeded", None),
    ]
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'score'") == [3]


async def test_unattributed_effects_leave_only_when_every_record_has_succeeded(road: Road) -> None:
    async def count(work: Work, broker: ExecutionBroker) -> Outcome:
        rows = [{"size": len(work.records)}]
        await broker.request("dml", {"op": "insert", "object": "Total", "rows": rows})
        return Succeeded(broker.usage, dict.fromkeys(places(work, ["c1"]), "bad"))

    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    await road.start(count, attempts=1)
    await road.done()

    totals = await road.rows("SELECT data->'size' FROM circuit.records WHERE object = 'Total'")
    assert totals == [2], "of the two that succeeded together; nothing of the first try, nothing of c1"
    assert await road.rows("SELECT record FROM circuit.dead_letters") == ["c1"]


async def test_a_failing_event_is_retried_with_its_record_held_and_dies_at_the_end(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        if work.event == "afterInsert":
            raise RuntimeError("down")

    worker = await road.start(fail, attempts=3)
    await road.take_in(contact("c1"))
    await road.take_in(contact("c1", "afterUpdate"))
    await road.done()

    assert [(work.event, work.events[0]["attempt"]) for work in worker.children.works] == [
        ("afterInsert", 1),
        ("afterInsert", 2),
        ("afterInsert", 3),
        ("afterUpdate", 1),
    ]
    assert await road.rows("SELECT reason, attempts FROM circuit.dead_letters") == [("down", 3)]
    assert await road.rows("SELECT status FROM circuit.outcomes WHERE status <> 'succeeded' ORDER BY at") == [
        "retry", "retry", "dead"
    ]  # fmt: skip


async def test_a_retry_older_than_hold_is_overtaken(road: Road) -> None:
    recovered = asyncio.Event()

    async def fail(work: Work, broker: ExecutionBroker) -> None:
        if work.event == "afterInsert" and not recovered.is_set():
            raise RuntimeError("down")
        if work.event == "afterUpdate":
            recovered.set()

    await road.start(fail, attempts=50, backoff=0.2, hold=0.05)
    await road.take_in(contact("c1", city="Rome"))
    await road.take_in(contact("c1", "afterUpdate", city="Oslo"))
    await road.done()

    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]
    assert await road.record("c1") == {"id": "c1", "city": "Oslo"}


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
    await eventually(lambda: _true(worker.children.running == 2), "both children are busy")
    await road.take_in(Incoming("q", tenant="quiet"))
    await eventually(lambda: _true(len(worker.dispatcher.backlog) == 51), "the quiet one was read")

    for _ in range(60):
        gate.release()
    await road.done()
    assert worker.children.handled.index("q") < 200, "a batch holds up to 200 records"
    assert Counter(worker.children.handled) == Counter([*(f"n{n}" for n in range(400)), "q"])


async def _true(holds: bool) -> bool:
    return holds


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


@pytest.mark.every_server
async def test_two_dispatchers_on_one_database_share_the_work_and_do_nothing_twice(road: Road) -> None:
    first = await road.start(score, lease=4.0)
    second = await road.start(score, lease=4.0)
    await eventually(
        lambda: _true(len(first.lanes.held) == len(second.lanes.held) == LANES // 2), "they share the lanes"
    )

    for chunk in range(5):
        await road.take_in(*(contact(f"c{chunk}-{n}") for n in range(40)))
    await road.done()

    handled = Counter(first.children.handled) + Counter(second.children.handled)
    assert handled == Counter(f"c{chunk}-{n}" for chunk in range(5) for n in range(40))
    assert min(len(first.children.handled), len(second.children.handled)) > 30
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(200, 200)]


async def test_a_worker_that_leaves_hands_over_what_it_has_not_done(road: Road) -> None:
    stuck = asyncio.Event()

    async def wait(work: Work, broker: ExecutionBroker) -> None:
        await stuck.wait()

    leaving = await road.start(wait, size=1)
    await road.take_in(*(contact(f"c{n % 10}", "afterUpdate", n=n) for n in range(30)))
    await eventually(lambda: _true(leaving.children.running == 1), "it works")
    leaving.dispatcher.stop()
    stuck.set()
    await leaving.task
    assert await road.rows("SELECT count(*) > 0 FROM circuit.queue") == [True]

    await road.start(score)
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(30, 30)]
    assert sorted(await road.rows("SELECT (data->'n')::int FROM circuit.records")) == list(range(20, 30))


async def test_of_a_fenced_dispatcher_nothing_counts_and_another_does_its_work(road: Road) -> None:
    hang, resume = asyncio.Event(), asyncio.Event()

    async def paused(work: Work, broker: ExecutionBroker) -> Outcome:
        hang.set()
        await resume.wait()
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [{"id": "c1", "by": "first"}]})
        return Succeeded(broker.usage)

    async def heir(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": [{"id": "c1", "by": "heir"}]})
        return Succeeded(broker.usage)

    first = await road.start(paused, lease=1000.0)
    await road.take_in(contact("c1"))
    await hang.wait()
    await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 second'")
    second = await road.start(heir)
    await road.done()
    resume.set()
    await first.stop()

    assert second.children.handled == ["c1"]
    assert await road.record("c1") == {"id": "c1", "by": "heir"}
    assert await road.rows("SELECT count(*) FROM circuit.outcomes") == [1]
    assert await road.rows("SELECT count(*) FROM circuit.executions") == [1]


async def test_rows_beside_a_fenced_lane_are_not_forgotten(road: Road) -> None:
    """A batch spans lanes; when one of them is lost, the rows of the others still wait and run."""
    lost: list[int] = []

    async def lose_a_lane(work: Work, broker: ExecutionBroker) -> None:
        if not lost:
            lost.extend(await road.rows("SELECT lane FROM circuit.queue ORDER BY id LIMIT 1"))
            await road.run("UPDATE circuit.lanes SET owner = NULL, epoch = epoch + 1 WHERE lane = %s", lost[0])

    await road.take_in(*(contact(f"c{n}") for n in range(20)))
    worker = await road.start(lose_a_lane)
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(20, 20)]
    assert lost
    assert len(worker.children.handled) >= 40, "the whole batch was fenced and ran again"


async def test_an_event_of_a_handler_that_was_retired_becomes_a_dead_letter(road: Road) -> None:
    await road.take_in(contact("c1"), contact("c2"))
    retired = road.handler("score")
    await road.live(HandlerSpec("newer", (("Contact", "afterInsert"),)))

    worker = await road.start()
    await road.take_in(contact("c3"))
    await road.done()

    assert worker.children.handled == ["c3"]
    assert await road.rows("SELECT record, handler, reason FROM circuit.dead_letters ORDER BY record") == [
        ("c1", retired, RETIRED),
        ("c2", retired, RETIRED),
    ]


async def test_an_event_whose_delivery_left_the_ledger_becomes_a_dead_letter_and_the_others_go_on(
    road: Road,
) -> None:
    gone, _ = await road.take_in(contact("c1"), contact("c2"))
    await road.run("DELETE FROM circuit.deliveries WHERE id = %s", gone)

    worker = await road.start()
    await road.done()

    assert worker.children.handled == ["c2"]
    ((record, reason),) = await road.rows("SELECT record, reason FROM circuit.dead_letters")
    assert record == "c1"
    assert "no longer in the ledger" in reason


async def test_a_body_that_cannot_be_read_any_more_harms_neither_its_batch_nor_a_later_event(road: Road) -> None:
    await road.live(HandlerSpec("updates", (("Contact", "afterUpdate"),)))
    blanked, *_ = await road.take_in(contact("c1"), contact("c2", "afterUpdate"))
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE id = %s", blanked)

    worker = await road.start()
    await road.take_in(contact("c1", "afterUpdate"))
    await road.done()

    assert sorted(worker.children.handled) == ["c1", "c2"]
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "c1", "deep": "…"}],
        [{"id": "c1", "text": "a\0b"}],
    ],
)
async def test_an_outcome_that_postgresql_refuses_is_the_failure_of_its_record(
    road: Road, rows: list[dict[str, Any]]
) -> None:
    nested: Any = 1
    for _ in range(20_000):
        nested = [nested]
    deep = "deep" in rows[0]

    async def write(work: Work, broker: ExecutionBroker) -> Outcome:
        if places(work, ["c1"]):
            row = {**rows[0], "deep": nested} if deep else rows[0]
            await broker.request("dml", {"op": "update", "object": "Contact", "rows": [row]})
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"), contact("c2"))
    await road.start(write, attempts=1)
    await road.done()

    dead = await road.rows("SELECT record FROM circuit.dead_letters")
    assert dead == (["c1"] if deep else [])
    assert await road.record("c2") == {"id": "c2"}
    if not deep:
        assert await road.record("c1") == {"id": "c1", "text": "a\ufffdb"}


async def test_a_callout_paid_before_a_crash_is_not_paid_again(road: Road) -> None:
    async with receiving(lambda got: response(200, b"%d" % len(paid.got))) as paid:
        replies: list[bytes] = []
        hang = asyncio.Event()

        async def ask(work: Work, broker: ExecutionBroker) -> None:
            for place in range(len(work.records)):
                answer = await broker.request("http", {"method": "GET", "url": paid.url, "record": place})
                replies.append(answer["body"])
            if len(replies) == 2:
                hang.set()
                await asyncio.Event().wait()

        crashing = await road.start(ask)
        await road.take_in(contact("c1"), contact("c2"))
        await hang.wait()
        crashing.task.cancel()
        for task in asyncio.all_tasks():
            if "_follow" in repr(task.get_coro()):
                task.cancel()
        await asyncio.gather(crashing.task, return_exceptions=True)
        await road.run("UPDATE circuit.workers SET expires_at = now() - interval '1 minute'")

        await road.start(ask)
        await road.done()

    assert len(paid.got) == 2
    assert sorted(replies) == [b"1", b"1", b"2", b"2"]


async def test_a_database_that_restarts_stops_nothing_for_good(road: Road) -> None:
    worker = await road.start(score)
    await road.take_in(*(contact(f"a{n}") for n in range(50)))
    for _ in range(3):
        with pytest.raises(psycopg.Error):
            await road.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() ORDER BY pid = pg_backend_pid()"
            )
        await road.take_in(*(contact(f"b{uuid7()}") for _ in range(20)))
    await road.done()

    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(110, 110)]
    assert not worker.task.done()


async def test_lanes_won_while_the_connection_broke_are_read_all_the_same(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = []
    of_lanes = QueueReader.of_lanes

    def break_once(self: QueueReader, *arguments: Any) -> Any:
        if not broken:
            broken.append(True)
            raise psycopg.OperationalError("the connection broke")
        return of_lanes(self, *arguments)

    monkeypatch.setattr(QueueReader, "of_lanes", break_once)
    await road.take_in(*(contact(f"c{n}") for n in range(20)))
    worker = await road.start()
    await road.done()

    assert broken
    assert len(worker.children.handled) == 20


async def test_a_worker_that_drains_does_not_mark_lanes_that_it_never_read(road: Road) -> None:
    release = asyncio.Event()

    async def wait(work: Work, broker: ExecutionBroker) -> None:
        await release.wait()

    first = await road.start(wait, size=1, lease=1.0)
    second = await road.start(wait, size=1, lease=1.0)
    await eventually(lambda: _true(len(first.lanes.held) == len(second.lanes.held) == 32), "they share")
    await road.take_in(*(contact(f"c{n % 40}", "afterUpdate", n=n) for n in range(160)))
    await eventually(lambda: _true(first.children.running + second.children.running == 2), "both work")

    for worker in (first, second):
        worker.dispatcher.stop()
    release.set()
    await asyncio.gather(first.task, second.task)
    left = await road.rows("SELECT count(*) FROM circuit.queue")
    assert left[0] > 0

    await road.start()
    await road.done()
    assert await road.rows("SELECT count(*), count(DISTINCT delivery) FROM circuit.outcomes") == [(160, 160)]


async def test_an_idle_dispatcher_tells_the_gateways_that_it_sleeps_and_wakes_when_told(road: Road) -> None:
    worker = await road.start(backoff=3600.0, attempts=9)
    await road.until("SELECT asleep FROM circuit.workers", [True])

    await road.take_in(contact("c1"))
    worker.dispatcher.wake()
    await road.done()
    assert worker.children.handled == ["c1"]

    await road.until("SELECT asleep FROM circuit.workers", [True])


async def test_a_dispatcher_sleeps_while_all_it_has_is_a_distant_retry(road: Road) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> None:
        raise RuntimeError("down")

    await road.start(fail, backoff=3600.0, attempts=9)
    await road.take_in(contact("c1"))

    await road.until("SELECT attempts FROM circuit.queue", [1])
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


async def test_an_event_of_a_newer_releases_handler_waits_for_a_worker_that_has_it(road: Road) -> None:
    await road.start()
    await road.live(SCORE, HandlerSpec("newer", (("Contact", "afterInsert"),)))

    await road.take_in(contact("c1"), contact("c2"))

    await road.until("SELECT status FROM circuit.outcomes", ["succeeded", "succeeded"])
    assert await road.rows("SELECT handler FROM circuit.queue") == [road.handler("newer")] * 2
    assert await road.rows("SELECT count(*) FROM circuit.dead_letters") == [0]


async def test_a_worker_that_stops_while_lanes_are_unread_leaves_their_events_to_the_next(road: Road) -> None:
    first = await road.start()
    await road.take_in(*(contact(f"c{number}") for number in range(20)))
    first.dispatcher._unread = dict.fromkeys(first.lanes.held, 0)  # as after a takeover whose reading broke
    first.dispatcher.stop()
    await road.close_workers()

    second = await road.start()
    await road.done()

    assert len(set(first.children.handled) | set(second.children.handled)) == 20
