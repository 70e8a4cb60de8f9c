"""What names a person among others: short ids, and jobs about several."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from circuit_script.clock import now, uuid7
from circuit_script.erasure import Person, forget
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.jobs.store import NewJob, body_of, take_in_jobs
from tests.road import SCORE, Incoming, Road, contact, open_road

REMIND = HandlerSpec("remind", (("Job", "remind"),), job=JobSpec("queueable", anything=True))
ANNA = {"email": "anna@example.com"}
EFFECT = (
    "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, "
    "payload, status) VALUES (%s, 'acme', %s, 1, 1, 1, %s, 'enqueue', 'x', %s, %s)"
)


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE, REMIND)
        yield made


async def run_forget(road: Road, record: str, **how: Any) -> dict[str, int]:
    async with road.pool.connection() as connection:
        return (await forget(connection, Person(record, "acme"), "eva", **how)).blanked


async def handled_together(road: Road) -> UUID:
    """One execution that handled all there is."""
    execution = uuid7()
    await road.run(
        "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
        "SELECT delivery, ordinal, 1, %s, tenant, 'succeeded' FROM circuit.events", execution,
    )  # fmt: skip
    await road.run("DELETE FROM circuit.queue")
    return execution


async def say(road: Road, execution: UUID, message: str, context: Any = None) -> None:
    await road.run(
        "INSERT INTO circuit.circuit_logs (at, level, message, context, execution, handler, tenant) "
        "VALUES (now(), 'info', %s, %s, %s, 'score', 'acme')",
        message, None if context is None else json.dumps(context), execution,
    )  # fmt: skip


async def enqueue(road: Road, arguments: Any, *, delayed: bool = False, unique: str | None = None) -> UUID:
    job = uuid7()
    due = now() + timedelta(days=1) if delayed else None
    made = NewJob(job, "acme", "remind", body_of(job, "remind", arguments), 0, due, unique)
    async with road.pool.connection() as connection:
        await take_in_jobs(connection, [made])
    return job


async def arguments_of(road: Road) -> dict[str, Any]:
    """By the jobs' ids, of all that are kept; None for those whose body is blank."""
    rows = await road.rows(
        "SELECT id::text, body FROM circuit.delayed_jobs UNION ALL SELECT e.record, d.body FROM circuit.deliveries d "
        "JOIN circuit.events e ON e.delivery = d.id WHERE d.source = 'circuit'"
    )
    return {job: msgspec.json.decode(body)["data"]["arguments"] if body else None for job, body in rows}


@pytest.mark.parametrize(
    ("id_", "said", "context", "named"),
    [
        ("7", "7 of 12 are done", None, False),
        ("7", "17 are done", {"at": 7, "of": "17"}, False),
        ("7", "no contact '7'", None, True),
        ("7", "scored", {"who": "7"}, True),
        ("7", 'the vendor said {"id": "7"}', None, True),
        ("a.b", "'axb' is unknown", None, False),
        ("4711", "order 94711 is paid", {"at": 1784711000}, False),
        ("4711", "contact-4711 wrote", None, True),
        ("4711", "scored", {"who": 4711}, True),
        ("an(na", "an(na wrote", None, True),
        ("anna", "annabel wrote", None, False),
    ],
)
async def test_an_id_is_known_where_it_stands_for_itself(
    road: Road, id_: str, said: str, context: Any, named: bool
) -> None:
    await road.take_in(contact(id_, **ANNA), contact("ben"))
    await say(road, await handled_together(road), said, context)

    would = await run_forget(road, id_, dry_run=True)

    assert await run_forget(road, id_) == would
    assert await road.rows("SELECT message FROM circuit.circuit_logs") == ["forgotten" if named else said]


async def test_nobodys_jobs_are_taken_for_those_of_a_short_id_but_what_has_the_address_is(road: Road) -> None:
    await road.take_in(contact("7", **ANNA))
    await road.run("INSERT INTO circuit.records (tenant, object, id, data) VALUES ('acme', 'Contact', '7', %s)",
                   json.dumps(ANNA))  # fmt: skip
    stays = await enqueue(road, {"step": "7"}, delayed=True)
    waits = await enqueue(road, {"step": "7"})
    await enqueue(road, {"to": "anna@example.com"}, delayed=True)
    gone = await enqueue(road, {"to": "mailto:anna@example.com"})

    await run_forget(road, "7")

    assert await arguments_of(road) == {str(stays): {"step": "7"}, str(waits): {"step": "7"}, str(gone): None}
    assert await road.rows("SELECT record FROM circuit.queue WHERE object = 'Job'") == [str(waits)]


