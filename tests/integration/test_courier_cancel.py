"""Cancelling what a connector has to deliver, also while it is on its way: no lie in either direction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Refused, Unknown
from circuit_script.effects.doubt import send_again
from circuit_script.effects.results import TOO_LATE
from circuit_script.events import controls
from circuit_script.events.controls import Selection, cancel, leaving
from tests.integration.courier_vendor import PATIENCE, Looking, Office, Vendor
from tests.road import happens

VENDOR = Selection("connector", "vendor")
STATE = "SELECT status, attempts, cancelled FROM circuit.effects ORDER BY seq"


class Slow(Vendor):
    """Answers when it is let."""

    def __init__(self, said: Delivery, rule: InDoubt) -> None:
        super().__init__(lambda effects: [said for _ in effects], in_doubt=rule)
        self.may = asyncio.Event()

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        answer = await super().deliver(operation, effects)
        await self.may.wait()
        return answer


async def cancelled(office: Office) -> tuple[int, int]:
    async with office.road.pool.connection() as connection:
        gone = await cancel(connection, VENDOR, reason="wrong file", by="ada")
        return gone, await leaving(connection, VENDOR)


@pytest.mark.parametrize(
    ("rule", "said", "ends"),
    [
        (InDoubt.ASK_A_PERSON, Delivered(), ("delivered", TOO_LATE)),
        (InDoubt.ASK_A_PERSON, Later("busy"), ("discarded", "busy")),
        (InDoubt.ASK_A_PERSON, Unknown("no answer"), ("in_doubt", "no answer")),
        (InDoubt.ASK_A_PERSON, Refused("no"), ("dead", "no")),
        (InDoubt.REPEAT, Delivered(), ("delivered", TOO_LATE)),
        (InDoubt.REPEAT, Later("busy"), ("discarded", "busy")),
        (InDoubt.REPEAT, Unknown("no answer"), ("discarded", "no answer")),
    ],
    ids=lambda each: getattr(each, "value", None) or type(each).__name__,
)
async def test_what_is_on_its_way_ends_by_its_answer_and_does_not_leave_again(
    office: Office, rule: InDoubt, said: Delivery, ends: tuple[str, str]
) -> None:
    """What may be repeated is discarded at once, and only counted as what its vendor said."""
    await office.effect(1)
    vendor = Slow(said, rule)
    async with office.delivering(vendor):
        await happens(lambda: vendor.got == [1], "it does not leave")
        assert await cancelled(office) == ((0, 1) if rule is InDoubt.ASK_A_PERSON else (1, 0))
        vendor.may.set()
        await office.road.until("SELECT status, reason FROM circuit.effects", [ends])

    assert vendor.got == [1]
    assert await office.road.rows("SELECT settled_by, note FROM circuit.effects") == [
        ("ada", "cancelled by ada: wrong file")
    ]


async def test_what_waited_behind_a_cancelled_effect_as_long_as_it_did_leaves_at_once(office: Office) -> None:
    await office.effect(1, key=7)
    for n in (2, 3):
        await office.effect(n, key=7, connector="other")
    vendor, other = Vendor(lambda effects: [Later("locked", 86_400.0) for _ in effects]), Vendor()
    other.name = "other"
    async with office.delivering(vendor, other):
        await office.road.until("SELECT count(*) FROM circuit.effects WHERE next_at > now() + interval '23 hours'", [3])
        assert await cancelled(office) == (1, 0)
        await office.until("discarded", "delivered", "delivered")

    assert (vendor.got, other.got) == ([1], [2, 3])


async def test_what_stands_behind_an_earlier_one_as_well_goes_on_waiting_for_it(office: Office) -> None:
    for n, connector in ((1, "first"), (2, "vendor"), (3, "other")):
        await office.effect(n, key=7, connector=connector)
    await office.road.run("UPDATE circuit.effects SET next_at = now() + interval '1 day'")
    due = "SELECT payload -> 'n' FROM circuit.effects WHERE status = 'pending' AND next_at <= now()"

    assert await cancelled(office) == (1, 0)
    assert await office.road.rows(due) == []
    await office.road.run("UPDATE circuit.effects SET status = 'discarded' WHERE connector = 'first'")
    assert await office.road.rows(due) == [3]


async def test_what_a_dead_worker_may_have_sent_is_looked_up_and_not_sent_after_it_was_cancelled(
    office: Office,
) -> None:
    for n in (1, 2):
        await office.effect(n)
    await office.road.run("UPDATE circuit.effects SET left_at = now()")
    vendor = Looking(lambda effects: [Delivered() for _ in effects], lambda n: Delivered() if n == 1 else Later("no"))
    assert await cancelled(office) == (0, 2)
    async with office.delivering(vendor):
        await office.until("delivered", "discarded")

    assert sorted(vendor.asked) == [1, 2]
    assert vendor.got == []


async def test_what_was_cancelled_on_its_way_does_not_leave_under_another_rule_either(office: Office) -> None:
    await office.effect(1)
    await office.road.run("UPDATE circuit.effects SET left_at = now()")
    assert await cancelled(office) == (0, 1)
    vendor = Vendor(in_doubt=InDoubt.REPEAT)
    async with office.delivering(vendor):
        await office.until("discarded")

    assert vendor.got == []


async def test_what_a_person_sends_again_is_not_cancelled_any_more(office: Office) -> None:
    id_ = await office.effect(1)
    await office.road.run("UPDATE circuit.effects SET left_at = now()")
    await cancelled(office)
    await office.road.run("UPDATE circuit.effects SET status = 'in_doubt'")
    async with office.road.pool.connection() as connection:
        assert await send_again(connection, [id_], by="ada") == [id_]
    vendor = Vendor(in_doubt=InDoubt.ASK_A_PERSON)
    async with office.delivering(vendor):
        await office.until("delivered")

    assert vendor.got == [1]


async def test_of_two_who_cancel_the_same_each_row_is_counted_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "DISCARD", controls.DISCARD.replace(f"LIMIT {controls.CHUNK}", "LIMIT 7"))
    monkeypatch.setattr(controls, "CHUNK", 7)
    await office.road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
        "payload, left_at) SELECT gen_random_uuid(), 'acme', %s, 1, 0, n, 'vendor', 'post', 'alerts', '{}', "
        "CASE WHEN n %% 5 = 0 THEN now() END FROM generate_series(1, 100) n",
        uuid7(),
    )
    both = await asyncio.wait_for(asyncio.gather(cancelled(office), cancelled(office)), PATIENCE)

    assert sum(gone for gone, _ in both) == 80
    assert await office.road.rows("SELECT status, count(*) FROM circuit.effects GROUP BY 1 ORDER BY 1") == [
        ("discarded", 80), ("pending", 20),
    ]  # fmt: skip
    assert await office.road.rows("SELECT DISTINCT cancelled FROM circuit.effects WHERE status = 'pending'") == [True]


async def test_what_is_marked_while_the_cancel_waits_for_it_is_not_taken_back(office: Office) -> None:
    await office.effect(1)
    async with office.road.pool.connection() as connection, connection.transaction():
        await connection.execute("UPDATE circuit.effects SET left_at = now()")  # as the courier does, before it sends
        going = asyncio.create_task(cancelled(office))
        await waits_for_it(office)
    assert await asyncio.wait_for(going, PATIENCE) == (0, 1)
    assert await office.road.rows(STATE) == [("pending", 0, True)]


async def waits_for_it(office: Office, people: int = 1) -> None:
    """Until so many who cancel wait for a row."""
    await office.road.until(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%%AND NOT cancelled ORDER BY id%%' AND pid <> pg_backend_pid()",
        [people],
    )


async def test_a_pause_that_a_person_makes_meanwhile_outlives_the_cancel(office: Office) -> None:
    await office.effect(1)
    async with office.road.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM circuit.effects FOR UPDATE")
        going = asyncio.create_task(cancelled(office))
        await waits_for_it(office)
        await office.pause("connector", "vendor")
    assert await asyncio.wait_for(going, PATIENCE) == (1, 0)
    assert await office.road.rows("SELECT by_whom, reason FROM circuit.pauses") == [("ann", "they asked")]


async def test_a_cancel_that_is_run_again_after_it_was_killed_ends_its_pause(office: Office) -> None:
    await office.effect(1)
    await office.road.run(
        "INSERT INTO circuit.pauses (kind, value, reason, by_whom) VALUES ('connector', 'vendor', %s, 'ada')",
        controls.CANCELLING,
    )
    assert await cancelled(office) == (1, 0)
    assert await office.road.rows("SELECT value FROM circuit.pauses") == []


async def test_of_two_who_cancel_the_same_the_later_one_ends_the_pause(office: Office) -> None:
    await office.effect(1)
    async with office.road.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM circuit.effects FOR UPDATE")
        going = asyncio.create_task(cancelled(office))
        await waits_for_it(office)
        await office.road.run("UPDATE circuit.pauses SET by_whom = 'bob', at = clock_timestamp()")
    assert await asyncio.wait_for(going, PATIENCE) == (1, 0)
    assert await office.road.rows("SELECT by_whom, reason FROM circuit.pauses") == [("bob", controls.CANCELLING)]


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "while another cancels it"])
async def test_who_breaks_a_cancel_off_leaves_the_pause_of_what_is_left(office: Office, others: int) -> None:
    await office.effect(1)
    async with office.road.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM circuit.effects FOR UPDATE")
        earlier = [asyncio.create_task(cancelled(office)) for _ in range(others)]
        await waits_for_it(office, others)
        later = asyncio.create_task(cancelled(office))
        await waits_for_it(office, others + 1)
        later.cancel()
        await asyncio.wait([later])
        assert await office.road.rows("SELECT reason FROM circuit.pauses") == [controls.CANCELLING]
    assert await asyncio.gather(*earlier) == [(1, 0)] * others
    assert await office.road.rows("SELECT reason FROM circuit.pauses") == [controls.CANCELLING]
