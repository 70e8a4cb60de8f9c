"""A replay from its filter to its end: that it waits behind live traffic, and that nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest

from circuit_script.db.pool import Connection
from circuit_script.errors import ReplayRefused
from circuit_script.events.letters.close import retry
from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import State
from circuit_script.events.replay.feeder import Feeder
from circuit_script.events.requeue import Past, requeue
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from circuit_script.tenants.pauses import pause
from tests.integration.replay.conftest import Replays
from tests.road import SCORE, Incoming, Road, contact, eventually, score

MANY = 2000
RATE = 500


def replayed(work: Work) -> list[str]:
    """The records of a batch that are in it by a replay."""
    return [str(row["id"]) for row, event in zip(work.records, work.events, strict=True) if event.get("replay")]


async def handled(road: Road, count: int, name: str = "c") -> None:
    """So many contacts, handled once by a worker that is gone then."""
    worker = await road.start()
    for start in range(0, count, 200):
        await road.take_in(*(contact(f"{name}{n}", n=n) for n in range(start, min(start + 200, count))))
        await road.done()
    await worker.stop()
    road.workers.clear()


@pytest.mark.every_server
async def test_each_item_is_handled_once_more_and_its_effects_are_new(road: Road, past: Replays) -> None:
    await handled(road, 5)
    worker = await road.start(score)
    past.feed()

    replay = await past.over(await past.begin(record="c3"))
    whole = await past.over(await past.begin(trigger="score"))

    assert Counter(each for work in worker.children.works for each in replayed(work)) == Counter(
        ["c3", *(f"c{n}" for n in range(5))]
    )
    assert {work.events[0]["replay"] for work in worker.children.works} == {str(replay.id), str(whole.id)}
    assert (whole.chosen, whole.fed, whole.skipped, whole.waiting, whole.status) == (5, 5, 0, 0, "done")
    assert await past.became(whole) == {"succeeded": 5}
    assert (await road.record("c3") or {})["score"] == 1
    executions = "SELECT count(DISTINCT execution) FROM circuit.effects WHERE status = 'delivered'"
    assert await road.rows(executions) == [len(worker.children.works)]


@pytest.mark.slow
async def test_what_arrives_during_a_large_replay_is_handled_before_the_rest_of_it(road: Road, past: Replays) -> None:
    await handled(road, MANY)
    order: list[str] = []
    arrived = 0
    turn = asyncio.Lock()

    async def note(work: Work, broker: ExecutionBroker) -> Outcome:
        nonlocal arrived
        async with turn:  # however long it takes to take it in, nothing is handled meanwhile
            if len(order) < 300 <= len(order) + len(work.records):
                await road.take_in(contact("live"))
                arrived = len(order)
            order.extend(str(row["id"]) for row in work.records)
        return Succeeded(Usage())

    await road.start(note)
    past.feed()

    replay = await past.over(await past.begin(trigger="score", rate=RATE))

    assert arrived
    assert len(order) == MANY + 1
    # What stood in the queue then, or ran, was a second's share at most; of the next one some may be read before.
    assert order.index("live") < arrived + 2 * RATE
    assert replay.fed == MANY


async def test_while_much_waits_nothing_is_put_back(road: Road, past: Replays) -> None:
    await handled(road, 3)
    await road.take_in(*(contact(f"live{n}") for n in range(10)))
    replay = await past.begin(trigger="score", record="c1")
    feeder = Feeder(road.pool, busy=10)
    assert await feeder.feed()
    assert (await past.look(replay)).fed == 0
    past.feed(busy=10)

    worker = await road.start()
    await past.over(replay)

    assert worker.children.handled[-1] == "c1"


@pytest.mark.slow
async def test_several_feeders_put_back_each_item_once_also_when_they_are_cut_short(road: Road, past: Replays) -> None:
    await handled(road, 120)
    worker = await road.start()
    replay = await past.begin(trigger="score", rate=80)
    before = -1
    while (stands := await past.look(replay)).fed < 120:
        for _ in range(2):
            past.feed(pause=0.001)

        async def moved(known: int = stands.fed) -> bool:
            return (await past.look(replay)).fed > known

        await eventually(moved, "more of it was put back")
        await past.end()  # in the middle of whatever it does
        assert stands.fed > before
        before = stands.fed
    past.feed()
    await past.over(replay)

    counts = Counter(each for work in worker.children.works for each in replayed(work))
    assert len(counts) == 120
    assert set(counts.values()) == {1}


async def test_what_is_cancelled_leaves_the_queue(road: Road, past: Replays) -> None:
    await handled(road, 30)
    replay = await past.begin(trigger="score", rate=10)
    past.feed()
    await road.until("SELECT count(*) FROM circuit.queue", [10])
    await road.take_in(contact("live"))

    async with road.pool.connection() as connection:
        await replays.cancel(connection, str(replay.id)[:20])
        with pytest.raises(ReplayRefused, match="over already"):
            await replays.cancel(connection, str(replay.id))
    worker = await road.start()
    await road.done()

    assert worker.children.handled == ["live"]
    assert await past.became(replay) == {"cancelled": 10, "not begun": 20}
    stands = await past.look(replay)
    assert (stands.status, stands.settled) == ("cancelled", 0)


async def test_what_is_being_settled_when_its_replay_is_cancelled_is_not_tried_again(road: Road, past: Replays) -> None:
    await handled(road, 2)
    replay = await past.begin(trigger="score")
    await Feeder(road.pool).feed()

    async with road.pool.connection() as settling, road.pool.connection() as connection:
        async with settling.transaction():
            await settling.execute("UPDATE circuit.queue SET attempts = 1 WHERE record = 'c1'")  # for another attempt
            cancelling = asyncio.create_task(replays.cancel(connection, str(replay.id)))
            await road.until("SELECT count(*) FROM pg_locks WHERE NOT granted", [1])
        await cancelling

    assert await road.rows("SELECT count(*) FROM circuit.queue") == [0]
    assert await past.became(replay) == {"cancelled": 2}


async def test_a_worker_that_settles_and_who_cancels_do_not_wait_for_each_other(road: Road, past: Replays) -> None:
    await handled(road, 2)
    replay = await past.begin(trigger="score")
    await Feeder(road.pool).feed()
    touch = "UPDATE circuit.queue SET attempts = 1 WHERE record = %s"

    async with road.pool.connection() as settling, road.pool.connection() as connection:
        with contextlib.suppress(psycopg.errors.DeadlockDetected):  # the server chooses who gives way
            async with settling.transaction():
                await settling.execute(touch, ["c1"])
                cancelling = asyncio.create_task(replays.cancel(connection, str(replay.id)))
                await road.until("SELECT count(*) FROM pg_locks WHERE NOT granted", [1])
                await settling.execute(touch, ["c0"])
        await cancelling

    assert await road.rows("SELECT count(*) FROM circuit.queue") == [0]


@pytest.mark.slow
async def test_what_is_paused_goes_on_where_it_stood(road: Road, past: Replays) -> None:
    await handled(road, 30)
    replay = await past.begin(trigger="score", rate=10)
    feeder = past.feed(idle=60.0)
    await road.until("SELECT count(*) FROM circuit.queue", [10])
    async with road.pool.connection() as connection:
        await replays.pause(connection, str(replay.id))
        with pytest.raises(ReplayRefused, match="does not run"):
            await replays.pause(connection, str(replay.id))
        worker = await road.start()
        await road.done()
        assert len(worker.children.handled) == 10
        await replays.resume(connection, str(replay.id))
        with pytest.raises(ReplayRefused, match="is not paused"):
            await replays.resume(connection, str(replay.id))
    feeder.wake()

    await past.over(replay)

    assert sorted(worker.children.handled) == sorted(f"c{n}" for n in range(30))


async def test_its_rate_holds_however_many_workers_feed_it(road: Road, past: Replays) -> None:
    await handled(road, 3)
    replay = await past.begin(trigger="score", rate=1)
    await road.run("UPDATE circuit.replays SET fed_at = now() + interval '50 seconds'")  # so little time has passed

    for _ in range(3):
        await Feeder(road.pool).feed()

    assert (await past.look(replay)).fed == 0


async def test_a_clock_that_was_set_back_does_not_hold_it(road: Road, past: Replays) -> None:
    await handled(road, 1)
    replay = await past.begin(trigger="score")
    await road.run("UPDATE circuit.replays SET fed_at = now() + interval '1 hour'")

    await Feeder(road.pool).feed()

    assert (await past.look(replay)).fed == 1


async def test_replays_take_turns_however_much_one_of_them_may_put_back(
    road: Road, past: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handled(road, 3, "ann")
    await handled(road, 3, "bob")
    one, other = [await past.begin(text=name) for name in ("ann", "bob")]
    order: list[UUID] = []

    async def noted(connection: Connection, again: list[Past], **said: Any) -> list[int]:
        order.append(said["replay"])
        return await requeue(connection, again, **said)

    monkeypatch.setattr("circuit_script.events.replay.feeder.requeue", noted)
    await Feeder(road.pool, at_once=1).feed()

    assert order == [one.id, other.id] * 3


async def test_much_is_put_back_in_small_transactions(
    road: Road, past: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handled(road, 5)
    replay = await past.begin(trigger="score")
    sizes: list[int] = []

    async def noted(connection: Connection, again: list[Past], **said: Any) -> list[int]:
        sizes.append(len(again))
        return await requeue(connection, again, **said)

    monkeypatch.setattr("circuit_script.events.replay.feeder.requeue", noted)
    await Feeder(road.pool, at_once=2).feed()

    assert (await past.look(replay)).fed == 5
    assert sizes == [2, 2, 1]


async def test_records_deleted_since_are_left_out_and_skipped(road: Road, past: Replays) -> None:
    await handled(road, 4)
    worker = await road.start()
    await road.take_in(contact("c0", "afterDelete"))
    await road.done()
    assert await past.records(since=None, trigger="score") == ["c0", "c1", "c2", "c3"]  # its deletion is an event, too

    replay = await past.begin(trigger="score")
    await road.take_in(contact("c1", "afterDelete"))
    await road.done()
    before = len(worker.children.works)
    past.feed()
    done = await past.over(replay)

    assert (done.chosen, done.fed, done.skipped) == (4, 3, 1)
    assert await past.became(replay) == {"its record was deleted since": 1, "succeeded": 3}
    again = sorted(each for work in worker.children.works[before:] for each in replayed(work))
    assert again == ["c0", "c2", "c3"]
    assert await road.record("c0") is None


async def test_what_has_left_the_ledger_is_skipped(road: Road, past: Replays) -> None:
    await handled(road, 2)
    replay = await past.begin(trigger="score")
    await road.run("DELETE FROM circuit.events WHERE record = 'c0'")
    await road.start()
    past.feed()

    await past.over(replay)

    assert await past.became(replay) == {"no longer in the ledger": 1, "succeeded": 1}


async def test_a_worker_is_told_of_a_replay(road: Road, past: Replays) -> None:
    await handled(road, 1)
    listener = await road.connect()
    try:
        await listener.execute(f"LISTEN {replays.CHANNEL}".encode())
        await past.begin(trigger="score")
        async with asyncio.timeout(30):
            async for notice in listener.notifies():
                assert notice.channel == replays.CHANNEL
                break
    finally:
        await listener.close()


async def test_replays_are_found_by_how_their_id_begins(road: Road, past: Replays) -> None:
    first, second = await past.begin(trigger="score"), await past.begin(record="x")
    async with road.pool.connection() as connection:
        assert (await replays.find(connection, str(first.id))).id == first.id
        assert [each.id for each in await replays.latest(connection, 5)] == [second.id, first.id]
        assert [each.filter for each in await replays.latest(connection, 1)] == [{"record": "x"}]
        for which, said in (("0", "Several replays begin"), ("%", "No replay begins"), ("zzz", "No replay begins")):
            with pytest.raises(ReplayRefused, match=said):
                await replays.find(connection, which)


async def test_old_replays_are_swept_with_their_items(road: Road, past: Replays) -> None:
    await handled(road, 2)
    old = await past.begin(trigger="score")
    await road.run("UPDATE circuit.replays SET status = 'done', ended_at = now() - interval '31 days'")

    await past.begin(record="x")

    assert await road.rows("SELECT count(*) FROM circuit.replays WHERE id = %s", old.id) == [0]
    assert await road.rows("SELECT count(*) FROM circuit.replay_items") == [0]


async def test_of_old_replays_those_stay_of_which_anything_waits(road: Road, past: Replays) -> None:
    await handled(road, 1)
    old = await past.begin(trigger="score")
    await Feeder(road.pool).feed()
    await road.run("UPDATE circuit.replays SET status = 'cancelled', ended_at = now() - interval '31 days'")

    await past.begin(record="x")

    assert await road.rows("SELECT count(*) FROM circuit.replays WHERE id = %s", old.id) == [1]


async def test_what_waits_of_a_replay_that_nobody_knows_never_runs_in_the_live_release(
    road: Road, past: Replays
) -> None:
    await handled(road, 1)
    await past.begin(trigger="score")
    await Feeder(road.pool).feed()
    await road.run("DELETE FROM circuit.replays")

    worker = await road.start()
    await road.done()

    assert worker.children.works == []
    (reason,) = await road.rows("SELECT reason FROM circuit.dead_letters")
    assert "nothing is known any more of the replay" in reason


async def test_a_dead_letter_is_closed_by_the_replay_that_takes_its_event(road: Road, past: Replays) -> None:
    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        return Failed("no", Usage())

    await road.take_in(contact("a"))
    worker = await road.start(fail, attempts=1)
    await road.done()
    await worker.stop()
    road.workers.clear()
    await road.start()
    past.feed()

    await past.over(await past.begin(status=State.dead))

    letters = "SELECT status, by, again IS NOT NULL FROM circuit.dead_letters"
    assert await road.rows(letters) == [("retried", "ann", True)]


async def died(road: Road, *records: str) -> None:
    """Contacts whose events are dead, and open letters of each; their worker is gone."""

    async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
        return Failed("no", Usage())

    await road.take_in(*(contact(record) for record in records))
    worker = await road.start(fail, attempts=1)
    await road.done()
    await worker.stop()
    road.workers.clear()


LETTERS = "SELECT record, status FROM circuit.dead_letters ORDER BY record"


async def test_a_dead_letter_is_open_again_when_its_replay_is_cancelled_before_it_ran(
    road: Road, past: Replays
) -> None:
    await died(road, "a", "b")
    replay = await past.begin(status=State.dead)
    await Feeder(road.pool).feed()
    assert await road.rows(LETTERS) == [("a", "retried"), ("b", "retried")]

    async with road.pool.connection() as connection:
        await replays.cancel(connection, str(replay.id))

    assert await road.rows(LETTERS) == [("a", "open"), ("b", "open")]
    assert await past.records(status=State.dead) == ["a", "b"]


async def test_what_somebody_puts_back_meanwhile_is_not_put_back_twice(road: Road, past: Replays) -> None:
    await died(road, "a", "b")
    replay, other = await past.begin(status=State.dead), await past.begin(status=State.dead)
    (first, _) = await road.rows("SELECT id FROM circuit.dead_letters ORDER BY record")
    async with road.pool.connection() as connection:
        await retry(connection, [first], "ann")
    worker = await road.start()
    await road.done()
    past.feed()

    await past.over(replay)
    await past.over(other)

    assert sorted(worker.children.handled) == ["a", "b"]
    became = Counter(await past.became(replay)) + Counter(await past.became(other))
    assert became["it succeeded meanwhile"] >= 2
    assert sum(became.values()) == 4


async def test_letters_that_somebody_retries_are_waited_for_before_intake_is_held(road: Road, past: Replays) -> None:
    await died(road, "a", "b")
    await past.begin(status=State.dead)
    async with road.pool.connection() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM circuit.dead_letters FOR UPDATE")
            feeding = asyncio.create_task(Feeder(road.pool).feed())
            await road.until("SELECT count(*) FROM pg_locks WHERE NOT granted", [1])
            await road.take_in(contact("live"))  # would wait for ever
            await connection.execute("SELECT pg_advisory_xact_lock(7207418001)")  # as a retry does
        await feeding

    assert await road.rows("SELECT record FROM circuit.queue ORDER BY record") == ["a", "b", "live"]


async def test_what_is_paused_is_no_traffic_that_a_replay_waits_for(road: Road, past: Replays) -> None:
    await handled(road, 3)
    await road.take_in(*(Incoming(f"p{n}", tenant="other") for n in range(10)))
    replay = await past.begin(trigger="score", tenant="acme")
    feeder = Feeder(road.pool, busy=5)
    await feeder.feed()
    assert (await past.look(replay)).fed == 0

    async with road.pool.connection() as connection:
        await pause(connection, "tenant", "other", by="ann")
    await feeder.feed()

    assert (await past.look(replay)).fed == 3


async def test_a_replay_that_cannot_be_fed_does_not_hold_up_the_others(
    road: Road, past: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handled(road, 2)
    bad, good = await past.begin(record="c0"), await past.begin(record="c1")
    feeder = Feeder(road.pool)
    feed_one = feeder._feed_one

    async def refuse(connection: Connection, replay: UUID) -> None:
        if replay == bad.id:
            await connection.execute("SELECT 1 / 0")
        await feed_one(connection, replay)

    monkeypatch.setattr(feeder, "_feed_one", refuse)
    await feeder.feed()

    assert ((await past.look(bad)).fed, (await past.look(good)).fed) == (0, 1)


async def test_of_recorded_releases_the_two_that_were_asked_for_first_are_fed(road: Road, past: Replays) -> None:
    await handled(road, 4)
    made = [await past.begin(record=f"c{n}") for n in range(4)]
    for replay, name in zip(made, ("one", "two", "three", None), strict=True):
        release = None if name is None else (await road.live(SCORE, HandlerSpec(name, ()))).id
        await road.run("UPDATE circuit.replays SET release = %s WHERE id = %s", release, replay.id)

    await Feeder(road.pool).feed()
    assert [(await past.look(replay)).fed for replay in made] == [1, 1, 0, 1]
    async with road.pool.connection() as connection:
        await replays.cancel(connection, str(made[0].id))
    await Feeder(road.pool).feed()
    assert (await past.look(made[2])).fed == 1


async def test_a_release_that_cannot_run_ends_its_replays_and_no_other(road: Road, past: Replays) -> None:
    await handled(road, 2)
    mine, other = await past.begin(record="c0"), await past.begin(record="c1")
    await road.run("UPDATE circuit.replays SET release = %s WHERE id = %s", road.release.id, mine.id)
    await Feeder(road.pool).feed()

    async with road.pool.connection() as connection:
        await replays.fail(connection, road.release.id, "it does not import")

    failed = await past.look(mine)
    assert (failed.status, failed.reason, failed.is_over, failed.waiting) == ("failed", "it does not import", True, 0)
    assert await past.became(mine) == {"its release cannot be run": 1}
    assert (await past.look(other)).status == "running"
    assert await road.rows("SELECT replay FROM circuit.queue") == [other.id]
    async with road.pool.connection() as connection:
        with pytest.raises(ReplayRefused, match="over already"):
            await replays.cancel(connection, str(mine.id))
