"""Writes of records that live outside, where others write at the same time, or a reference names what was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import now, uuid7
from circuit_script.config import SourceSettings
from circuit_script.connectors.connector import Later, Refused
from circuit_script.connectors.query import Condition, Query
from circuit_script.connectors.reading import rows_of
from circuit_script.effects.doubt import send_again, settle_delivered
from circuit_script.effects.order import order_hash
from circuit_script.effects.settle import Arrived, Settlement, Settler
from circuit_script.effects.unit import UnitOfWork
from circuit_script.events.batch import Loader
from circuit_script.events.queued import Queued
from circuit_script.events.sources import open_sources
from tests.integration.test_homes import House
from tests.road import Incoming, open_road

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_road(database) as road:
        made = House(road)
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 1", made.worker)
        yield made


async def write(settler: Settler, *rows: tuple[str, dict[str, object]]) -> None:
    """Update by a worker of its own."""
    unit = UnitOfWork("Thing", ["t"])
    for object_, row in rows:
        unit.write("upsert", object_, [row], None)
    settlement = Settlement(
        execution=uuid7(), tenant="acme", release=1, handler=1, object="Thing", event="afterUpdate", records=1,
        status="succeeded", started_at=now(), usage={}, writes=unit.writes, place=(3, 33),
    )  # fmt: skip
    await settler.settle(settlement)


async def test_what_an_event_says_while_a_refusal_is_stored_stays(house: House, database: str) -> None:
    house.vendor.says[1] = Refused("one")
    await house.seen("c1", {"n": 0})
    await house.write("update", {"id": "c1", "n": 1})
    async with await psycopg.AsyncConnection.connect(database) as other, house.delivering():
        await other.execute("UPDATE circuit.records SET data = %s, seq = 99 WHERE id = 'c1'", [Jsonb({"n": 5})])
        await house.road.until(BLOCKED, [1])
        await other.commit()
        await house.until("dead")
    assert (await house.mirror("c1"))[0] == {"n": 5}


async def test_a_refused_delete_by_the_reference_leaves_the_record(house: House) -> None:
    (made,) = await house.write("insert", {"n": 7})
    await house.deliver("delivered")
    await house.write("delete", {"id": made})
    assert (await house.mirror("V-7"))[3] is True
    house.vendor.says[None] = Refused("no")
    await house.deliver("delivered", "dead")
    assert (await house.mirror("V-7"))[3] is False


async def test_a_refused_update_by_the_reference_brings_back_what_was(house: House) -> None:
    (made,) = await house.write("insert", {"n": 7})
    await house.deliver("delivered")
    house.vendor.says["bad"] = Refused("no")
    await house.write("update", {"id": made, "n": "bad"})
    await house.deliver("delivered", "dead")
    assert (await house.mirror("V-7"))[0] == {"n": 7}


async def test_by_its_reference_too_an_equal_write_is_sent_while_one_is_on_its_way(house: House) -> None:
    (made,) = await house.write("insert", {"n": 7})
    await house.deliver("delivered")
    await house.write("update", {"id": "V-7", "n": 9})
    await house.write("update", {"id": made, "n": 9})
    assert len(await house.effects("id")) == 3


async def test_what_a_person_says_was_made_stands_in_its_records_order(house: House) -> None:
    (made,) = await house.write("insert", {"n": 7})
    await house.write("update", {"id": made, "n": 8})
    await house.road.run("UPDATE circuit.effects SET status = 'in_doubt' WHERE operation = 'insert'")
    async with house.road.pool.connection() as connection:
        (id_,) = (await house.effects("id"))[:1]
        assert await settle_delivered(connection, [id_], by="ann", vendor_id="V-7") == [id_]
    await house.write("update", {"id": "V-7", "n": 9})
    await house.write("update", {"id": made, "n": 10})
    assert await house.effects("record", "order_hash") == [("V-7", order_hash("acme", "V-7"))] * 4


async def test_a_write_equal_to_what_was_read_before_another_wrote_is_sent(house: House) -> None:
    await house.seen("c1", {"a": 5})
    await house.write("update", {"id": "c1", "a": 6})
    await house.deliver("delivered")
    await house.write("update", {"id": "c1", "a": 5}, seen={"c1": {"id": "c1", "a": 5}})  # read before that
    assert [each["fields"] for each in await house.effects("payload")] == [{"a": 6}, {"a": 5}]


async def test_a_write_equal_to_an_event_from_before_another_write_is_sent(house: House) -> None:
    await house.seen("c1", {"a": 4})
    await house.write("update", {"id": "c1", "a": 6})
    await house.deliver("delivered")
    unit = UnitOfWork("Contact", ["c1"])
    unit.write("update", "Contact", [{"id": "c1", "a": 5}], None)
    await house.settle(unit, Arrived("Contact", "c1", {"a": 5}, 77))
    assert [each["fields"] for each in await house.effects("payload")] == [{"a": 6}, {"a": 5}]


async def test_effects_of_one_record_are_numbered_as_they_commit_also_when_it_is_new(
    house: House, database: str
) -> None:
    """Who waited for the first write of a record waits no second time: but those after it are to wait for it."""
    bucket = order_hash("acme", "c9") & 255
    other = Settler(house.road.pool, house.worker, home=house.homes.of)
    async with (
        await psycopg.AsyncConnection.connect(database) as first,
        await psycopg.AsyncConnection.connect(database) as local,
    ):
        await first.execute("SELECT pg_advisory_xact_lock(17225, %s)", [bucket])
        record = "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('acme', %s, %s, %s)"
        await first.execute(record, ["Contact", "c9", Jsonb({"n": 1})])
        await local.execute(record, ["Aside", "a1", Jsonb({})])

        both = ("Aside", {"id": "a1"}), ("Contact", {"id": "c9", "n": 2})
        second = asyncio.create_task(write(house.settler, *both))
        await house.road.until(BLOCKED, [1])
        await first.commit()
        await house.road.until(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND datname = current_database()",
            [1],
        )
        third = asyncio.create_task(write(other, ("Contact", {"id": "c9", "n": 3})))
        while not third.done() and (await house.road.rows(BLOCKED))[0] < 2:
            await asyncio.sleep(0.01)
        await local.rollback()
        await asyncio.gather(second, third)
    last = (await house.effects("payload"))[-1]["fields"]
    assert (await house.mirror("c9"))[0] == last


async def test_what_its_vendor_says_late_was_made_stands_in_its_records_order(house: House) -> None:
    """The answer comes when its effect is in doubt already."""
    (made,) = await house.write("insert", {"n": 7})
    await house.write("update", {"id": made, "n": 8})
    house.vendor.let = asyncio.Event()
    house.vendor.says[8] = Later("busy", 60.0)
    async with house.delivering():
        await house.road.until("SELECT count(*) FROM circuit.effects WHERE left_at IS NOT NULL", [1])
        await house.road.run("UPDATE circuit.effects SET status = 'in_doubt' WHERE operation = 'insert'")
        house.vendor.let.set()
        await house.until("delivered", "pending")
    assert await house.effects("record", "order_hash") == [("V-7", order_hash("acme", "V-7"))] * 2


async def test_a_record_that_is_made_while_its_event_is_loaded_is_known_as_ours(house: House, database: str) -> None:
    """The event comes first, then the answer: between the two looks at what is known."""
    await house.write("insert", {"n": 7})
    await house.road.run("UPDATE circuit.effects SET left_at = now()")
    (delivery,) = await house.road.take_in(Incoming("V-7", fields={"n": 7, "made": "today"}))
    (event,) = await house.road.rows("SELECT id FROM circuit.events WHERE delivery = %s", delivery)
    order = order_hash("acme", "V-7")
    row = Queued(event, 1, order, 0, 0, 0, delivery, None, None, "acme", "Contact", "afterInsert", "V-7")
    sources = open_sources(SourceSettings())
    loader = Loader(house.road.pool, sources, queued=False, home=house.homes.of)
    async with await psycopg.AsyncConnection.connect(database) as courier:
        await courier.execute("LOCK TABLE circuit.effects IN ACCESS EXCLUSIVE MODE")
        loading = asyncio.create_task(loader.load([row]))
        await house.road.until(BLOCKED, [1])
        await courier.execute("UPDATE circuit.effects SET status = 'delivered', vendor_id = 'V-7'")
        await courier.commit()
        items, _ = await loading
    assert [item.echo for item in items] == [True]


async def test_a_refused_upsert_of_a_deleted_record_leaves_it_deleted(house: House) -> None:
    await house.seen("c1", {"n": 0})
    await house.road.run("UPDATE circuit.records SET deleted = true")
    house.vendor.says[1] = Refused("no")
    await house.write("upsert", {"id": "c1", "n": 1})
    assert (await house.mirror("c1"))[3] is False
    await house.deliver("dead")
    assert (await house.mirror("c1"))[3] is True
    await house.write("upsert", {"id": "c1", "n": 0})
    assert await house.effects("operation") == ["upsert", "upsert"]


async def test_a_refused_upsert_of_a_deleted_record_takes_back_no_later_one(house: House) -> None:
    await house.seen("c1", {"n": 0})
    await house.road.run("UPDATE circuit.records SET deleted = true")
    house.vendor.says |= {1: Refused("no"), 2: Later("busy", 60.0)}
    await house.write("upsert", {"id": "c1", "n": 1})
    await house.write("upsert", {"id": "c1", "n": 2})
    await house.deliver("dead", "pending")
    assert (await house.mirror("c1"))[::3] == ({"n": 2}, False)
    house.vendor.says[2] = Refused("no")
    await house.road.run("UPDATE circuit.effects SET next_at = now()")
    await house.deliver("dead", "dead")
    assert (await house.mirror("c1"))[::3] == ({"n": 0}, True)


async def test_an_update_that_is_sent_again_makes_no_deleted_record(house: House) -> None:
    await house.seen("c1", {"n": 0})
    house.vendor.says[1] = Refused("no")
    await house.write("update", {"id": "c1", "n": 1})
    await house.deliver("dead")
    await house.road.run("UPDATE circuit.records SET deleted = true, seq = 9")
    async with house.road.pool.connection() as connection:
        await send_again(connection, await house.effects("id"), by="ann")
    await house.deliver("dead")
    assert (await house.mirror("c1"))[3] is True


async def test_who_looks_like_a_record_in_doubt_long_after_it_is_somebody_else(house: House) -> None:
    await house.write("insert", {"n": 7})
    sources = open_sources(SourceSettings())
    loader = Loader(house.road.pool, sources, queued=False, home=house.homes.of)
    echoes = []
    for age in ("1 minute", "2 days"):
        await house.road.run("UPDATE circuit.effects SET status = 'in_doubt', settled_at = now() - %s::interval", age)
        (delivery,) = await house.road.take_in(Incoming(f"V-{age}", fields={"n": 7, "email": "b@example.org"}))
        (event,) = await house.road.rows("SELECT id FROM circuit.events WHERE delivery = %s", delivery)
        row = Queued(event, 1, 5, 0, 0, 0, delivery, None, None, "acme", "Contact", "afterInsert", f"V-{age}")
        items, _ = await loader.load([row])
        echoes += [item.echo for item in items]
    assert echoes == [True, False]


async def test_of_a_search_only_what_its_author_gets_is_kept_in_mind(house: House) -> None:
    """The vendor may hand over very much that does not match."""
    house.vendor.rows = {each: {"id": each, "n": each} for each in ("c1", "c2")}
    crm = house.crm().of("acme", reads := {})
    await rows_of(crm, "acme", Query("Contact", Condition("n", "eq", "c2")))
    assert reads.keys() == {("Contact", "c2")}
