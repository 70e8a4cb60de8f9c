"""Writes of records that live outside: their effects, and the mirror."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import now, uuid7
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Fields, InDoubt, Later, Operation, Refused
from circuit_script.connectors.homes import HomedCRM, Homes
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.query import Condition, Page, Plan, Query
from circuit_script.connectors.reading import rows_of
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.effects.doubt import send_again, settle_discarded
from circuit_script.effects.order import order_hash
from circuit_script.effects.settle import Arrived, Settlement, Settler
from circuit_script.effects.unit import UnitOfWork
from circuit_script.erasure.blank import STEPS
from circuit_script.errors import ConfigError
from tests.road import Road, open_road


class Vendor:
    """A CRM that answers as the test says, by field: ``says`` maps a value of ``n`` to a result."""

    name = "vendor"
    objects = frozenset({"Contact", "Task"})
    operations: Mapping[str, Operation] = {
        each: Operation(InDoubt.REPEAT, bulk=10, timeout=2.0, makes_ids=each in ("insert", "upsert"))
        for each in ("insert", "update", "upsert", "delete")
    }

    def __init__(self) -> None:
        self.says: dict[Any, Delivery] = {}
        self.got: list[tuple[str, Fields]] = []
        self.rows: dict[str, Fields] = {}
        self.let: asyncio.Event | None = None

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        if self.let is not None:
            await self.let.wait()
        self.got += [(operation, each.payload) for each in effects]
        return [
            self.says.get(each.payload.get("fields", {}).get("n"))
            or Delivered(f"V-{each.payload['fields'].get('n')}" if operation == "insert" else None)
            for each in effects
        ]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        return None

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        return Page(list(self.rows.values()), None)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return [self.rows.get(each) for each in ids]

    def explain(self, query: Query) -> Plan:
        return Plan(self.name, ("GET /",), ordered=False)


class House:
    """An app whose contacts live with a vendor, and a worker that holds every lane."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.worker = uuid7()
        self.vendor = Vendor()
        self.homes = Homes({"vendor": self.vendor}, "vendor")
        self.settler = Settler(road.pool, self.worker, home=self.homes.of)
        self.held = dict.fromkeys(range(64), 1)

    async def settle(self, unit: UnitOfWork, *arrived: Arrived, depth: int = 1) -> None:
        settlement = Settlement(
            execution=uuid7(), tenant="acme", release=1, handler=1, object=unit.object, event="afterUpdate",
            records=len(unit.ids), status="succeeded", started_at=now(), usage={}, arrived=arrived,
            writes=unit.writes, sends=[(each, 3, 33) for each in unit.sends], place=(3, 33), depth=depth,
        )  # fmt: skip
        await self.settler.settle(settlement)

    async def write(self, op: str, *rows: Fields, object_: str = "Contact", **more: Any) -> list[str]:
        """Write in an outcome of its own; the ids."""
        unit = UnitOfWork("Thing", ["t"])
        ids = unit.write(op, object_, list(rows), None, **more)
        await self.settle(unit)
        return ids

    async def effects(self, *columns: str) -> list[Any]:
        return await self.road.rows(
            f"SELECT {', '.join(columns)} FROM circuit.effects WHERE connector <> 'local' ORDER BY seq"
        )

    async def mirror(self, id_: str, object_: str = "Contact") -> Any:
        found = await self.road.rows(
            "SELECT data, written, depth, deleted FROM circuit.records WHERE object = %s AND id = %s", object_, id_
        )
        return found[0] if found else None

    @asynccontextmanager
    async def delivering(self, **options: Any) -> AsyncIterator[Courier]:
        chosen = CourierOptions(**({"attempts": 2, "backoff": 0.02, "poll": 0.02} | options))
        courier = Courier(
            database=self.road.pool, connectors={"vendor": self.vendor}, worker=self.worker,
            held=lambda: self.held, options=chosen,
        )  # fmt: skip
        task = asyncio.create_task(courier.run())
        try:
            yield courier
        finally:
            if self.vendor.let is not None:
                self.vendor.let.set()
            courier.stop()
            await asyncio.wait_for(task, 5)

    async def deliver(self, *states: str) -> None:
        """Deliver until the effects are like this."""
        async with self.delivering():
            await self.until(*states)

    async def until(self, *states: str) -> None:
        query = "SELECT status FROM circuit.effects WHERE connector <> 'local' ORDER BY seq"
        await self.road.until(query, list(states))

    async def seen(self, id_: str, fields: Fields, object_: str = "Contact") -> None:
        """The mirror has seen this of a record."""
        await self.road.run(
            "INSERT INTO circuit.records (tenant, object, id, data, seq) VALUES ('acme', %s, %s, %s, 1)",
            object_, id_, Jsonb(fields),
        )  # fmt: skip

    def crm(self) -> HomedCRM:
        return HomedCRM(self.homes, LocalCRM(self.road.pool), self.road.pool)


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_road(database) as road:
        made = House(road)
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 1", made.worker)
        yield made


