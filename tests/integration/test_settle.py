from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from circuit_script.clock import now, uuid7
from circuit_script.db.pool import Connection
from circuit_script.effects.due import Group, read_due
from circuit_script.effects.settle import Arrived, Settled, Settlement, Settler, is_transient
from circuit_script.effects.unit import Send, Write
from circuit_script.errors import Fenced
from circuit_script.events.backlog import Queued
from circuit_script.events.lanes import Lanes
from circuit_script.events.reader import QueueReader
from circuit_script.execution.outcome import HandlerSpec
from tests.road import SCORE, Incoming, Road, contact, open_road

OTHER = HandlerSpec("other", SCORE.routes)


class Desk:
    """A worker that holds every lane, and what it settles."""

    def __init__(self, road: Road, lanes: Lanes, connection: Connection) -> None:
        self.road = road
        self.lanes = lanes
        self.connection = connection
        self.settler = Settler(road.pool, lanes.worker)
        self.reader = QueueReader()

    async def queued(self, *incoming: Incoming) -> list[Queued]:
        await self.road.take_in(*incoming)
        return await self.reader.forward(self.connection, 1000)

    def settlement(
        self,
        batch: Sequence[Queued],
        *,
        status: str = "succeeded",
        fields: dict[str, Any] | None = None,
        arrived: bool = True,
        **changes: Any,
    ) -> Settlement:
        first = batch[0]
        made = Settlement(
            execution=uuid7(),
            tenant=first.tenant,
            release=self.road.release.id,
            handler=first.handler,
            object=first.object,
            event=first.event,
            records=len(batch),
            status={"succeeded": "succeeded", "echo": "echo"}.get(status, "failed"),
            started_at=now(),
            usage={"wall_time": 0.5, "callouts": 2},
            epochs={row.lane: self.lanes.held[row.lane] for row in batch},
            rows=[settled(row, status) for row in batch],
            arrived=[
                Arrived(
                    row.object, row.record, {"id": row.record, **(fields or {})}, row.id, row.event == "afterDelete"
                )
                for row in batch
                if arrived
            ],
        )
        return replace(made, **changes)

    async def settle(self, *settlements: Settlement) -> list[BaseException | None]:
        """All in one group; what each of them raised."""
        return list(await asyncio.gather(*map(self.settler.settle, settlements), return_exceptions=True))


def settled(row: Queued, status: str, **changes: Any) -> Settled:
    made = Settled(
        row.id, row.handler, row.lane, row.delivery, row.ordinal, row.tenant, row.record, status, row.attempts + 1,
        row.order_hash,
    )  # fmt: skip
    if status == "retry":
        made = replace(made, not_before=now() + timedelta(seconds=60), held_until=now() + timedelta(seconds=300))
    return replace(made, **changes)


def write(op: str, id_: str, object_: str = "Contact", **fields: Any) -> Write:
    return Write(op, object_, id_, fields, 0)


