"""Jobs that a person cancels: those that wait, run, are tried again, or have yet to come; each with its finalizer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from circuit_script.clock import now, uuid7
from circuit_script.connectors.connector import Effect
from circuit_script.events.controls import Selection, found, waiting
from circuit_script.events.why import why
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, JobSpec, Outcome, Succeeded, Work
from circuit_script.jobs.cancel import cancel
from circuit_script.jobs.connector import JobsConnector
from circuit_script.tenants.pauses import pause
from tests.integration.jobs.test_enqueue import runs, start, steps, until_idle
from tests.road import Road, open_road

REPORT = HandlerSpec(
    "report", (("Job", "report"),), batch_size=1, job=JobSpec("queueable", ("contact",), (), False, "after_report")
)
AFTER = HandlerSpec("after_report", (("Job", "after_report"),), batch_size=1, job=JobSpec("finalizer", anything=True))


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(REPORT, AFTER)
        yield made


def job(tenant: str = "acme", **payload: Any) -> Effect:
    return Effect(uuid7(), tenant, "enqueue", "report", None, {"arguments": {"contact": "c0"}, **payload}, 0, 1)


async def take_out(road: Road, selection: Selection) -> tuple[int, int]:
    """How many it counted, and cancelled."""
    async with road.pool.connection() as connection:
        meant = await found(connection, selection)
        counted = await waiting(connection, meant)
        return counted, await cancel(connection, meant, reason="not wanted", by="ada")


async def test_cancelled_jobs_are_finalized_also_those_whose_moment_has_not_come(road: Road) -> None:
    far = (now() + timedelta(days=20)).timestamp()
    waits, comes, others = job(), job(due=far, unique="k"), job(tenant="bolt", due=far)
    await JobsConnector(road.pool).deliver("enqueue", [waits, comes])
    await JobsConnector(road.pool).deliver("enqueue", [others])

    assert await take_out(road, Selection("tenant", "acme")) == (2, 2)
    assert await road.rows("SELECT id FROM circuit.delayed_jobs") == [others.id]
    assert (
        await road.rows("SELECT status, reason FROM circuit.outcomes")
        == [("cancelled", "cancelled by ada: not wanted")] * 2
    )
    assert await JobsConnector(road.pool).holder("acme", "report", "k") is None
    worker = await start(road, steps())
    await until_idle(road)

    assert runs(worker.children, "report") == []
    told = [work.records[0] for work in runs(worker.children, "after_report")]
    assert sorted(each["job"]["id"] for each in told) == sorted([str(waits.id), str(comes.id)])
    for each in told:
        assert each["arguments"] == {"contact": "c0"}
        assert (each["job"]["status"], each["job"]["reason"]) == ("cancelled", "cancelled by ada: not wanted")
    assert {work.depth for work in runs(worker.children, "after_report")} == {2}


async def test_a_delayed_job_is_cancelled_by_its_id_and_one_of_another_tenant_is_not(road: Road) -> None:
    far = (now() + timedelta(hours=1)).timestamp()
    mine, other = job(due=far), job(due=far)
    await JobsConnector(road.pool).deliver("enqueue", [mine, other])
    assert await take_out(road, Selection("record", str(mine.id), "bolt")) == (0, 0)
    assert await take_out(road, Selection("record", str(mine.id), "acme")) == (1, 1)
    assert await road.rows("SELECT id FROM circuit.delayed_jobs") == [other.id]
    assert await take_out(road, Selection("trigger", "report")) == (1, 1)
    assert await road.rows("SELECT count(*) FROM circuit.queue") == [0]


async def test_a_job_that_runs_while_it_is_cancelled_is_finalized_once(road: Road) -> None:
    async def report(work: Work, broker: ExecutionBroker) -> Outcome:
        await take_out(road, Selection("trigger", "report"))
        return Succeeded(broker.usage)

    worker = await start(road, steps(report=report))
    await JobsConnector(road.pool).deliver("enqueue", [job()])
    await road.until("SELECT count(*) FROM circuit.outcomes WHERE status = 'succeeded'", [1])
    await until_idle(road)
    (final,) = runs(worker.children, "after_report")
    assert final.records[0]["job"]["status"] == "cancelled"


async def test_the_age_of_a_delayed_job_counts_from_its_moment(road: Road) -> None:
    await road.live(replace(REPORT, max_age=0.5), AFTER)
    worker = await start(road, steps())
    await JobsConnector(road.pool).deliver("enqueue", [job(due=(now() + timedelta(seconds=1)).timestamp())])
    await until_idle(road)
    assert len(runs(worker.children, "report")) == 1


async def test_why_a_delayed_job_waits(road: Road) -> None:
    due = now() + timedelta(hours=1)
    waits = job(due=due.timestamp())
    await JobsConnector(road.pool).deliver("enqueue", [waits])
    async with road.pool.connection() as connection:
        (found_,) = (await why(connection, str(waits.id))).waiting
        assert (await why(connection, str(waits.id), tenant="bolt")).waiting == []
        await pause(connection, "tenant", "acme", reason="late", by="ada")
        (paused,) = (await why(connection, str(waits.id))).waiting
    assert (found_.kind, found_.trigger, found_.record) == ("delayed", "report", str(waits.id))
    assert found_.until is not None
    assert abs((found_.until - due).total_seconds()) < 0.01
    assert "ada paused tenant acme" in paused.words
