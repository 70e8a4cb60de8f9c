"""Which events a filter means, and whose they may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from circuit_script.clock import now, uuid7
from circuit_script.errors import ReplayRefused
from circuit_script.events.replay.choosing import AGAIN, Filter, Route, State, live_routes, recorded_routes
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, JobSpec, Outcome, Succeeded, Work
from circuit_script.governor import Usage
from circuit_script.jobs.store import NewJob, body_of, take_in_jobs
from circuit_script.tenants.accounts import TenantMap
from tests.integration.replay.conftest import Replays
from tests.road import SCORE, Incoming, Road, contact

GREET = HandlerSpec("Contacts.greet", (("Contact", "afterInsert"),))
MAPPED = TenantMap({"acme": {"standard": ["shop"]}})


MAIL = HandlerSpec("mail", (("Job", "mail"),), batch_size=1, job=JobSpec("queueable", anything=True))


async def some_fail(work: Work, broker: ExecutionBroker) -> Outcome:
    """Records that say so fail."""
    errors = {n: "it is bad" for n, row in enumerate(work.records) if row.get("bad")}
    return Succeeded(Usage(), errors=errors) if len(errors) < len(work.records) else Failed("all bad", Usage())


async def test_every_condition_must_hold(road: Road, past: Replays) -> None:
    await road.live(SCORE, GREET)
    await road.start(some_fail, attempts=1)
    await road.take_in(contact("a", note="Grüße"), contact("b", bad=True), Incoming("c", tenant="zoe"))
    await road.done()
    late = now() + timedelta(hours=1)

    assert await past.records(trigger="greet") == ["a", "b", "c"]
    assert await past.records(trigger="contacts", tenant="zoe") == ["c"]
    assert await past.records(record="a") == ["a", "a"]  # for both handlers
    assert await past.records(trigger="greet", text="Grüße") == ["a"]
    assert await past.records(trigger="greet", source="standard", status=State.succeeded) == ["a", "c"]
    assert await past.records(trigger="greet", source="gohighlevel") == []
    assert await past.records(trigger="greet", status=State.dead) == ["b"]
    assert await past.records(trigger="greet", status=State.failed) == ["b"]
    assert await past.records(trigger="greet", status=State.cancelled) == []
    assert await past.records(trigger="greet", since=late) == []
    assert await past.records(trigger="greet", until=late, since=late - timedelta(hours=2)) == ["a", "b", "c"]
    assert [item.record for item in await past.chosen(trigger="greet", limit=2)] == ["a", "b"]
    with pytest.raises(ReplayRefused, match=r"no trigger 'nobody'\. It has Contacts\.greet, score"):
        await past.chosen(trigger="nobody")


async def test_what_an_execution_handled_is_found_by_it(road: Road, past: Replays) -> None:
    worker = await road.start()
    await road.take_in(contact("a"), contact("b"))
    await road.done()
    await road.take_in(contact("c"))
    await road.done()

    first: UUID = worker.children.works[0].execution
    assert await past.records(execution=first) == worker.children.batches[0]
    assert (await past.chosen(execution=first))[0].last == first
    assert await past.records(execution=UUID(int=(1 << 128) - 1)) == []


async def test_an_execution_is_found_also_where_the_gateways_clock_was_ahead(road: Road, past: Replays) -> None:
    (delivery,) = await road.take_in(contact("a"))
    ahead = UUID(int=delivery.int + (600_000 << 80))
    await road.run("UPDATE circuit.deliveries SET id = %s", ahead)
    for table in ("events", "queue"):
        await road.run(f"UPDATE circuit.{table} SET delivery = %s", ahead)
    worker = await road.start()
    await road.done()

    assert await past.records(execution=worker.children.works[0].execution) == ["a"]


async def test_text_is_found_however_json_wrote_it(road: Road, past: Replays) -> None:
    await road.take_in(contact("a", note='say "hé"'), contact("b", note="he"))
    await road.start()
    await road.done()

    assert await past.records(text='say "hé"') == ["a"]
    assert await past.records(text="%") == []


async def test_one_tenants_filter_finds_nothing_of_another(road: Road, past: Replays) -> None:
    await road.start()
    await road.take_in(
        Incoming("1", tenant="acme", fields={"note": "the same words"}),
        Incoming("1", tenant="zoe", fields={"note": "the same words"}),
    )
    await road.done()

    for tenant in ("acme", "zoe"):
        assert [item.tenant for item in await past.chosen(text="same words", tenant=tenant)] == [tenant]
        assert [item.tenant for item in await past.chosen(record="1", tenant=tenant)] == [tenant]
    assert [item.tenant for item in await past.chosen(text="same words", tenant="nobody")] == []
    assert sorted(item.tenant for item in await past.chosen(text="same words")) == ["acme", "zoe"]
    assert sum(line.items for line in await past.counted(text="same words", tenant="zoe")) == 1


async def test_what_waits_and_our_own_echoes_are_left_out(road: Road, past: Replays) -> None:
    await road.take_in(contact("a"))
    assert [(line.left_out, line.items) for line in await past.counted(trigger="score")] == [
        ("it waits in the queue already", 1)
    ]
    worker = await road.start()
    await road.done()
    await worker.stop()
    await road.run("UPDATE circuit.outcomes SET status = 'echo'")
    assert await past.chosen(trigger="score") == []
    await road.run("UPDATE circuit.outcomes SET status = 'succeeded'")
    first = await past.begin(trigger="score")
    past.feed()
    await road.until("SELECT count(*) FROM circuit.queue", [1])

    assert await past.chosen(trigger="score") == []  # the first replay's waits
    assert (await past.look(first)).waiting == 1


async def test_what_nobody_handled_finds_its_handler_once_there_is_one(road: Road, past: Replays) -> None:
    await road.take_in(Incoming("7", object="Invoice"), contact("a"))
    worker = await road.start()
    await road.done()
    await worker.stop()
    road.workers.clear()
    assert [(line.handler, line.left_out) for line in await past.counted(status=State.unrouted)] == [
        ("", "no handler is there for it")
    ]
    await road.live(SCORE, GREET, HandlerSpec("invoices", (("Invoice", "afterInsert"),)))
    assert await past.records(status=State.unrouted) == ["7", "a"]  # `greet` is new, too

    worker = await road.start()
    past.feed()
    await past.over(await past.begin(status=State.unrouted))

    assert sorted((work.handler, str(work.records[0]["id"])) for work in worker.children.works) == [
        ("Contacts.greet", "a"),
        ("invoices", "7"),
    ]
    assert await past.records(status=State.unrouted) == []


async def test_what_nobody_owned_goes_to_whom_its_account_belongs_now(road: Road, past: Replays) -> None:
    await road.take_in(contact("a", note="hello"))
    await road.run("DELETE FROM circuit.queue")
    await road.run("UPDATE circuit.events SET tenant = NULL, handled = 0")
    await road.run("UPDATE circuit.deliveries SET tenant = NULL")
    past.tenants = TenantMap({"acme": {"standard": ["another"]}})
    assert [(line.left_out, line.items) for line in await past.counted(status=State.unassigned)] == [
        ("its account belongs to no tenant", 1)
    ]
    assert await past.chosen(status=State.unassigned) == []
    past.tenants = MAPPED
    assert [item.tenant for item in await past.chosen(tenant="acme", text="hello")] == ["acme"]
    assert await past.chosen(tenant="zoe") == []

    worker = await road.start()
    past.feed()
    await past.over(await past.begin(status=State.unassigned))

    assert [work.tenant for work in worker.children.works] == ["acme"]
    assert await past.records(tenant="acme") == ["a"]
    assert await past.chosen(status=State.unassigned) == []


async def test_whoever_was_forgotten_is_left_out(road: Road, past: Replays) -> None:
    await road.start()
    await road.take_in(contact("a"), contact("b"))
    await road.done()
    replay = await past.begin(trigger="score")
    await road.run(
        "UPDATE circuit.deliveries d SET body = '' FROM circuit.events e WHERE e.delivery = d.id AND e.record = 'a'"
    )

    assert await past.records(trigger="score") == ["b"]
    past.feed()
    await past.over(replay)
    assert await past.became(replay) == {"succeeded": 1, "whom it concerns was forgotten": 1}


async def test_it_is_counted_by_trigger_and_day(road: Road, past: Replays) -> None:
    await road.live(SCORE, GREET)
    await road.start()
    await road.take_in(*(contact(f"c{n}") for n in range(5)))
    await road.done()

    days = {line.day for line in await past.counted(trigger="score")}
    counted = await past.counted(source="standard")
    assert [(line.handler, line.items, line.left_out) for line in counted] == [
        ("Contacts.greet", 5, None),
        ("score", 5, None),
    ]
    assert days == {line.day for line in counted}
    assert [(line.handler, line.items) for line in await past.counted(trigger="score", limit=3)] == [("score", 3)]


def test_a_filter_tells_what_was_asked_for() -> None:
    wanted = Filter(record="a", status=State.dead, limit=3)
    assert wanted.as_dict() == {"record": "a", "status": "dead", "limit": 3}
    assert wanted.bounds
    assert not Filter(limit=3).bounds


async def enqueued(road: Road, *by: UUID | None) -> list[str]:
    """Jobs that these executions enqueued, and nobody; their ids, when they have run."""
    ids = [uuid7() for _ in by]
    said = [{} if each is None else {"execution": str(each)} for each in by]
    jobs = [NewJob(id_, "acme", "mail", body_of(id_, "mail", {}, **more)) for id_, more in zip(ids, said, strict=True)]
    async with road.pool.connection() as connection:
        await take_in_jobs(connection, jobs)
    await road.done()
    return [str(id_) for id_ in ids]


async def test_a_job_is_left_out_where_what_enqueued_it_is_taken(road: Road, past: Replays) -> None:
    await road.live(SCORE, MAIL)
    worker = await road.start()
    await road.take_in(contact("a"))
    await road.done()
    (of_a,) = await enqueued(road, worker.children.works[0].execution)
    of_it, alone = await enqueued(road, worker.children.works[1].execution, None)  # by a job, and by a schedule
    since = now() - timedelta(hours=1)

    assert await past.records(since=since) == sorted(["a", alone])
    assert {line.left_out: line.items for line in await past.counted(since=since, trigger="mail")} == {
        None: 2,
        AGAIN: 1,
    }
    assert [line.items for line in await past.counted(since=since) if line.left_out == AGAIN] == [2]
    assert await past.records(since=since, record=of_it) == [of_it]  # asked for by itself
    assert await past.records(trigger="mail") == sorted([of_a, alone])  # what `of_a` enqueued comes of it
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE source = 'standard'")
    assert await past.records(since=since) == sorted([of_a, alone])  # who is forgotten enqueues nothing


async def test_a_recorded_release_routes_as_it_did(road: Road, past: Replays) -> None:
    first = await road.live(SCORE)
    await road.live(GREET)

    async with road.pool.connection() as connection:
        assert {route.name for route in await live_routes(connection)} == {"Contacts.greet"}
        ids = {spec.name: id_ for id_, spec in first.handlers.items()}
        assert await recorded_routes(connection, first.id) == [
            Route("Contact", event, ids["score"], "score") for event in ("afterDelete", "afterInsert", "afterUpdate")
        ]
        assert await recorded_routes(connection, first.id + 99) == []


async def test_what_was_shown_is_all_that_is_taken(road: Road, past: Replays) -> None:
    worker = await road.start()
    await road.take_in(contact("a"))
    await road.done()
    choice = await past.choice(trigger="score")
    async with road.pool.connection() as connection:
        (shown,) = await choice.count(connection)
        await road.take_in(contact("b"))
        await road.done()
        taken = [item.record async for chunk in choice.chunks(connection) for item in chunk]

    assert worker.children.handled == ["a", "b"]
    assert (shown.items, taken) == (1, ["a"])


@pytest.mark.parametrize("asked", [{"record": "\udcff"}, {"text": "a\0b"}, {"tenant": "\0"}])
def test_text_that_no_event_can_have_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ReplayRefused, match="is no text"):
        Filter(**asked)


def test_a_time_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ReplayRefused, match="end before it begins"):
        Filter(since=now(), until=now() - timedelta(hours=1))