def incompressible(length: int) -> str:
    return Random(1).randbytes(length // 2).hex()


@pytest.fixture
async def desk(database: str, pooler: bool) -> AsyncIterator[Desk]:
    async with open_road(database, pooler) as road:
        await road.live(SCORE)
        connection = await road.connect()
        lanes = Lanes(uuid7(), 60)
        await lanes.beat(connection)
        yield Desk(road, lanes, connection)
        await connection.close()


@pytest.mark.every_server
async def test_outcome_usage_and_effects_are_stored_and_the_event_leaves_the_queue(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    send = Send(uuid7(), "webhook", "post", "alerts", {"hot": True}, 0)
    settlement = desk.settlement(
        [row],
        fields={"name": "Ann"},
        writes=[write("update", "c1", score=91), write("insert", "s1", "LeadScore", contactId="c1")],
        sends=[(send, row.lane, row.order_hash)],
    )

    assert await desk.settle(settlement) == [None]

    road = desk.road
    assert await road.rows("SELECT count(*) FROM circuit.queue") == [0]
    assert await road.rows("SELECT status, usage->'callouts', records FROM circuit.executions") == [("succeeded", 2, 1)]
    assert await road.rows("SELECT delivery, execution, status FROM circuit.outcomes") == [
        (row.delivery, settlement.execution, "succeeded")
    ]
    assert await road.record("c1") == {"id": "c1", "name": "Ann", "score": 91}
    assert await road.record("s1", "LeadScore") == {"id": "s1", "contactId": "c1"}
    assert await road.rows("SELECT id, status, connector, record, payload FROM circuit.effects WHERE status = %s",
                           "pending") == [(send.id, "pending", "webhook", "c1", {"hot": True})]  # fmt: skip
    (local,) = await road.rows("SELECT payload FROM circuit.effects WHERE connector = 'local'")
    assert local == [["update", "Contact", ["score"], ["c1"]], ["insert", "LeadScore", ["contactId"], ["s1"]]]
    assert await road.rows("SELECT written FROM circuit.records WHERE id = 'c1'") == [{"score": 91}]


@pytest.mark.every_server
async def test_a_fenced_settlement_keeps_nothing_while_the_others_of_its_group_are_kept(desk: Desk) -> None:
    good, bad, fine = await desk.queued(contact("c1"), contact("c2"), contact("c3"))
    stale = desk.settlement([bad], writes=[write("update", "c2", score=1)])
    stale = replace(stale, epochs={bad.lane: desk.lanes.held[bad.lane] - 1})
    lanes_differ = len({good.lane, bad.lane, fine.lane}) == 3
    assert lanes_differ, "otherwise this test shows nothing"

    results = await desk.settle(desk.settlement([good]), stale, desk.settlement([fine]))

    assert results[0] is results[2] is None
    assert isinstance(results[1], Fenced)
    assert await desk.road.rows("SELECT record FROM circuit.queue") == ["c2"]
    assert await desk.road.rows("SELECT id FROM circuit.records ORDER BY id") == ["c1", "c3"]
    assert await desk.road.rows("SELECT count(*) FROM circuit.executions WHERE id = %s", stale.execution) == [0]


async def test_a_lane_of_another_owner_fences_whatever_the_epoch(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    await desk.road.run("UPDATE circuit.lanes SET owner = %s", uuid7())

    (result,) = await desk.settle(desk.settlement([row]))

    assert isinstance(result, Fenced)
    assert await desk.road.rows("SELECT count(*) FROM circuit.executions") == [0]


async def test_a_stale_epoch_is_not_covered_by_a_newer_one_of_the_same_group(desk: Desk) -> None:
    old, new = await desk.queued(contact("c1", key="k"), Incoming("c2", key="c1"))
    assert old.lane == new.lane
    stale = desk.settlement([old])
    desk.lanes.held[old.lane] += 1
    await desk.road.run("UPDATE circuit.lanes SET epoch = epoch + 1 WHERE lane = %s", old.lane)

    results = await desk.settle(stale, desk.settlement([new]))

    assert isinstance(results[0], Fenced)
    assert results[1] is None
    assert await desk.road.rows("SELECT record FROM circuit.queue") == ["c1"]


@pytest.mark.every_server
async def test_the_same_event_settled_twice_counts_once(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    one, two = (desk.settlement([row], fields={"by": name}) for name in ("one", "two"))

    together = await desk.settle(one, two)
    later = await desk.settle(desk.settlement([row], fields={"by": "three"}))

    assert [type(each) for each in (*together, *later)] == [type(None), Fenced, Fenced]
    assert await desk.road.rows("SELECT execution FROM circuit.outcomes") == [one.execution]
    assert await desk.road.record("c1") == {"id": "c1", "by": "one"}


async def test_a_retry_stays_queued_and_its_attempt_is_counted_once(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    failed = [settled(row, "retry", reason="boom")]

    first = await desk.settle(desk.settlement([row], status="retry", rows=failed, arrived=False))
    second = await desk.settle(desk.settlement([row], status="retry", rows=failed, arrived=False))

    assert first == [None]
    assert isinstance(second[0], Fenced)
    assert await desk.road.rows("SELECT attempts, not_before > now(), held_until > not_before FROM circuit.queue") == [
        (1, True, True)
    ]
    assert await desk.road.rows("SELECT status, reason FROM circuit.outcomes") == [("retry", "boom")]
    assert await desk.road.record("c1") is None, "what a failed event brought is not stored yet"


async def test_one_group_may_hold_successes_retries_and_deaths(desk: Desk) -> None:
    rows = await desk.queued(*(contact(f"c{n}") for n in range(6)))
    statuses = ["succeeded", "retry", "dead", "echo", "retry", "succeeded"]

    results = await desk.settle(
        *(desk.settlement([row], status=each) for row, each in zip(rows, statuses, strict=True))
    )

    assert results == [None] * 6
    assert await desk.road.rows("SELECT record FROM circuit.queue ORDER BY id") == ["c1", "c4"]
    assert await desk.road.rows("SELECT status FROM circuit.outcomes o JOIN circuit.events e USING (delivery) "
                                "ORDER BY e.id") == statuses  # fmt: skip


async def test_a_dead_event_becomes_a_dead_letter_with_its_reason(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    dead = settled(row, "dead", reason="no phone", attempts=5)

    await desk.settle(desk.settlement([row], status="dead", rows=[dead]))

    assert await desk.road.rows(
        "SELECT kind, tenant, delivery, record, attempts, reason, handler FROM circuit.dead_letters"
    ) == [("event", "acme", row.delivery, "c1", 5, "no phone", row.handler)]
    assert await desk.road.rows("SELECT count(*) FROM circuit.queue") == [0]
    assert await desk.road.record("c1") == {"id": "c1"}, "the record is known, though nobody handled it"


async def test_an_event_brings_its_state_and_keeps_what_it_replaced_as_before_image(desk: Desk) -> None:
    (first,) = await desk.queued(contact("c1"))
    await desk.settle(desk.settlement([first], fields={"name": "Ann", "city": "Rome"}))
    (second,) = await desk.queued(contact("c1", "afterUpdate"))
    await desk.settle(desk.settlement([second], fields={"city": "Oslo", "phone": "1"}))

    assert await desk.road.rows("SELECT data, before, seq FROM circuit.records") == [
        ({"name": "Ann", "city": "Oslo", "phone": "1"}, {"city": "Rome", "phone": None}, second.id)
    ]


async def test_an_overtaken_event_changes_nothing_but_its_handlers_writes_do(desk: Desk) -> None:
    early, late = await desk.queued(contact("c1", "afterUpdate"), contact("c1", "afterUpdate"))
    await desk.settle(desk.settlement([late], fields={"city": "Oslo"}))

    await desk.settle(desk.settlement([early], fields={"city": "Rome"}, writes=[write("update", "c1", score=5)]))

    assert await desk.road.rows("SELECT data, written, seq FROM circuit.records") == [
        ({"city": "Oslo", "score": 5}, {"score": 5}, late.id)
    ]


async def test_two_handlers_of_one_event_leave_one_before_image_that_undoes_the_writes_of_both(
    desk: Desk,
) -> None:
    await desk.road.live(SCORE, OTHER)
    (insert, _) = await desk.queued(contact("c1"))
    await desk.settle(desk.settlement([insert], fields={"city": "Rome", "score": 1, "grade": "C"}))
    one, two = await desk.queued(contact("c1", "afterUpdate"))
    assert one.id == two.id

    results = await desk.settle(
        desk.settlement([one], fields={"city": "Oslo"}, writes=[write("update", "c1", score=2)]),
        desk.settlement([two], fields={"city": "Oslo"}, writes=[write("update", "c1", grade="A")]),
    )

    assert results == [None, None]
    ((data, before, seq),) = await desk.road.rows("SELECT data, before, seq FROM circuit.records")
    assert data == {"city": "Oslo", "score": 2, "grade": "A"}
    assert {**data, **before} == {"city": "Rome", "score": 1, "grade": "C"}
    assert seq == one.id


async def test_writes_patch_what_is_there_and_make_what_is_not(desk: Desk) -> None:
    one, two = await desk.queued(contact("c1"), contact("c2"))
    await desk.settle(desk.settlement([one], fields={"name": "Ann"}, writes=[write("upsert", "n1", "Note", text="a")]))

    await desk.settle(
        desk.settlement(
            [two],
            writes=[
                write("upsert", "n1", "Note", pinned=True),
                write("upsert", "n2", "Note", text="b"),
                write("update", "n2", "Note", text="c"),
                write("update", "c1", city="Rome"),
            ],
        )
    )

    assert await desk.road.record("n1", "Note") == {"id": "n1", "text": "a", "pinned": True}
    assert await desk.road.record("n2", "Note") == {"id": "n2", "text": "c"}
    assert await desk.road.record("c1") == {"id": "c1", "name": "Ann", "city": "Rome"}


async def test_a_deleted_record_is_hidden_and_kept(desk: Desk) -> None:
    one, two = await desk.queued(contact("c1"), contact("c2"))
    await desk.settle(desk.settlement([one], fields={"name": "Ann"}))

    await desk.settle(desk.settlement([two], writes=[write("delete", "c1"), write("delete", "never was")]))

    assert await desk.road.record("c1") is None
    assert await desk.road.rows("SELECT deleted, data FROM circuit.records WHERE id = 'c1'") == [
        (True, {"name": "Ann"})
    ]
    assert await desk.road.record("never was") is None


async def test_an_older_event_that_was_overtaken_does_not_bring_a_deleted_record_back(desk: Desk) -> None:
    insert, update, delete = await desk.queued(
        contact("c1"), contact("c1", "afterUpdate"), contact("c1", "afterDelete")
    )
    await desk.settle(desk.settlement([insert], fields={"name": "Ann"}))
    await desk.settle(desk.settlement([delete]))

    await desk.settle(desk.settlement([update], fields={"name": "Anna"}))

    assert await desk.road.record("c1") is None
    (back,) = await desk.queued(contact("c1", "afterInsert"))
    await desk.settle(desk.settlement([back], fields={"name": "Ann again"}))
    assert await desk.road.record("c1") == {"id": "c1", "name": "Ann again"}


async def test_a_late_delete_does_not_take_what_a_newer_event_brought(desk: Desk) -> None:
    delete, insert = await desk.queued(contact("c1", "afterDelete"), contact("c1"))
    await desk.settle(desk.settlement([insert], fields={"name": "Ann"}))

    await desk.settle(desk.settlement([delete]))

    assert await desk.road.record("c1") == {"id": "c1", "name": "Ann"}


@pytest.mark.every_server
async def test_what_json_or_postgresql_cannot_hold_is_stored_as_near_as_can_be(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    rows = [settled(row, "dead", reason="a\0b \ud800")]

    results = await desk.settle(
        desk.settlement(
            [row],
            status="dead",
            rows=rows,
            reason="x\0y",
            detail="d\0e\ud800",
            fields={"a\0": ["b\0", {"c": "\0"}], "plain": "\\u0000", "nan": float("nan"), "raw": b"\xff"},
            writes=[write("update", "c1", when=now().replace(year=2030))],
        )
    )

    assert results == [None]
    found = await desk.road.record("c1")
    assert found is not None
    assert found["a\ufffd"] == ["b\ufffd", {"c": "\ufffd"}]
    assert found["plain"] == "\\u0000"
    assert (found["nan"], found["raw"]) == (None, "/w==")
    assert found["when"].startswith("2030-")
    assert await desk.road.rows("SELECT reason FROM circuit.dead_letters") == ["a\ufffdb ?"]
    assert await desk.road.rows("SELECT reason, detail FROM circuit.executions") == [("x\ufffdy", "d\ufffde?")]


async def test_a_settlement_that_cannot_be_stored_fails_alone_and_says_so(desk: Desk) -> None:
    rows = await desk.queued(contact("c1"), contact("c2"), contact("c3"), contact("c4"))
    endless: list[Any] = []
    endless.append(endless)
    good, unencodable, too_long, fine = (desk.settlement([row]) for row in rows)
    unencodable = replace(unencodable, writes=[write("update", "c2", endless=endless)])
    too_long = replace(too_long, writes=[write("insert", incompressible(9000))])

    results = await desk.settle(good, unencodable, too_long, fine)

    assert results[0] is results[3] is None
    for result in results[1:3]:
        assert isinstance(result, psycopg.Error)
        assert not is_transient(result)
    assert await desk.road.rows("SELECT record FROM circuit.queue ORDER BY id") == ["c2", "c3"]


async def test_a_contact_id_too_long_for_the_index_is_stored_all_the_same(desk: Desk) -> None:
    (row,) = await desk.queued(contact("c1"))
    long = incompressible(9000)

    assert await desk.settle(desk.settlement([row], fields={"contactId": long})) == [None]

    assert await desk.road.record("c1") == {"id": "c1", "contactId": long}


async def test_many_executions_share_commits_and_those_that_touch_one_record_keep_their_order(desk: Desk) -> None:
    incoming = [contact(f"c{n}") for n in range(80)]
    rows = await desk.queued(*incoming)
    settlements = [
        desk.settlement([row], writes=[write("upsert", "total", "Counter", last=n)]) if n % 4 == 0
        else desk.settlement([row])
        for n, row in enumerate(rows)
    ]  # fmt: skip

    results = await desk.settle(*settlements)

    assert results == [None] * 80
    assert await desk.road.record("total", "Counter") == {"id": "total", "last": 76}
    commits = await desk.road.rows("SELECT count(DISTINCT xmin::text) FROM circuit.executions")
    assert 20 <= commits[0] < 80


async def test_a_waiting_caller_that_is_cancelled_does_not_stop_the_others(desk: Desk) -> None:
    one, two = await desk.queued(contact("c1"), contact("c2"))
    first = asyncio.create_task(desk.settler.settle(desk.settlement([one])))
    second = asyncio.create_task(desk.settler.settle(desk.settlement([two])))
    await asyncio.sleep(0)
    first.cancel()

    await second

    assert await desk.road.rows("SELECT count(*) FROM circuit.queue WHERE record = 'c2'") == [0]


async def test_a_delete_that_settles_before_its_insert_is_not_undone(desk: Desk) -> None:
    insert, delete = await desk.queued(contact("c1"), contact("c1", "afterDelete"))
    await desk.settle(desk.settlement([delete], fields={"name": "Ann"}))

    await desk.settle(desk.settlement([insert], fields={"name": "Ann", "email": "a@example.com"}))

    assert await desk.road.record("c1") is None


async def test_an_older_event_that_settles_late_only_fills_in_what_is_missing(desk: Desk) -> None:
    insert, update = await desk.queued(contact("c1"), contact("c1", "afterUpdate"))
    await desk.settle(desk.settlement([update], fields={"city": "Oslo"}))

    await desk.settle(desk.settlement([insert], fields={"city": "Rome", "email": "a@example.com"}))

    assert await desk.road.record("c1") == {"id": "c1", "city": "Oslo", "email": "a@example.com"}


async def test_a_record_that_a_handler_deleted_is_not_brought_back_by_another_handler_of_the_event(desk: Desk) -> None:
    await desk.road.live(SCORE, OTHER)
    one, two = await desk.queued(contact("c1"))
    await desk.settle(desk.settlement([one], fields={"name": "Ann"}, writes=[write("delete", "c1")]))

    await desk.settle(desk.settlement([two], fields={"name": "Ann"}, writes=[write("update", "c1", score=1)]))

    assert await desk.road.record("c1") is None


async def test_a_deleted_record_that_a_handler_inserts_again_is_there_again(desk: Desk) -> None:
    one, two = await desk.queued(contact("c1"), contact("c2"))
    await desk.settle(desk.settlement([one], fields={"name": "Ann"}, writes=[write("delete", "c1")]))

    await desk.settle(desk.settlement([two], writes=[write("upsert", "c1", score=1)]))

    assert await desk.road.record("c1") == {"id": "c1", "name": "Ann", "score": 1}


async def test_effects_leave_in_the_order_of_their_commits_whatever_their_ids_say(desk: Desk) -> None:
    """Clocks are set back, and two workers make ids within one millisecond."""
    first, second = await desk.queued(contact("c1"), contact("c1", n=2))
    later, earlier, least = sorted((uuid7() for _ in range(3)), reverse=True)

    def sends(row: Queued, *ids: UUID) -> list[tuple[Send, int, int]]:
        return [(Send(id_, "vendor", "post", "alerts", {}, 0), row.lane, row.order_hash) for id_ in ids]

    await desk.settle(desk.settlement([first], sends=sends(first, later, earlier)))
    await desk.settle(desk.settlement([second], sends=sends(second, least)))

    left, group = [], Group("acme", "vendor", "post", "alerts")
    async with desk.road.pool.connection() as connection:
        for _ in range(3):
            (due,) = await read_due(connection, {group: 9}, dict.fromkeys(range(64), 1), (), 9)
            left.append(due.effect.id)
            await connection.execute("UPDATE circuit.effects SET status = 'delivered' WHERE id = %s", [due.effect.id])
    assert left == [later, earlier, least]