# Effects ----------------------------------------------------------------------------------------


async def test_each_write_is_an_effect_of_its_record_beside_the_mirror(house: House) -> None:
    await house.write("update", {"id": "c1", "a": 1}, {"id": "c2", "a": 2})
    await house.write("delete", {"id": "c3"})

    assert await house.effects("connector", "operation", "target", "record", "payload", "order_hash", "status") == [
        ("vendor", "update", "Contact", "c1", {"id": "c1", "fields": {"a": 1}}, order_hash("acme", "c1"), "pending"),
        ("vendor", "update", "Contact", "c2", {"id": "c2", "fields": {"a": 2}}, order_hash("acme", "c2"), "pending"),
        ("vendor", "delete", "Contact", "c3", {"id": "c3"}, order_hash("acme", "c3"), "pending"),
    ]
    assert await house.mirror("c1") == ({"a": 1}, {"a": 1}, 1, False)
    assert await house.road.rows("SELECT count(*) FROM circuit.effects WHERE connector = 'local'") == [0]


async def test_what_lives_here_is_written_as_ever(house: House) -> None:
    await house.write("insert", {"id": "l1", "total": 9}, object_="LeadScore")
    assert await house.effects("id") == []
    assert await house.road.rows("SELECT operation, status FROM circuit.effects") == [("insert LeadScore", "delivered")]


async def test_what_would_change_nothing_is_not_sent(house: House) -> None:
    await house.seen("c1", {"status": "hot", "n": 1.0, "none": None})
    await house.write("update", {"id": "c1", "status": "hot", "n": 1, "none": None})
    await house.write("upsert", {"id": "c1", "status": "hot"})
    assert await house.effects("id") == []

    await house.write("update", {"id": "c1", "status": "cold"})
    await house.write("update", {"id": "c1", "absent": None})
    await house.write("update", {"id": "unseen", "status": "hot"})
    assert [each["fields"] for each in await house.effects("payload")] == [
        {"status": "cold"}, {"absent": None}, {"status": "hot"}
    ]  # fmt: skip


async def test_while_a_write_of_the_same_field_is_on_its_way_an_equal_one_is_sent_too(house: House) -> None:
    """The vendor may refuse the first."""
    await house.seen("c1", {"a": 0, "b": 0})
    await house.write("update", {"id": "c1", "a": 1})
    await house.write("update", {"id": "c1", "a": 1})  # in the mirror, and nowhere else
    await house.write("update", {"id": "c1", "b": 0})  # nothing is on its way to it
    assert [each["fields"] for each in await house.effects("payload")] == [{"a": 1}, {"a": 1}]

    await house.deliver("delivered", "delivered")
    await house.write("update", {"id": "c1", "a": 1})
    assert len(await house.effects("id")) == 2


async def test_in_doubt_is_on_its_way(house: House) -> None:
    await house.seen("c1", {"a": 0})
    await house.write("update", {"id": "c1", "a": 1})
    await house.road.run("UPDATE circuit.effects SET status = 'in_doubt'")
    await house.write("update", {"id": "c1", "a": 1})
    assert len(await house.effects("id")) == 2


