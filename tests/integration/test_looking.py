"""What people look at: executions, records and the overview of one tenant, as the database lets that tenant read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection, open_connection, tenant_reading
from circuit_script.events.looking import (
    ExecutionQuery,
    find_records,
    latest_records,
    list_executions,
    overview,
    payload_of_event,
    read_execution,
    story_of_record,
)
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from tests.road import Incoming, Road, contact, open_road

SCORE = HandlerSpec("Leads.score", (("Contact", "afterInsert"), ("Contact", "afterUpdate")))
ODD = 'a/../b "<i>\u202e'


async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
    """Write a score, unless the record says otherwise."""
    if any(record.get("ends") == "dead" for record in work.records):
        return Failed("no score", Usage(callouts=3), detail="the stack")
    rows = [{"id": record["id"], "score": 1} for record in work.records if "ends" not in record]
    await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
    return Succeeded(broker.usage)


@asynccontextmanager
async def seen_by(road: Road, tenant: str) -> AsyncIterator[Connection]:
    connection = await open_connection(road.url)
    async with connection, tenant_reading(connection, tenant):
        yield connection


async def taken(road: Road, *incoming: Incoming) -> Sequence[UUID]:
    ids = await road.take_in(*incoming)
    await road.done()
    return ids


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    """acme has a contact that was changed, one that died, one with an odd id; globex has one of the same id."""
    async with open_road(database) as opened:
        await opened.live(SCORE)
        await opened.start(handle, attempts=2)
        theirs = Incoming("c1", tenant="globex", fields={"secret": "theirs"})
        await taken(opened, contact("c1"), theirs, contact(ODD), contact("quiet", ends="quiet"))
        await taken(opened, contact("c1", "afterUpdate"))
        await taken(opened, contact("bad", ends="dead"))  # alone: in one batch with others it would take them along
        yield opened


async def test_a_tenant_sees_its_executions_and_no_others(road: Road) -> None:
    theirs = await road.rows("SELECT id FROM circuit.executions WHERE tenant = 'globex'")
    async with seen_by(road, "acme") as connection:
        listed = await list_executions(connection, ExecutionQuery())
        assert len(listed.rows) == (await road.rows("SELECT count(*) FROM circuit.executions WHERE tenant = 'acme'"))[0]
        assert not {each.id for each in listed.rows} & set(theirs)
        assert await read_execution(connection, theirs[0]) is None
        assert (await list_executions(connection, ExecutionQuery(record="c1"))).rows
        assert {each.record for each in await find_records(connection, "c1")} == {"c1"}
        assert "theirs" not in str(await story_of_record(connection, "Contact", "c1"))
    async with seen_by(road, "nobody") as connection:
        assert (await list_executions(connection, ExecutionQuery())).rows == []
        assert (await overview(connection)).errors is None
        assert await story_of_record(connection, "Contact", "c1") is None
        assert await latest_records(connection) == []


async def test_pages_go_through_all_of_them_once_and_filters_hold(road: Road) -> None:
    async with seen_by(road, "acme") as connection:
        everything = [each.id for each in (await list_executions(connection, ExecutionQuery())).rows]
        found: list[UUID] = []
        query = ExecutionQuery(limit=1)
        while True:
            page = await list_executions(connection, query)
            found += [each.id for each in page.rows]
            if page.older is None:
                break
            query = ExecutionQuery(limit=1, before=page.older)
        assert found == everything == sorted(everything, reverse=True)
        failed = (await list_executions(connection, ExecutionQuery(status="trouble"))).rows
        assert {each.status for each in failed} == {"failed"}
        assert failed == (await list_executions(connection, ExecutionQuery(status="failed", record="bad"))).rows
        assert (
            await list_executions(connection, ExecutionQuery(handler="Leads.score", status="failed"))
        ).rows == failed
        assert (await list_executions(connection, ExecutionQuery(handler="score"))).rows == []
        since = datetime.now(UTC) + timedelta(hours=1)
        assert (await list_executions(connection, ExecutionQuery(since=since))).rows == []


async def test_one_execution_tells_its_events_limits_and_payload(road: Road) -> None:
    async with seen_by(road, "acme") as connection:
        (latest, *_) = (await list_executions(connection, ExecutionQuery(status="failed"))).rows
        story = await read_execution(connection, latest.id)
        assert story is not None
        assert (story.handler, story.reason, story.detail) == ("Leads.score", "no score", "the stack")
        assert [(each.record, each.status) for each in story.events] == [("bad", "dead")]
        assert story.used["callouts"][0] == 3
        (event,) = story.events
        payload, fault = await payload_of_event(connection, event.delivery, event.ordinal)
        assert (payload, fault) == ({"id": "bad", "ends": "dead"}, "")
        assert (await payload_of_event(connection, uuid7(), 0))[1] != ""
    await road.run("UPDATE circuit.deliveries SET body = %s WHERE id = %s", b"\xff{\x00", event.delivery)
    async with seen_by(road, "acme") as connection:
        payload, fault = await payload_of_event(connection, event.delivery, 0)
        assert payload == b"\xff{\x00"
        assert fault.startswith("Its delivery cannot be read")


async def test_a_record_tells_everything_that_ever_happened_to_it(road: Road) -> None:
    async with seen_by(road, "acme") as connection:
        story = await story_of_record(connection, "Contact", "c1")
        assert story is not None
        assert [each.kind for each in story.chapters].count("event") == 2
        assert {"event", "outcome", "effect"} <= {each.kind for each in story.chapters}
        assert [each.at for each in story.chapters] == sorted((each.at for each in story.chapters), reverse=True)
        assert story.data is not None
        assert story.data["score"] == 1
        first = await story_of_record(connection, "Contact", "c1", limit=1)
        assert first is not None
        assert first.older is not None
        second = await story_of_record(connection, "Contact", "c1", limit=1, before=first.older)
        assert second is not None
        assert second.older is None
        numbers = [each.more["number"] for each in (*first.chapters, *second.chapters) if each.kind == "event"]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 2
        quiet = await story_of_record(connection, "Contact", "quiet")
        assert quiet is not None
        assert "effect" not in {each.kind for each in quiet.chapters}  # what its batch wrote was about the others
        died = await story_of_record(connection, "Contact", "bad")
        assert died is not None
        assert [each.status for each in died.chapters if each.kind in ("outcome", "letter")] == [
            "dead",
            "dead",
            "retry",
        ]
        assert await story_of_record(connection, "Contact", ODD) is not None
        assert await story_of_record(connection, "Deal", "c1") is None
        latest = {each.record: each.status for each in await latest_records(connection)}
        assert latest == {"c1": "succeeded", ODD: "succeeded", "quiet": "succeeded", "bad": "dead"}


async def test_the_overview_counts_this_tenants_last_hour(road: Road) -> None:
    # What waits counts, too; nobody takes it.
    await road.close_workers()
    await road.take_in(contact("waits"), Incoming("not ours", tenant="globex"))
    async with seen_by(road, "acme") as connection:
        seen = await overview(connection)
    assert len(seen.minutes) == 60
    assert (sum(each.records for each in seen.minutes), sum(each.trouble for each in seen.minutes)) == (6, 2)
    assert seen.errors == pytest.approx(2 / sum(each.ran for each in seen.minutes))
    assert (seen.queue_depth, seen.dead_letters, seen.in_doubt) == (1, 1, 0)
    assert seen.p95 is not None
    assert [each.status for each in seen.trouble] == ["failed", "failed"]
    assert seen.latest[0].id == seen.trouble[0].id
