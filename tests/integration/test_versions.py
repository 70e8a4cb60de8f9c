"""An update that is for one version of its record only: ``CircuitDB.update(…, if_version=…)``; and references."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.config import Address
from circuit_script.connectors.connector import InDoubt, Operation
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import VERSION, Outcome, Succeeded, Work
from tests.road import SCORE, Road, contact, open_road


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        await road.live(SCORE)
        yield road


async def update(broker: ExecutionBroker, id_: str, version: int, record: int | None = None, **fields: Any) -> None:
    rows = [{"id": id_, **fields}]
    asked = {"op": "update", "object": "Contact", "rows": rows, "versions": {id_: version}, "record": record}
    await broker.request("dml", asked)


async def touch(road: Road, id_: str) -> None:
    """Somebody else writes the record."""
    await road.run("UPDATE circuit.records SET data = data || '{\"theirs\": true}' WHERE id = %s", id_)


async def seeded(road: Road, *ids: str) -> None:
    await road.run(
        "INSERT INTO circuit.records (tenant, object, id, data) SELECT 'acme', 'Contact', id, '{}' "
        "FROM unnest(%s::text[]) AS id",
        list(ids),
    )


async def test_a_mismatch_fails_its_record_only_and_the_retry_sees_what_is_stored(road: Road) -> None:
    await seeded(road, "c1", "c2")
    seen: list[Any] = []

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        for place, record in enumerate(work.records):
            seen.append((record["id"], record.get("theirs")))
            await update(broker, record["id"], work.events[place]["version"], score=len(seen))
        if len(work.records) == 2:
            await touch(road, "c2")
        return Succeeded(broker.usage)

    await road.take_in(contact("c1", "afterUpdate", a=1), contact("c2", "afterUpdate", a=1))
    await road.start(handler)
    await road.done()

    assert seen == [("c1", None), ("c2", None), ("c2", True)]
    assert await road.record("c1") == {"id": "c1", "a": 1, "score": 1}
    assert await road.record("c2") == {"id": "c2", "a": 1, "score": 3, "theirs": True}
    reasons = await road.rows("SELECT reason FROM circuit.outcomes WHERE status = 'retry'")
    assert reasons == ["VersionConflict: A record was changed since it was read. It is Contact c2."]


async def test_a_record_that_was_not_there_must_still_not_be_there(road: Road) -> None:
    tries: list[int] = []

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        tries.append(work.events[0]["version"])
        await update(broker, "c1", work.events[0]["version"], score=1)
        if len(tries) == 1:
            await seeded(road, "c1")
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"))
    await road.start(handler)
    await road.done()

    assert tries[0] == 0 < tries[1]


async def test_a_write_that_belongs_to_nobody_fails_the_whole_batch(road: Road) -> None:
    await seeded(road, "x")
    tries: list[int] = []

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        tries.append(len(work.records))
        (row,) = await broker.request("get", {"object": "Contact", "ids": ["x"], "versions": True})
        await update(broker, "x", row[VERSION], n=len(tries))
        if len(tries) == 1:
            await touch(road, "x")
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"), contact("c2"))
    await road.start(handler)
    await road.done()

    assert tries[0] == 2
    assert (await road.record("x") or {})["n"] == len(tries)
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'succeeded'") == [2]


async def test_at_a_checkpoint_a_mismatch_fails_its_record_and_the_handler_goes_on(road: Road) -> None:
    await seeded(road, "c1", "c2")

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        for place, record in enumerate(work.records):
            await update(broker, record["id"], work.events[place]["version"], place, done=True)
        if len(work.records) == 2:
            await touch(road, "c1")
        await broker.request("checkpoint", {"upto": 0, "errors": [], "decided": []})
        return Succeeded(broker.usage)

    await road.take_in(contact("c1", "afterUpdate", a=1), contact("c2", "afterUpdate", a=1))
    await road.start(handler)
    await road.done()

    rows = await road.rows("SELECT status FROM circuit.outcomes ORDER BY at, status")
    assert sorted(rows) == ["retry", "succeeded", "succeeded"]
    assert (await road.record("c1") or {})["theirs"]


async def test_reads_carry_versions_which_our_own_pending_writes_do_not_change(road: Road) -> None:
    await seeded(road, "c1")
    found: list[Any] = []

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        found.extend(await broker.request("query", {"object": "Contact", "where": {"id": "c1"}, "versions": True}))
        await update(broker, "c1", found[0][VERSION], score=1)
        found.extend(await broker.request("get", {"object": "Contact", "ids": ["c1"], "versions": True}))
        return Succeeded(broker.usage)

    await road.take_in(contact("c9"))
    await road.start(handler)
    await road.done()

    assert found[0][VERSION] == found[1][VERSION] > 0
    assert found[1]["score"] == 1


def test_versions_are_for_rows_that_were_read() -> None:
    unit = UnitOfWork("Contact", ["c1"])
    with pytest.raises(RequestRefused, match="no version of 'c2'"):
        unit.write("update", "Contact", [{"id": "c2"}], None, {"c1": 7})


def test_a_send_needs_those_before_it_whose_references_it_names() -> None:
    unit = UnitOfWork("Contact", ["c1"])
    made = unit.send("crm", "insert", "contacts", {"name": "Ann"}, 0, makes_id=True)
    other = unit.send("crm", "insert", "contacts", {"name": "Bob"}, 0, makes_id=True)
    told = unit.send("webhook", "post", "alerts", {"name": "Ann"}, 0)
    unit.send("crm", "note", "notes", {"of": {"contact": str(made)}, "after": str(told)}, 0)
    unit.send("crm", "link", f"contacts/{other}", {"to": str(made)}, 0)
    assert [each.needs for each in unit.sends] == [(), (), (), (made,), (made, other)]

    unit.forget(0)  # a checkpoint has committed them: they can be referred to all the same
    unit.send("crm", "note", "notes", {"text": f"about {made}"}, None)
    assert [each.needs for each in unit.sends] == [(made,)]


async def test_an_outcome_says_which_effects_use_the_ids_of_others(road: Road) -> None:
    operations = {"insert": Operation(InDoubt.REPEAT, makes_ids=True, if_version=True)}

    async def handler(work: Work, broker: ExecutionBroker) -> Outcome:
        broker._declared = lambda connector, operation: operations.get(operation)
        asked = {"connector": "webhook", "operation": "insert", "to": "crm", "payload": {"name": "Ann"}, "record": 0}
        made = (await broker.request("send", {**asked, "if_version": "7"}))["id"]
        payload = {"of": made}
        await broker.request("send", {**asked, "operation": "post", "payload": payload})
        with pytest.raises(RequestRefused, match="cannot be made to depend on a version"):
            await broker.request("send", {**asked, "operation": "post", "if_version": "7"})
        return Succeeded(broker.usage)

    await road.take_in(contact("c1"))
    await road.start(handler, addresses={"crm": Address(url="http://127.0.0.1:1")})
    await road.done()

    rows = await road.rows("SELECT id, needs, if_version FROM circuit.effects ORDER BY id")
    assert rows == [(rows[0][0], None, "7"), (rows[1][0], [rows[0][0]], None)]