async def test_what_an_event_brought_and_what_was_read_count_as_seen(house: House) -> None:
    await house.seen("c1", {"a": 0})
    unit = UnitOfWork("Contact", ["c1"])
    unit.write("update", "Contact", [{"id": "c1", "a": 5}], None)
    await house.settle(unit, Arrived("Contact", "c1", {"a": 5}, 77))  # as it came, so that it is so
    assert await house.effects("id") == []

    await house.write(
        "update", {"id": "c1", "a": 5}, seen={"c1": {"id": "c1", "a": 6}}
    )  # its vendor has said otherwise
    assert [each["fields"] for each in await house.effects("payload")] == [{"a": 5}]


async def test_writes_of_one_record_in_one_outcome_are_one_request(house: House) -> None:
    unit = UnitOfWork("Thing", ["t"])
    (made,) = unit.write("insert", "Contact", [{"n": 1}], None)
    unit.write("update", "Contact", [{"id": made, "n": 2, "b": 3}], None)
    unit.write("update", "Contact", [{"id": "c1", "a": 1}], None)
    unit.write("update", "Contact", [{"id": "c1", "a": 2}], None)
    await house.settle(unit)
    assert [(op, each["fields"]) for op, each in await house.effects("operation", "payload")] == [
        ("insert", {"n": 2, "b": 3}), ("update", {"a": 2})
    ]  # fmt: skip


async def test_two_new_records_that_name_each_other_are_both_made(house: House) -> None:
    unit = UnitOfWork("Thing", ["t"])
    (one,) = unit.write("insert", "Contact", [{"n": 1}], None)
    unit.write("insert", "Contact", [{"n": 2, "friend": one}], None)
    unit.write("update", "Contact", [{"id": one, "friend": unit.writes[-1].id}], None)
    await house.settle(unit)
    await house.deliver("delivered", "delivered", "delivered")
    assert [(op, each["fields"]) for op, each in house.vendor.got] == [
        ("insert", {"n": 1}), ("insert", {"n": 2, "friend": "V-1"}), ("update", {"friend": "V-2"})
    ]  # fmt: skip


# References --------------------------------------------------------------------------------------


async def test_a_new_record_gets_its_vendors_id_wherever_its_reference_stands(house: House) -> None:
    unit = UnitOfWork("Thing", ["t", "u"])
    (made,) = unit.write("insert", "Contact", [{"n": 7}], None)
    unit.write("insert", "Task", [{"n": 8, "contactId": made}], None)
    unit.write("insert", "LeadScore", [{"id": "l1", "contactId": made}], None)
    unit.send("vendor", "update", "Other", {"id": "x", "fields": {"of": made}}, None)
    await house.settle(unit, depth=4)
    assert await house.mirror(made) == ({"n": 7}, {"n": 7}, 4, False)

    await house.deliver("delivered", "delivered", "delivered")
    assert await house.mirror(made) is None
    assert await house.mirror("V-7") == ({"n": 7}, {"n": 7}, 4, False)
    assert (await house.mirror("V-8", "Task"))[0] == {"n": 8, "contactId": "V-7"}
    assert (await house.mirror("l1", "LeadScore"))[0] == {"contactId": "V-7"}
    got = {payload["fields"].get("n"): payload["fields"] for _, payload in house.vendor.got}
    assert got == {7: {"n": 7}, 8: {"n": 8, "contactId": "V-7"}, None: {"of": "V-7"}}
    assert (await house.effects("record", "vendor_id", "order_hash"))[0] == ("V-7", "V-7", order_hash("acme", "V-7"))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_another_outcome_may_use_the_reference_before_and_after_the_record_is_made(
    house: House, when: str
) -> None:
    (made,) = await house.write("insert", {"n": 7})
    if when == "after":
        await house.deliver("delivered")
    await house.write("update", {"id": made, "n": 9})
    await house.deliver("delivered", "delivered")
    assert house.vendor.got == [
        ("insert", {"id": made, "fields": {"n": 7}}), ("update", {"id": "V-7", "fields": {"n": 9}})
    ]  # fmt: skip
    assert await house.mirror(made) is None
    assert (await house.mirror("V-7"))[0] == {"n": 9}
    assert await house.effects("order_hash") == [order_hash("acme", "V-7")] * 2


