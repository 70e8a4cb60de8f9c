"""How a release did, and what it did to the world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.clock import uuid7
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Work
from circuit_script.releases.figures import Counts, changes_of, counts_of, handled_by
from tests.road import SCORE, Road, contact, open_road, score

OTHER = HandlerSpec("other", (("Contact", "afterInsert"),))


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
    return Failed("no", broker.usage)


async def test_writes_are_told_by_field_with_what_stands_there_now(road: Road) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    bad = await road.live(SCORE)
    await road.start(score)
    await road.take_in(contact("c1", plan="gold"), contact("c2", plan="gold"))
    await road.done()
    async with road.pool.connection() as connection:
        (change,) = await changes_of(connection, bad.id, began)
        (handled,) = await handled_by(connection, bad.id, began)
        assert await changes_of(connection, bad.id, datetime.now(UTC) + timedelta(seconds=5)) == []
        assert await changes_of(connection, bad.id + 1, began) == []

    assert (change.connector, change.operation, change.target, change.field) == ("local", "update", "Contact", "score")
    assert (change.effects, change.records, change.statuses) == (2, 2, {"delivered": 2})
    assert sorted(each["record"] for each in change.examples) == ["c1", "c2"]
    assert {each["value"] for each in change.examples} == {1}
    assert (handled.handler, handled.executions) == ("score", 1)
    assert began <= handled.since <= handled.until <= datetime.now(UTC) + timedelta(seconds=1)


async def test_what_went_outside_is_told_by_its_fields_and_by_what_became_of_it(road: Road) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    bad = await road.live(SCORE)
    effects = (
        ("hubspot", "update", "Contact", "c1", '{"fields": {"id": "c1", "score": 1, "plan": "x"}}', "delivered"),
        ("hubspot", "update", "Contact", "c1", '{"id": "c1", "fields": {"score": 2}}', "dead"),
        ("hubspot", "update", "Contact", "c2", '{"id": "c2", "fields": {"score": 3}}', "delivered"),
        ("twilio", "sms", "+15125550123", None, '{"to": "+15125550123"}', "in_doubt"),
    )  # fmt: skip
    for effect in effects:
        await road.run(
            "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
            "target, record, payload, status) VALUES (%s, 'acme', %s, %s, 0, 0, %s, %s, %s, %s, %s::jsonb, %s)",
            uuid7(), uuid7(), bad.id, *effect,
        )  # fmt: skip
    async with road.pool.connection() as connection:
        found = await changes_of(connection, bad.id, began)

    assert [(each.connector, each.field, each.effects, each.records, dict(each.statuses)) for each in found] == [
        ("hubspot", "score", 3, 2, {"delivered": 2, "dead": 1}),
        ("hubspot", "plan", 1, 1, {"delivered": 1}),
        ("twilio", "", 1, 1, {"in_doubt": 1}),
    ]
    assert [each["value"] for each in found[0].examples] == [1, 2, 3]


async def test_executions_and_errors_are_counted_by_release(road: Road) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    good = await road.live(SCORE)
    worker = await road.start(score)
    await road.take_in(contact("c1"))
    await road.done()
    await worker.stop()
    bad = await road.live(OTHER)
    await road.start(fail, attempts=1)
    await road.take_in(contact("c2"))
    await road.done()
    async with road.pool.connection() as connection:
        counts = await counts_of(connection, [good.id, bad.id, 4711], began)
        assert await counts_of(connection, [good.id], datetime.now(UTC) + timedelta(seconds=5)) == {}
    assert counts == {good.id: Counts(1, 0), bad.id: Counts(1, 1)}
    assert (counts[good.id].share, counts[bad.id].share, Counts().share) == (0.0, 1.0, 0.0)