@pytest.mark.parametrize("delayed", [True, False])
async def test_a_job_about_several_goes_on_without_the_person(road: Road, delayed: bool) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben"))
    await handled_together(road)
    kept = {
        await enqueue(road, given, delayed=delayed): left
        for given, left in (
            ({"who": ["anna", "ben"], "text": "hello"}, {"who": ["ben"], "text": "hello"}),
            ({"to": [{"id": "anna", "n": 1}, {"id": "ben", "n": None}]}, {"to": [{"id": "ben", "n": None}]}),
            ({"points": {"anna": 3, "ben": 4}}, {"points": {"ben": 4}}),
            ({"who": ["ben", None], "words": "an anna"}, {"who": ["ben", None], "words": "an anna"}),
        )
    }
    theirs = [
        await enqueue(road, given, delayed=delayed, unique=unique)
        for given, unique in (
            ({"who": ["anna"]}, None),
            ({"who": "anna", "others": ["ben"]}, None),
            ({"points": {"anna": 3}}, None),
            ({"who": ["anna", "ben"]}, "anna" if delayed else None),
        )[: 4 if delayed else 3]
    ]

    would = await run_forget(road, "anna", dry_run=True)

    assert await run_forget(road, "anna") == would
    left = await arguments_of(road)
    assert {job: left[str(job)] for job in kept} == kept
    assert [left.get(str(job)) for job in theirs] == [None] * len(theirs)
    if not delayed:
        waits = await road.rows("SELECT record FROM circuit.queue WHERE object = 'Job' ORDER BY id")
        assert waits == [str(job) for job in kept]
    assert await run_forget(road, "anna") == {}


async def test_what_a_job_about_several_has_done_is_the_others_too(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben"))
    batch = await handled_together(road)
    job = await enqueue(road, {"who": ["anna", "ben"]})
    await road.run(EFFECT, job, batch, "jobs", json.dumps({"arguments": {"who": ["anna", "ben"]}}), "delivered")
    ((delivery, event),) = await road.rows("SELECT delivery, id FROM circuit.events WHERE object = 'Job'")
    ran = uuid7()
    await road.run(
        "INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status) "
        "VALUES (%s, 0, 1, %s, 'acme', 'succeeded')", delivery, ran,
    )  # fmt: skip
    for said in ("told anna", "told ben"):
        await say(road, ran, said)
        await road.run(EFFECT, uuid7(), ran, "nowhere", json.dumps({"to": said}), "pending")
        await road.run(
            "INSERT INTO circuit.journal (event, handler, key, tenant, reply) VALUES (%s, 1, %s, 'acme', %s)",
            event, said.encode(), said.encode(),
        )  # fmt: skip

    await run_forget(road, "anna")

    assert await arguments_of(road) == {str(job): {"who": ["ben"]}}
    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == ["forgotten", "told ben"]
    assert await road.rows("SELECT reply FROM circuit.journal") == [b"told ben"]
    sent = "SELECT status FROM circuit.effects WHERE connector = 'nowhere'"
    assert await road.rows(sent) == ["pending", "pending"], "what has not left may be for the others"


async def test_a_job_that_has_not_left_its_batch_is_changed_there(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben"))
    batch = await handled_together(road)
    for given in ({"who": ["anna", "ben"]}, {"who": "anna"}, {"who": "ben"}):
        await road.run(EFFECT, uuid7(), batch, "jobs", json.dumps({"arguments": given, "depth": 1}), "pending")

    await run_forget(road, "anna")

    assert await road.rows("SELECT status, payload -> 'arguments' ->> 'who' FROM circuit.effects ORDER BY 1, 2") == [
        ("discarded", None), ("pending", '["ben"]'), ("pending", "ben"),
    ]  # fmt: skip


async def test_what_comes_from_a_vendor_and_is_called_a_job_is_no_job(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA), Incoming("j1", object="Job", event="remind", fields={"who": "anna"}))

    await run_forget(road, "anna")

    assert await road.rows("SELECT record FROM circuit.queue") == ["j1"]