async def test_a_record_is_read_by_its_reference_on_its_way_and_when_it_is_made(house: House) -> None:
    (made,) = await house.write("insert", {"n": 7})
    assert await house.crm().get("acme", "Contact", [made]) == [{"n": 7, "id": made}]
    await house.deliver("delivered")
    house.vendor.rows["V-7"] = {"id": "V-7", "n": 70}
    assert await house.crm().get("acme", "Contact", [made, "V-7", str(uuid7())]) == [
        {"n": 70, "id": made}, {"n": 70, "id": "V-7"}, None
    ]  # fmt: skip


async def test_what_uses_a_record_that_was_refused_is_not_sent(house: House) -> None:
    house.vendor.says[7] = Refused("email: is no address")
    (made,) = await house.write("insert", {"n": 7})
    await house.write("update", {"id": made, "n": 8})
    await house.deliver("dead", "dead")
    assert len(house.vendor.got) == 1
    assert await house.mirror(made) is None
    reasons = await house.effects("reason")
    assert reasons[0] == "email: is no address"
    assert "reference" in reasons[1]


# Refusals ----------------------------------------------------------------------------------------


async def test_what_a_vendor_refuses_does_not_stand_in_the_mirror(house: House) -> None:
    house.vendor.says["bad"] = Refused("n: is not allowed")
    await house.seen("c1", {"n": "good", "kept": 1})
    await house.write("update", {"id": "c1", "n": "bad", "new": 2})
    assert (await house.mirror("c1"))[:2] == ({"n": "bad", "new": 2, "kept": 1}, {"n": "bad", "new": 2})
    await house.deliver("dead")
    assert (await house.mirror("c1"))[:2] == ({"n": "good", "kept": 1}, {})
    assert await house.road.rows("SELECT record, reason FROM circuit.dead_letters") == [("c1", "n: is not allowed")]


async def test_a_refused_write_takes_back_no_later_one_and_a_later_one_brings_it_not_back(house: House) -> None:
    house.vendor.says |= {1: Refused("one"), 2: Refused("two")}
    await house.seen("c1", {"n": 0})
    await house.write("update", {"id": "c1", "n": 1})
    await house.write("update", {"id": "c1", "n": 2})
    house.vendor.let = asyncio.Event()
    async with house.delivering():
        house.vendor.let.set()
        await house.until("dead", "dead")
    assert (await house.mirror("c1"))[0] == {"n": 0}

    await house.write("update", {"id": "c1", "n": 1})
    await house.write("update", {"id": "c1", "n": 3})
    await house.deliver("dead", "dead", "dead", "delivered")
    assert (await house.mirror("c1"))[0] == {"n": 3}


async def test_an_event_since_then_stays(house: House) -> None:
    house.vendor.says[1] = Refused("one")
    await house.seen("c1", {"n": 0})
    await house.write("update", {"id": "c1", "n": 1})
    await house.settle(UnitOfWork("Contact", ["c1"]), Arrived("Contact", "c1", {"n": 5}, 99))
    await house.deliver("dead")
    assert (await house.mirror("c1"))[0] == {"n": 5}


async def test_a_refused_delete_leaves_the_record(house: House) -> None:
    await house.seen("c1", {"n": 0})
    await house.write("delete", {"id": "c1"})
    assert (await house.mirror("c1"))[3] is True
    house.vendor.says[None] = Refused("no")
    await house.deliver("dead")
    assert (await house.mirror("c1"))[3] is False


async def test_what_a_person_sends_again_counts_again_and_what_is_discarded_does_not(house: House) -> None:
    house.vendor.says[1] = Refused("one")
    await house.seen("c1", {"n": 0})
    await house.write("update", {"id": "c1", "n": 1})
    await house.deliver("dead")
    (id_,) = await house.effects("id")
    async with house.road.pool.connection() as connection:
        assert await send_again(connection, [id_], by="ann", payload={"id": "c1", "fields": {"n": 4}}) == [id_]
    assert (await house.mirror("c1"))[0] == {"n": 4}
    await house.deliver("delivered")
    assert (await house.mirror("c1"))[0] == {"n": 4}

    await house.write("update", {"id": "c1", "n": 1})
    await house.deliver("delivered", "dead")
    async with house.road.pool.connection() as connection:
        last: UUID = (await house.effects("id"))[-1]
        assert await settle_discarded(connection, [last], by="ann") == [last]
    assert (await house.mirror("c1"))[0] == {"n": 4}


