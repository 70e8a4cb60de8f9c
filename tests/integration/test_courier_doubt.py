"""Effects of which nobody knows what became of them, and effects that use ids which are yet to be made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Operation, Refused, Unknown
from circuit_script.effects.carry import UNHEARD
from circuit_script.effects.doubt import send_again, settle_delivered, settle_discarded
from circuit_script.effects.waits import effects_waiting
from tests.integration.courier_vendor import Looking, Office, Vendor

CUT = Unknown("cut")


async def test_what_is_in_doubt_is_looked_up_before_it_is_sent_again(office: Office) -> None:
    for n in range(3):
        await office.effect(n)
    said: dict[int, Delivery] = {0: CUT, 1: CUT}

    def answer(effects: Sequence[Effect]) -> list[Delivery]:
        return [said.pop(each.payload["n"], Delivered()) for each in effects]

    vendor = Looking(answer, lambda n: Delivered() if n == 0 else Later("not there"))
    async with office.delivering(vendor):
        await office.until(*["delivered"] * 3)

    assert sorted(vendor.got) == [0, 1, 1, 2], "what was done was not sent again"
    assert sorted(vendor.asked) == [0, 1]


async def test_what_cannot_be_found_out_is_asked_again_and_then_left_to_a_person(office: Office) -> None:
    await office.effect(0)
    vendor = Looking(lambda effects: CUT, lambda n: None)

    async with office.delivering(vendor, attempts=3):
        await office.until("in_doubt")

    assert (vendor.got, vendor.asked) == ([0], [0, 0])


async def test_an_effect_that_a_dead_worker_may_have_sent_is_looked_up_too(office: Office) -> None:
    await office.effect(0)
    await office.road.run("UPDATE circuit.effects SET left_at = now()")  # as it stands when its worker is killed
    vendor = Looking(lambda effects: CUT, lambda n: Delivered("v1"))

    async with office.delivering(vendor):
        await office.until("delivered")

    assert (vendor.got, vendor.asked) == ([], [0])


@pytest.mark.parametrize(("rule", "status"), [(InDoubt.ASK_A_PERSON, "in_doubt"), (InDoubt.REPEAT, "delivered")])
async def test_what_a_dead_worker_left_behind_is_settled_by_its_rule(
    office: Office, rule: InDoubt, status: str
) -> None:
    await office.effect(0)
    await office.road.run("UPDATE circuit.effects SET left_at = now()")
    vendor = Vendor(in_doubt=rule)

    async with office.delivering(vendor):
        await office.until(status)

    assert vendor.got == ([0] if rule is InDoubt.REPEAT else [])


async def test_a_worker_that_lost_its_lanes_sends_nothing_that_must_not_be_repeated(office: Office) -> None:
    await office.effect(0)
    await office.effect(1)
    await office.road.run("UPDATE circuit.lanes SET epoch = 2 WHERE lane = 0")
    vendor = Vendor(in_doubt=InDoubt.ASK_A_PERSON)

    async with office.delivering(vendor):
        await office.until("pending", "delivered")

    assert vendor.got == [1]


async def test_a_person_decides_what_becomes_of_effects_in_doubt(office: Office) -> None:
    ids = [await office.effect(n) for n in range(3)]
    said: list[Delivery] = [CUT, CUT, CUT]
    vendor = Vendor(lambda effects: [said.pop() if said else Delivered()], in_doubt=InDoubt.ASK_A_PERSON)

    async with office.delivering(vendor):
        await office.until(*["in_doubt"] * 3)
        async with office.road.pool.connection() as connection:
            assert await settle_delivered(connection, ids[:1], by="ann", note="seen in the inbox") == ids[:1]
            assert await send_again(connection, ids[1:2], by="ann", payload={"n": 10}) == ids[1:2]
            assert await settle_discarded(connection, ids[2:], by="bob") == ids[2:]
            assert await settle_delivered(connection, ids, by="eve") == [], "each is decided once"
        await office.until("delivered", "delivered", "discarded")

    assert vendor.got[3:] == [10]
    rows = await office.road.rows("SELECT settled_by, note FROM circuit.effects ORDER BY id")
    assert rows == [("ann", "seen in the inbox"), ("ann", None), ("bob", None)]


class CRM(Vendor):
    """Makes records and their ids; what else is sent names them."""

    name = "crm"

    def __init__(self, rule: InDoubt = InDoubt.REPEAT) -> None:
        super().__init__()
        self.operations = {"insert": Operation(rule, makes_ids=True), "update": Operation(InDoubt.REPEAT)}
        self.said: dict[str, Delivery] = {}

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        self.effects += effects
        made = [each.payload["n"] for each in effects]
        return [self.said.get(n, Delivered(f'v-"{n}"' if operation == "insert" else None)) for n in made]

    def sent(self, operation: str) -> list[Effect]:
        return [each for each in self.effects if each.operation == operation]


async def using(office: Office, made: UUID, n: str = "b", key: int = 2) -> UUID:
    said = {"id": str(made), "url": f"https://crm/{made}/x"}
    return await office.effect(n, key=key, connector="crm", operation="update", target=str(made), needs=[made], **said)


async def test_a_reference_becomes_the_real_id_when_the_record_is_made(office: Office) -> None:
    made = await office.effect("a", key=1, connector="crm", operation="insert", target="contacts")
    await using(office, made)
    crm = CRM()

    async with office.delivering(crm):
        await office.until("delivered", "delivered")

    (update,) = crm.sent("update")
    assert update.target == 'v-"a"'
    assert update.payload == {"n": "b", "id": 'v-"a"', "url": 'https://crm/v-"a"/x'}


async def test_what_uses_an_id_waits_for_it_and_says_so(office: Office) -> None:
    made = await office.effect("a", key=1, connector="crm", operation="insert", target="contacts")
    await using(office, made)
    crm = CRM(InDoubt.ASK_A_PERSON)
    crm.said["a"] = CUT

    async with office.delivering(crm):
        await office.until("in_doubt", "pending")
        async with office.road.pool.connection() as connection:
            (waits,) = await effects_waiting(connection)
            assert waits.why == "reference"
            await settle_delivered(connection, [made], by="ann", vendor_id="v7")
        await office.until("delivered", "delivered")

    assert crm.sent("update")[0].payload["id"] == "v7"


async def test_effects_whose_reference_failed_are_dead_with_that_reason_and_so_on(office: Office) -> None:
    made = await office.effect("a", key=1, connector="crm", operation="insert", target="contacts")
    second = await office.effect(
        "b", key=2, connector="crm", operation="insert", target="notes", needs=[made], of=str(made)
    )
    await using(office, second, "c", key=3)
    crm = CRM()
    crm.said["a"] = Refused("no such field")

    async with office.delivering(crm):
        await office.until("dead", "dead", "dead")

        assert len(crm.effects) == 1
        reasons = await office.road.rows("SELECT reason FROM circuit.dead_letters ORDER BY effect")
        assert reasons[0] == "no such field"
        assert str(made) in reasons[1]
        assert str(second) in reasons[2]

        crm.said.clear()
        async with office.road.pool.connection() as connection:
            await send_again(connection, [second], by="ann")
            assert await office.road.rows("SELECT status FROM circuit.effects WHERE id = %s", second) == ["dead"]
            ids = await office.road.rows("SELECT id FROM circuit.effects ORDER BY id")
            await send_again(connection, ids, by="ann")
        await office.until("delivered", "delivered", "delivered")

    assert [each.payload["n"] for each in crm.effects] == ["a", "a", "b", "c"]


async def test_a_reference_to_what_was_never_sent_or_is_long_done_is_settled_at_once(office: Office) -> None:
    await using(office, uuid7())
    assert await office.road.rows("SELECT status FROM circuit.effects") == ["dead"]
    made = await office.effect("a", key=1, connector="crm", operation="insert", target="contacts")
    crm = CRM()

    async with office.delivering(crm):
        await office.until("dead", "delivered")
        await using(office, made)
        await office.until("dead", "delivered", "delivered")

    assert [each.payload["id"] for each in crm.sent("update")] == ['v-"a"']


async def test_effects_whose_reference_has_no_connector_any_more_do_not_wait_for_ever(office: Office) -> None:
    made = await office.effect("a", key=1, connector="gone", operation="insert", target="contacts")
    await using(office, made)

    async with office.delivering(CRM()):
        await office.until("dead", "dead")


async def test_a_result_that_cannot_be_stored_is_told_without_its_id_and_delays_nobody_elses(office: Office) -> None:
    made = await office.effect("a", key=1, connector="crm", operation="insert", target="contacts")
    await using(office, made)
    await office.effect("z", key=3, connector="crm", operation="insert", target="contacts", tenant="other")
    crm = CRM()
    crm.said["a"] = Delivered("".join(uuid7().hex for _ in range(400)))  # no index takes a target of that length

    async with office.delivering(crm):
        await office.until("delivered", "dead", "delivered")

    assert sorted(each.payload["n"] for each in crm.effects) == ["a", "z"]


async def test_what_a_dead_worker_may_have_sent_by_a_connector_that_is_gone_is_left_to_a_person(office: Office) -> None:
    await office.effect(0)
    await office.effect(1)
    await office.road.run("UPDATE circuit.effects SET left_at = now() WHERE order_hash = 1")

    async with office.delivering():
        await office.until("dead", "in_doubt")

    assert await office.road.rows("SELECT reason FROM circuit.effects WHERE status = 'in_doubt'") == [UNHEARD]


async def test_a_cancellation_that_a_connector_lets_out_settles_its_effect_and_nothing_waits_for_it(
    office: Office,
) -> None:
    """Something of its own was cancelled, on which it waited: a refresh of its token that others share."""
    for key, n in ((7, 1), (7, 2), (8, 3), (8, 4)):
        await office.effect(n, key=key)
    await office.road.run("UPDATE circuit.effects SET left_at = now() WHERE payload ->> 'n' = '3'")

    def cancelled(n: int) -> Delivered | Later:
        if n in (1, 3):
            raise asyncio.CancelledError
        return Later("not there")

    def answer(effects: Sequence[Effect]) -> list[Delivery]:
        return [cancelled(each.payload["n"]) and Delivered() for each in effects]

    vendor = Looking(answer, cancelled)
    async with office.delivering(vendor, attempts=2):
        await office.until("in_doubt", "delivered", "in_doubt", "delivered")

    assert sorted(vendor.got) == [1, 2, 4]
