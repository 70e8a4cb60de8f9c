"""What names a person among others: short ids, and jobs about several."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from circuit_script.clock import now, uuid7
from circuit_script.erasure import Person, forget
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.jobs.store import NewJob, body_of, take_in_jobs, take_in_meant
from tests.road import SCORE, Incoming, Road, contact, open_road

REMIND = HandlerSpec("remind", (("Job", "remind"),), job=JobSpec("queueable", anything=True))
MAIL = "anna@example.com"
ANNA = {"email": MAIL}
erasing = sys.modules[forget.__module__]  # the function has its module's name
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


async def known_as(road: Road, id_: str, data: Any) -> None:
    await road.run(
        "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('acme', 'Contact', %s, %s)",
        id_, json.dumps(data),
    )  # fmt: skip


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


def nested(id_: str) -> dict[str, Any]:
    """Too deep to be looked through."""
    made: Any = id_
    for _ in range(400):
        made = [made]
    return {"who": made, "others": ["ben"]}


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
        ("4711", "scored", {"said": "of\n4711"}, True),
        ("4711", "GET /go?to=%2Fcontacts%2F4711", None, True),
        ("4711", "GET /go?to=%2F94711", None, False),
        ("an/na", "GET /contacts/an%2Fna", None, True),
        ('an"na', "scored", {"who": 'an"na'}, True),
        ("an\\d+", "an44 wrote", None, False),
        ("7", "scored", {"who": "anna@example.com"}, True),
        ("7", "sent to ANNA@Example.com.", None, True),
        ("7", "mailto%3Aanna%40example.com", None, True),
        ("7", "sent to joanna@example.com", None, False),
        ("7", "sent to anna@example.company", None, False),
        ("7", "called 49 (30) 123456.", None, True),
        ("7", "done on 2026-05-01", None, False),
        ("7", "somebody at @example.com", None, False),
    ],
)
async def test_an_id_is_known_where_it_stands_for_itself(
    road: Road, id_: str, said: str, context: Any, named: bool
) -> None:
    await road.take_in(contact(id_, **ANNA), contact("ben"))
    await known_as(
        road, id_, {**ANNA, "phone": "+49 (30) 123456", "phone_since": "2026-05-01", "email_at": "@example.com"}
    )
    await say(road, await handled_together(road), said, context)

    would = await run_forget(road, id_, dry_run=True)

    assert await run_forget(road, id_) == would
    assert await road.rows("SELECT message FROM circuit.circuit_logs") == ["forgotten" if named else said]


async def test_nobodys_jobs_are_taken_for_those_of_a_short_id_but_what_has_the_address_is(road: Road) -> None:
    await road.take_in(contact("7", **ANNA))
    await known_as(road, "7", ANNA)
    stays = await enqueue(road, {"step": "7"}, delayed=True)
    waits = await enqueue(road, {"step": "7"})
    others = await enqueue(road, {"to": ["jo.anna@example.com", "anna@example.com.au"]}, delayed=True)
    await enqueue(road, {"to": "Anna@example.com"}, delayed=True)
    gone = await enqueue(road, {"to": "mailto:anna@example.com"})

    await run_forget(road, "7")

    assert await arguments_of(road) == {
        str(stays): {"step": "7"},
        str(waits): {"step": "7"},
        str(others): {"to": ["jo.anna@example.com", "anna@example.com.au"]},
        str(gone): None,
    }
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
            (
                {"who": ["ben", "anna"], "says": ["hi Ben", "hi Anna"], "tags": ["a", "b", "c"]},
                {"who": ["ben"], "says": ["hi Ben"], "tags": ["a", "b", "c"]},
            ),
            ({"to": [["anna", "Anna"], ["ben", "Ben"]]}, {"to": [["ben", "Ben"]]}),
        )
    }
    theirs = [
        await enqueue(road, given, delayed=delayed, unique=unique)
        for given, unique in (
            ({"who": ["anna"]}, None),
            ({"who": "anna", "others": ["ben"]}, None),
            ({"points": {"anna": 3}}, None),
            (nested("anna"), None),
            ({"who": ["ben"]}, "anna"),
        )[: 5 if delayed else 4]
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
    packed = msgspec.msgpack.encode("anna")
    await road.run(
        "INSERT INTO circuit.journal (event, handler, key, tenant, reply) VALUES (%s, 1, %s, 'acme', %s)",
        event, packed, packed,
    )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, reason, detail, "
        "started_at, usage) VALUES (%s, 'acme', 1, 1, 'Job', 'remind', 1, 'failed', 'no anna', 'Trace', now(), '{}')",
        ran,
    )

    await run_forget(road, "anna")

    assert await arguments_of(road) == {str(job): {"who": ["ben"]}}
    assert await road.rows("SELECT message FROM circuit.circuit_logs ORDER BY 1") == ["forgotten", "told ben"]
    assert await road.rows("SELECT reply FROM circuit.journal") == [b"told ben"]
    assert await road.rows("SELECT reason FROM circuit.executions WHERE id = %s", ran) == ["forgotten"]
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


@pytest.mark.parametrize(
    ("given", "left"), [({"who": "anna"}, None), ({"who": ["anna", "ben"]}, {"who": ["ben"]}), ({"to": MAIL}, None)]
)
async def test_a_job_that_comes_to_the_queue_meanwhile_is_found_there(
    road: Road, monkeypatch: pytest.MonkeyPatch, given: Any, left: Any
) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben"))
    await known_as(road, "anna", ANNA)
    job = await enqueue(road, given, delayed=True)
    find = erasing.find

    async def found_and_moved(*arguments: Any) -> Any:
        traces = await find(*arguments)
        async with road.pool.connection() as other:
            await take_in_meant(other, {"name": "remind", "tenant": "acme", "record": str(job)})
        return traces

    monkeypatch.setattr(erasing, "find", found_and_moved)
    await run_forget(road, "anna")

    assert await arguments_of(road) == {str(job): left}
    waits = await road.rows("SELECT record FROM circuit.queue WHERE object = 'Job'")
    assert waits == ([str(job)] if left else [])


async def test_a_finalizer_of_a_job_about_several_is_not_told_of_the_person(road: Road) -> None:
    await road.take_in(contact("anna", **ANNA), contact("ben"))
    job = uuid7()
    body = body_of(job, "remind", {"who": ["anna", "ben"]}, status="dead", reason="there is no anna")
    async with road.pool.connection() as connection:
        await take_in_jobs(connection, [NewJob(job, "acme", "remind", body)])

    await run_forget(road, "anna")

    (kept,) = await road.rows("SELECT body FROM circuit.deliveries WHERE source = 'circuit'")
    assert msgspec.json.decode(kept)["data"]["job"] == {
        "id": str(job), "name": "remind", "status": "dead", "reason": "forgotten",
    }  # fmt: skip