async def test_what_is_forgotten_keeps_nothing_of_what_was_there_before(house: House) -> None:
    await house.seen("c1", {"email": "ann@example.com"})
    await house.write("update", {"id": "c1", "email": "ann@example.org"})
    effects = [each.statement for each in STEPS if each.table == "effects"]
    values = {"tenant": "acme", "ids": ["c1"]}
    for statement in (each for each in effects if "%(ids)s" in each):
        async with house.road.pool.connection() as connection:
            await connection.execute(statement.encode(), values)
    assert await house.effects("status", "payload", "was") == [("discarded", {}, None)]


# The mirror and the vendor's own events ----------------------------------------------------------


async def test_an_older_state_that_comes_meanwhile_does_not_hide_that_the_write_is_ours(house: House) -> None:
    """A webhook of another change, sent before our write arrived, has the old value of our field."""
    await house.seen("c1", {"status": "cold", "name": "a"})
    await house.write("update", {"id": "c1", "status": "hot"})
    await house.settle(UnitOfWork("Contact", ["c1"]), Arrived("Contact", "c1", {"status": "cold", "name": "b"}, 50))
    assert (await house.mirror("c1"))[0] == {"status": "cold", "name": "b"}
    await house.deliver("delivered")
    assert (await house.mirror("c1"))[:2] == ({"status": "hot", "name": "b"}, {"status": "hot"})


async def test_a_later_write_that_is_on_its_way_is_not_taken_back_by_an_earlier_one(house: House) -> None:
    await house.seen("c1", {"n": 0})
    await house.write("update", {"id": "c1", "n": 1})
    await house.write("update", {"id": "c1", "n": 2})
    house.vendor.says[2] = Later("busy", 60.0)
    await house.deliver("delivered", "pending")
    assert (await house.mirror("c1"))[0] == {"n": 2}


# Reading -----------------------------------------------------------------------------------------


async def test_objects_are_read_where_they_live(house: House) -> None:
    house.vendor.rows = {"c1": {"id": "c1", "n": 1}, "c2": {"id": "c2", "n": 2}}
    await house.write("insert", {"id": "l1", "n": 1}, object_="LeadScore")
    crm = house.crm().of("acme", reads := {})
    assert await rows_of(crm, "acme", Query("Contact", Condition("n", "eq", 2))) == [{"id": "c2", "n": 2}]
    assert [row["id"] for row in await rows_of(crm, "acme", Query("LeadScore"))] == ["l1"]
    assert reads.keys() == {("Contact", "c2")}
    assert crm.explain(Query("Contact")).connector == "vendor"
    assert crm.explain(Query("LeadScore")).connector == "local"


def test_homes_are_by_object_then_by_tenant() -> None:
    vendor = Vendor()
    homes = Homes({"vendor": vendor}, "local", {"Task": "local", "Contact": "vendor"}, {"acme": "vendor"})
    assert [homes.of("acme", each) for each in ("Contact", "Task", "Review")] == ["vendor", "local", "local"]
    assert homes.of("other", "Contact") == "vendor"
    assert Homes({"vendor": vendor}, "local", {}, {"acme": "vendor"}).of("other", "Contact") == "local"


def test_a_home_that_keeps_no_records_is_refused(tmp_path: Any) -> None:
    from circuit_script.config import load_settings
    from circuit_script.connectors.homes import homes_of

    (tmp_path / "circuit.toml").write_text('[crm]\nhome = "webhook"\n')
    with pytest.raises(ConfigError, match="'webhook' keeps no records"):
        homes_of(load_settings(tmp_path), {})
    (tmp_path / "circuit.toml").write_text('[crm.objects]\nInvoice = "vendor"\n')
    with pytest.raises(ConfigError, match="vendor knows no Invoice"):
        homes_of(load_settings(tmp_path), {"vendor": Vendor()})
    (tmp_path / "circuit.toml").write_text("")
    assert homes_of(load_settings(tmp_path), {}) is None
