"""Enqueued jobs on the road: held, delayed, unique, chained, finalized; each made once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from circuit_script.clock import now, uuid7
from circuit_script.config import Address
from circuit_script.connectors.connector import Delivered, Effect, Refused
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, JobSpec, Outcome, Succeeded, Work
from circuit_script.governor import LimitExceeded, Limits
from circuit_script.jobs.connector import JobsConnector
from circuit_script.jobs.look import look
from circuit_script.jobs.outside import Asked, enqueue_now
from circuit_script.jobs.store import free_keys, take_in_delayed
from tests.road import FakeChildren, Handler, Road, Worker, contact, open_road

TRIGGER = HandlerSpec("begin", (("Contact", "afterInsert"),), limits=Limits(jobs=2))
REPORT = HandlerSpec(
    "report", (("Job", "report"),), batch_size=1, job=JobSpec("queueable", ("contact",), (), False, "after_report")
)
AFTER = HandlerSpec("after_report", (("Job", "after_report"),), batch_size=1, job=JobSpec("finalizer", anything=True))
Step = Callable[[Work, ExecutionBroker], Awaitable[Outcome | None]]


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(TRIGGER, REPORT, AFTER)
        yield made


async def start(road: Road, handler: Handler, **changes: Any) -> Worker:
    """A worker whose courier runs, too."""
    worker = await road.start(handler, **changes)
    courier = asyncio.create_task(worker.courier.run())
    worker.task.add_done_callback(lambda _: courier.cancel())
    return worker


def steps(**by_handler: Step) -> Callable[[Work, ExecutionBroker], Awaitable[Outcome]]:
    async def run(work: Work, broker: ExecutionBroker) -> Outcome:
        step = by_handler.get(work.handler)
        return (await step(work, broker) if step is not None else None) or Succeeded(broker.usage)

    return run


async def ask(broker: ExecutionBroker, job: str = "report", **changes: Any) -> str:
    asked = {"job": job, "arguments": {}, "due": None, "unique": None, "record": None, **changes}
    reply: dict[str, str] = await broker.request("enqueue", asked)
    return reply["id"]


async def enqueue_report(work: Work, broker: ExecutionBroker) -> None:
    for place, record in enumerate(work.records):
        await ask(broker, arguments={"contact": record["id"]}, record=place)


def runs(children: FakeChildren, handler: str) -> list[Work]:
    return [work for work in children.works if work.handler == handler]


async def until_idle(road: Road) -> None:
    """Until nothing waits: no event, and no effect."""
    await road.until(
        "SELECT (SELECT count(*) FROM circuit.queue), (SELECT count(*) FROM circuit.effects WHERE status = 'pending')",
        [(0, 0)],
    )


async def test_a_job_runs_once_its_record_has_succeeded_with_its_arguments(road: Road) -> None:
    async def begin(work: Work, broker: ExecutionBroker) -> Outcome:
        await enqueue_report(work, broker)
        return Succeeded(broker.usage, {n: "no" for n, each in enumerate(work.records) if each["id"] == "c1"},
                         {n: None for n, each in enumerate(work.records) if each["id"] == "c1"})  # fmt: skip

    worker = await start(road, steps(begin=begin))
    await road.take_in(contact("c0"), contact("c1"), contact("c2"))
    await until_idle(road)

    reports = runs(worker.children, "report")
    assert sorted(work.records[0]["arguments"]["contact"] for work in reports) == ["c0", "c2"]
    (begun,) = runs(worker.children, "begin")
    for work in reports:
        job = work.records[0]["job"]
        assert (job["enqueued_by"], job["execution"]) == ("begin", str(begun.execution))
        assert (work.object, work.event, work.depth, len(work.records)) == ("Job", "report", 2, 1)
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE object = 'Job'") == [0], "a job is no record"


async def test_nothing_is_enqueued_by_an_execution_that_fails(road: Road) -> None:
    async def begin(work: Work, broker: ExecutionBroker) -> Outcome:
        await enqueue_report(work, broker)
        return Failed("no", broker.usage)

    worker = await start(road, steps(begin=begin), attempts=1)
    await road.take_in(contact("c0"))
    await until_idle(road)
    assert runs(worker.children, "report") == []


async def test_jobs_are_counted_for_each_record(road: Road) -> None:
    crossed: list[str] = []

    async def begin(work: Work, broker: ExecutionBroker) -> Outcome:
        try:
            for _ in range(2 * len(work.records) + 1):
                await ask(broker)
        except LimitExceeded as breach:
            crossed.append(f"{breach.limit} {breach.used:g} of {breach.ceiling:g}")
        return Succeeded(broker.usage)

    await start(road, steps(begin=begin))
    await road.take_in(contact("c0"), contact("c1"))
    await until_idle(road)
    assert crossed == ["jobs 5 of 4"]


async def test_the_broker_refuses_arguments_that_are_too_large(road: Road) -> None:
    refused: list[str] = []

    async def begin(work: Work, broker: ExecutionBroker) -> None:
        try:
            await ask(broker, arguments={"text": "x" * 300_000})
        except RequestRefused as error:
            refused.append(error.detail)

    await start(road, steps(begin=begin))
    await road.take_in(contact("c0"))
    await until_idle(road)
    assert "at most 262,144 bytes" in refused[0]


async def test_the_broker_refuses_a_moment_that_no_clock_shows(road: Road) -> None:
    refused: list[str] = []

    async def begin(work: Work, broker: ExecutionBroker) -> None:
        for moment in (1e300, float("nan")):
            try:
                await ask(broker, due=moment)
            except RequestRefused as error:
                refused.append(error.detail)

    await start(road, steps(begin=begin))
    await road.take_in(contact("c0"))
    await until_idle(road)
    assert len(refused) == 2
    assert await road.rows("SELECT count(*) FROM circuit.effects") == [0]


def effect(name: str = "report", tenant: str = "acme", depth: int = 1, **payload: Any) -> Effect:
    return Effect(uuid7(), tenant, "enqueue", name, None, {"arguments": {}, **payload}, 0, depth)


async def test_a_job_that_is_delivered_again_is_made_once(road: Road) -> None:
    connector, soon = JobsConnector(road.pool), effect(unique="k")
    later = effect(due=(now() + timedelta(hours=1)).timestamp())
    for _ in range(3):
        assert await connector.deliver("enqueue", [soon, later]) == [Delivered(), Delivered()]
    assert await road.rows("SELECT record FROM circuit.queue") == [str(soon.id)]
    assert await road.rows("SELECT id FROM circuit.delayed_jobs") == [later.id]

    await road.run("UPDATE circuit.delayed_jobs SET due_at = now()")
    async with road.pool.connection() as connection:
        assert await take_in_delayed(connection) == 1
    await connector.deliver("enqueue", [later])
    assert await road.rows("SELECT count(*) FROM circuit.queue") == [2]
    assert await road.rows("SELECT count(*) FROM circuit.delayed_jobs") == [0]


async def test_what_is_no_job_is_refused_by_itself(road: Road) -> None:
    """A person has edited it, or its arguments were forgotten."""
    connector, good = JobsConnector(road.pool), effect()
    bad = [effect(due="soon"), effect(due=1e300), effect(unique=0), effect(arguments={"a": 1}, by=object())]
    said = await connector.deliver("enqueue", [*bad[:2], good, *bad[2:]])
    assert [type(each) for each in said] == [Refused, Refused, Delivered, Refused, Refused]
    assert await road.rows("SELECT record FROM circuit.queue") == [str(good.id)]

    await road.run("UPDATE circuit.deliveries SET body = ''")
    (forgotten,) = await road.rows("SELECT delivery FROM circuit.queue")
    ended = {"delivery": str(forgotten), "depth": 1}
    payloads = (ended, {**ended, "delivery": "?"}, {**ended, "delivery": str(uuid7())})
    told = [replace(effect("after_report"), payload=each) for each in payloads]
    assert [type(each) for each in await connector.deliver("finalize", told)] == [Refused, Refused, Delivered]
    reason = "it is no job: ValueError: badly formed hexadecimal UUID string"
    assert await connector.deliver("finalize", told[1:2]) == [Refused(reason)]


async def test_a_short_delay_waits_in_the_queue_and_a_long_one_outside_of_it(road: Road) -> None:
    soon, later = now() + timedelta(seconds=30), now() + timedelta(days=20)
    await JobsConnector(road.pool).deliver(
        "enqueue", [effect(due=soon.timestamp()), effect(due=later.timestamp()), effect(due=1.0)]
    )
    moments = await road.rows("SELECT not_before FROM circuit.queue ORDER BY not_before NULLS FIRST")
    assert moments[0] is None, "a moment that has passed is no delay"
    assert [each.timestamp() for each in moments[1:]] == [pytest.approx(soon.timestamp(), abs=0.001)]
    assert len(await road.rows("SELECT 1 FROM circuit.delayed_jobs")) == 1
    async with road.pool.connection() as connection:
        assert await take_in_delayed(connection) == 0
        found = await look(connection)
    assert (found.number, [each.name for each in found.jobs]) == (3, ["report"] * 3)


async def test_of_jobs_with_one_key_only_one_waits_or_runs(road: Road) -> None:
    connector = JobsConnector(road.pool)
    many = [effect(unique="report-4711") for _ in range(12)]
    await asyncio.gather(*(connector.deliver("enqueue", many[n : n + 3]) for n in range(0, 12, 3)))
    (made,) = await road.rows("SELECT record FROM circuit.queue")
    assert made in {str(each.id) for each in many}
    assert await connector.holder("acme", "report", "report-4711") == made
    assert await connector.holder("other", "report", "report-4711") is None
    assert await connector.holder("acme", "after_report", "report-4711") is None

    inside: list[str | None] = []

    async def report(work: Work, broker: ExecutionBroker) -> None:
        inside.append(await connector.holder("acme", "report", "report-4711"))

    await start(road, steps(report=report))
    await until_idle(road)
    assert inside == [made], "it holds its key while it runs"
    assert await connector.holder("acme", "report", "report-4711") is None
    waits = effect(unique="other", due=(now() + timedelta(hours=1)).timestamp())
    await connector.deliver("enqueue", [waits])
    async with road.pool.connection() as connection:
        assert await free_keys(connection) == 1
    assert await road.rows("SELECT key FROM circuit.job_keys") == ["other"]
    await connector.deliver("enqueue", [effect(unique="report-4711")])
    await until_idle(road)
    assert len(inside) == 2


async def test_a_delayed_job_holds_its_key_and_keeps_it_in_the_queue(road: Road) -> None:
    connector = JobsConnector(road.pool)
    first = effect(unique="k", due=(now() + timedelta(hours=1)).timestamp())
    await connector.deliver("enqueue", [first, effect(unique="k")])
    assert await connector.holder("acme", "report", "k") == str(first.id)
    await road.run("UPDATE circuit.delayed_jobs SET due_at = now()")
    async with road.pool.connection() as connection:
        await take_in_delayed(connection)
    await connector.deliver("enqueue", [effect(unique="k")])
    assert await road.rows("SELECT record FROM circuit.queue") == [str(first.id)]


async def test_enqueue_in_a_handler_returns_the_id_of_the_job_that_waits(road: Road) -> None:
    there = effect(unique="k", due=(now() + timedelta(hours=1)).timestamp())
    await JobsConnector(road.pool).deliver("enqueue", [there])
    given: list[str] = []

    async def begin(work: Work, broker: ExecutionBroker) -> None:
        given.append(await ask(broker, unique="k"))

    worker = await start(road, steps(begin=begin))
    await road.take_in(contact("c0"))
    await until_idle(road)
    assert given == [str(there.id)]
    assert runs(worker.children, "report") == []


async def test_a_job_may_enqueue_itself_again_with_its_own_key(road: Road) -> None:
    async def report(work: Work, broker: ExecutionBroker) -> None:
        if work.depth < 4:
            await ask(broker, unique="poll")

    worker = await start(road, steps(report=report))
    await JobsConnector(road.pool).deliver("enqueue", [effect(unique="poll")])
    await until_idle(road)
    assert [work.depth for work in runs(worker.children, "report")] == [2, 3, 4]


async def test_a_chain_of_jobs_ends_at_its_depth(road: Road) -> None:
    async def report(work: Work, broker: ExecutionBroker) -> None:
        await ask(broker)

    worker = await start(road, steps(report=report))
    await JobsConnector(road.pool).deliver("enqueue", [effect(depth=0)])
    await until_idle(road)
    assert [work.depth for work in runs(worker.children, "report")] == list(range(1, 17))
    dead = await road.rows("SELECT reason FROM circuit.dead_letters ORDER BY id")
    assert len(dead) == 2, "the job that came too deep, and its finalizer"
    assert all(reason.startswith("limit depth exceeded: 17 of 16") for reason in dead)


async def fail(work: Work, broker: ExecutionBroker) -> Outcome:
    return Failed("it broke", broker.usage)


async def cancel(work: Work, broker: ExecutionBroker) -> Outcome:
    return Succeeded(broker.usage, {0: "not needed"}, {0: None})


@pytest.mark.parametrize(
    ("report", "expected"),
    [(None, ("succeeded", None, 1)), (fail, ("dead", "it broke", 2)), (cancel, ("cancelled", "not needed", 1))],
)
async def test_a_finalizer_runs_once_after_success_and_every_failure(
    road: Road, report: Step | None, expected: tuple[str, str | None, int]
) -> None:
    by_handler = {} if report is None else {"report": report}
    worker = await start(road, steps(**by_handler), attempts=2)
    job = effect(by="begin")
    job.payload["arguments"] = {"contact": "c0"}
    await JobsConnector(road.pool).deliver("enqueue", [job])
    await until_idle(road)

    (final,) = runs(worker.children, "after_report")
    (record,) = final.records
    assert record["arguments"] == {"contact": "c0"}
    said = record["job"]
    assert (said["status"], said.get("reason"), said["attempt"]) == expected
    assert (said["id"], said["name"], said["enqueued_by"]) == (str(job.id), "report", "begin")
    assert said["execution"] == str(runs(worker.children, "report")[-1].execution)
    assert final.depth == runs(worker.children, "report")[0].depth


async def test_a_finalizer_is_committed_with_the_outcome_or_not_at_all(road: Road) -> None:
    """Another worker has taken the lanes meanwhile: what the first one says does not count, its finalizer neither."""

    async def report(work: Work, broker: ExecutionBroker) -> None:
        if len(worker.children.works) == 1:
            await road.run("UPDATE circuit.lanes SET epoch = epoch + 1, owner = gen_random_uuid()")

    worker = await start(road, steps(report=report), lease=1.0)
    await JobsConnector(road.pool).deliver("enqueue", [effect()])
    await road.until("SELECT count(*) FROM circuit.executions", [0])
    await road.run("UPDATE circuit.lanes SET owner = NULL")
    await until_idle(road)
    assert len(runs(worker.children, "after_report")) == 1


async def test_from_outside_a_job_is_checked_against_the_live_release(road: Road) -> None:
    async with road.pool.connection() as connection:
        taken = await enqueue_now(connection, Asked("report", {"contact": "c9"}, tenant="acme", by="ada"))
        assert taken.kind == "queued"
        with pytest.raises(RequestRefused, match="report"):
            await enqueue_now(connection, Asked("reprot", {}))
        with pytest.raises(RequestRefused, match="Did you mean 'contact'"):
            await enqueue_now(connection, Asked("report", {"contcat": 1}))
        due = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        assert (await enqueue_now(connection, Asked("report", {}, due=due, unique="k"))).kind == "queued"
        held = await enqueue_now(connection, Asked("report", {}, unique="k"))
    assert held.kind == "held"
    (record,) = await road.rows("SELECT record FROM circuit.queue WHERE tenant = 'acme'")
    assert record == str(taken.id)


async def test_a_job_waits_behind_no_other_effect_of_its_record(road: Road) -> None:
    async def begin(work: Work, broker: ExecutionBroker) -> None:
        sent = {"connector": "webhook", "operation": "post", "to": "crm", "payload": {}, "record": 0}
        await broker.request("send", sent)
        await ask(broker, record=0)

    worker = await start(road, steps(begin=begin), addresses={"crm": Address(url="http://127.0.0.1:9/", secret="")})
    await road.take_in(contact("c0"))
    await road.until("SELECT count(*) FROM circuit.outcomes o JOIN circuit.handlers h ON h.id = o.handler "
                     "WHERE h.name = 'report'", [1])  # fmt: skip
    assert len(runs(worker.children, "report")) == 1
