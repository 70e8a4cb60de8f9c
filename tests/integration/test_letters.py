"""Dead letters of events: found, told, retried once, edited, discarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import (
    Fate,
    Letter,
    Wanted,
    causes,
    chosen,
    discard,
    find_letter,
    letters,
    payload_of,
    retry,
    send_edited,
    story_of,
)
from circuit_script.events.maintenance import once
from circuit_script.events.requeue import Past, requeue
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Failed, HandlerSpec, Outcome, Work
from tests.road import SCORE, Road, contact, open_road, score

STATES = "SELECT status, by FROM circuit.dead_letters ORDER BY id"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        await road.live(SCORE)
        yield road


async def bad_email(work: Work, broker: ExecutionBroker) -> Outcome:
    """Fails for every record whose address has no @."""
    if any("@" not in str(record.get("email")) for record in work.records):
        return Failed(f"ValueError: no address in '{work.records[0]['id']}'", broker.usage, detail="Traceback …")
    return await score(work, broker)


async def dead(road: Road, *records: str, tenant: str = "acme") -> list[Letter]:
    """Letters of these records, in their order; nobody works afterwards."""
    worker = await road.start(bad_email, attempts=2, backoff=0.01)
    for record in records:
        await road.take_in(contact(record, email="nobody"))
    await road.until("SELECT count(*) FROM circuit.queue", [0])
    await worker.stop()
    async with road.pool.connection() as connection:
        found = await letters(connection, Wanted(), 100)
    return sorted(found, key=lambda each: records.index(str(each.record)))


async def test_a_letter_tells_what_came_and_how_each_attempt_ended(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    assert (letter.handler, letter.object, letter.event, letter.attempts) == ("score", "Contact", "afterInsert", 2)

    async with road.pool.connection() as connection:
        story = await story_of(connection, letter)
    assert story.payload.fields == {"id": "c1", "email": "nobody"}
    assert story.payload.source == "standard"
    assert [(each.status, each.reason) for each in story.attempts] == [
        ("retry", "ValueError: no address in 'c1'"),
        ("dead", "ValueError: no address in 'c1'"),
    ]
    assert story.attempts[0].detail == "Traceback …"


async def test_letters_are_found_by_filter_and_counted_by_cause(road: Road) -> None:
    await dead(road, "c1", "c2", "c3")
    async with road.pool.connection() as connection:
        for wanted, records in (
            (Wanted(record="c2"), ["c2"]),
            (Wanted(tenant="acme"), ["c1", "c2", "c3"]),
            (Wanted(tenant="other"), []),
            (Wanted(trigger="score", reason="NO ADDRESS in 'c1"), ["c1"]),
            (Wanted(trigger="other"), []),
            (Wanted(kind="effect"), []),
            (Wanted(status="retried"), []),
        ):
            found = await letters(connection, wanted, 10)
            assert sorted(str(each.record) for each in found) == records, wanted
            assert [each.id for each in found] == sorted((each.id for each in found), reverse=True)
        (cause,) = await causes(connection, Wanted(tenant="acme"), 10)
        assert (cause.cause, cause.handler, cause.n) == ("ValueError: no address in '…'", "score", 3)
        assert len(await chosen(connection, Wanted(reason=cause.cause))) == 3


async def test_the_end_of_a_triggers_name_is_taken_as_it_is_written(road: Road) -> None:
    await dead(road, "c1")
    await road.run("UPDATE circuit.handlers SET name = 'Leads.score' WHERE name = 'score'")
    async with road.pool.connection() as connection:
        for trigger, found in (("score", 1), ("Leads.score", 1), ("core", 0), ("scor_", 0), ("%", 0)):
            assert len(await chosen(connection, Wanted(trigger=trigger))) == found, trigger


async def test_a_tenant_is_shown_its_own_letters_only(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    async with road.pool.connection() as connection:
        assert (await find_letter(connection, letter.id, "acme")).record == "c1"
        assert (await story_of(connection, letter, "acme")).payload.fields is not None
        assert (await story_of(connection, letter, "other")).payload.fields is None
        with pytest.raises(LetterRefused, match="There is no dead letter"):
            await find_letter(connection, letter.id, "other")
        with pytest.raises(LetterRefused, match="There is no dead letter"):
            await retry(connection, [letter.id], "eve", tenant="other")
    assert await road.rows(STATES) == [("open", None)]


async def test_a_retried_letter_runs_again_and_a_second_retry_says_who_was_first(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
        assert fate.done == "retried"
        (second,) = await retry(connection, [letter.id], "ben")
    assert second.done == "before"
    assert "it was retried by ada at " in second.said
    assert await road.rows(STATES) == [("retried", "ada")]
    assert await road.rows("SELECT id, attempts FROM circuit.queue") == [(fate.again, 0)]

    await road.start(score)
    await road.done()
    assert (await road.record("c1") or {})["score"] == 1
    async with road.pool.connection() as connection:
        story = await story_of(connection, await find_letter(connection, letter.id))
    assert [each.status for each in story.attempts] == ["retry", "dead", "succeeded"]


async def test_of_two_who_retry_at_once_one_does_it(road: Road) -> None:
    found = await dead(road, "c1", "c2", "c3", "c4")
    ids = [each.id for each in found]

    async def one(who: str, order: list[int]) -> list[Fate]:
        async with road.pool.connection() as connection:
            return await retry(connection, order, who)

    fates = await asyncio.gather(one("ada", ids), one("ben", ids[::-1]), one("cleo", ids[1:]))
    done = [fate.letter for each in fates for fate in each if fate.done == "retried"]
    assert sorted(done) == sorted(ids)
    assert await road.rows("SELECT count(*) FROM circuit.queue") == [4]


async def test_a_retry_while_workers_settle_loses_and_doubles_nothing(road: Road) -> None:
    found = await dead(road, *(f"c{n}" for n in range(6)))
    await road.start(bad_email, attempts=1)
    async with road.pool.connection() as connection:
        for letter in found:
            await retry(connection, [letter.id], "ada")
    await road.done()
    open_letters = "SELECT record FROM circuit.dead_letters WHERE status = 'open' ORDER BY record"
    await road.until(open_letters, [f"c{n}" for n in range(6)])
    assert await road.rows("SELECT count(*) FROM circuit.outcomes WHERE status = 'dead'") == [12]


async def test_what_a_first_life_has_paid_for_is_not_paid_again(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    handler = road.handler("score")
    await road.run(
        "INSERT INTO circuit.journal (event, handler, key, tenant, reply, at)"
        " VALUES (%s, %s, 'k', 'acme', 'r', now() - interval '2 days')", letter.event_id, handler,
    )  # fmt: skip
    await once(road.pool, 30)
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
    assert await road.rows("SELECT key, reply FROM circuit.journal WHERE event = %s", fate.again) == [(b"k", b"r")]
    await once(road.pool, 30)
    assert await road.rows("SELECT event FROM circuit.journal") == [fate.again]


async def test_a_letter_whose_handler_is_gone_is_refused_with_the_cure(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    await road.live(HandlerSpec("other", (("Contact", "afterInsert"),)))
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
        assert fate.done == "refused"
        assert "no handler 'score': deploy a release that has it" in fate.said
        with pytest.raises(LetterRefused, match="no handler 'score'"):
            await send_edited(connection, letter.id, {"email": "a@b"}, "ada")
    assert await road.rows(STATES) == [("open", None)]


async def test_an_edited_letter_is_a_delivery_of_its_own_and_the_original_stays(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    before = await road.rows("SELECT id, body FROM circuit.deliveries")
    async with road.pool.connection() as connection:
        with pytest.raises(LetterRefused, match="about the record 'c1'"):
            await send_edited(connection, letter.id, {"id": "c2"}, "ada")
        edited = await send_edited(connection, letter.id, {"id": "c1", "email": "a@b"}, "ada")
        with pytest.raises(LetterRefused, match="it was retried by ada at"):
            await send_edited(connection, letter.id, {"id": "c1", "email": "a@b"}, "ada")
    ((source, headers, body),) = await road.rows(
        "SELECT source, headers, body FROM circuit.deliveries WHERE id = %s", edited.delivery
    )
    assert source == "circuit"
    assert headers == {"circuit-original": str(letter.delivery), "circuit-letter": str(letter.id), "circuit-by": "ada"}
    assert json.loads(body) == {"type": "Contact.afterInsert", "data": {"id": "c1", "email": "a@b"}}
    assert await road.rows("SELECT id, body FROM circuit.deliveries WHERE id = %s", letter.delivery) == before

    worker = await road.start(bad_email)
    await road.done()
    await worker.stop()
    assert (await road.record("c1") or {}).items() >= {"email": "a@b", "score": 1}.items()
    async with road.pool.connection() as connection:
        found = await find_letter(connection, letter.id)
        assert (found.status, found.by, found.edited) == ("retried", "ada", edited.delivery)
        assert [each.status for each in (await story_of(connection, found)).attempts][-1] == "succeeded"


async def test_a_letter_without_its_delivery_is_edited_from_its_record(road: Road) -> None:
    worker = await road.start(score)
    await road.take_in(contact("c1", email="a@b", name="Ada"))
    await road.done()
    await worker.stop()
    (letter,) = await dead(road, "c1")
    await road.run("DELETE FROM circuit.events WHERE delivery = %s", letter.delivery)
    await road.run("DELETE FROM circuit.deliveries WHERE id = %s", letter.delivery)
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
        assert fate.done == "refused"
        assert fate.said.startswith("its delivery is no longer in the ledger: circuit-script dead edit")
        payload = await payload_of(connection, letter)
        assert payload.fields is None
        assert (payload.editable or {})["name"] == "Ada"
        await send_edited(connection, letter.id, payload.editable or {}, "ada")
    await road.start(score)
    await road.done()


async def test_a_letter_whose_payload_was_erased_is_not_retried(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    await road.run("UPDATE circuit.deliveries SET body = '' WHERE id = %s", letter.delivery)
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
        assert (fate.done, fate.said.partition(":")[0]) == ("refused", "its payload was erased")
        assert (await story_of(connection, letter)).payload.fault == "its payload was erased"


async def test_a_discarded_letter_keeps_who_when_and_why(road: Road) -> None:
    one, two = await dead(road, "c1", "c2")
    async with road.pool.connection() as connection:
        (fate,) = await discard(connection, [one.id], "ada", "a test contact")
        assert fate == Fate(one.id, "discarded")
        (late,) = await retry(connection, [one.id], "ben")
        assert late.said.startswith("it was discarded by ada at ")
        assert [each.id for each in await letters(connection, Wanted(), 10)] == [two.id]
        (found,) = await letters(connection, Wanted(status="discarded"), 10)
    assert found.closed.startswith("discarded by ada at ")
    assert found.closed.endswith(": a test contact")


async def test_what_has_succeeded_since_in_a_replay_is_not_done_again(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    async with road.pool.connection() as connection:
        assert letter.delivery is not None
        await requeue(connection, [Past(letter.delivery, 0, road.handler("score"))], by="ben")
        await road.start(score)
        await road.done()
        (fate,) = await retry(connection, [letter.id], "ada")
    assert (fate.done, fate.said.partition(", at")[0]) == ("before", "it has succeeded since")
    assert await road.rows(STATES) == [("retried", "ada")]
    assert await road.rows("SELECT count(*) FROM circuit.queue") == [0]


async def test_of_what_is_not_there_nothing_is_done(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    async with road.pool.connection() as connection:
        with pytest.raises(LetterRefused, match="There is no dead letter 99"):
            await retry(connection, [letter.id, 99], "ada")
    assert await road.rows(STATES) == [("open", None)]


async def test_a_letter_from_a_batch_tells_its_executions_use_against_its_limits(road: Road) -> None:
    (letter,) = await dead(road, "c1")
    await road.run(
        """UPDATE circuit.executions SET usage = '{"wall_time": 30.1, "messages": 2, "memory": 0}', records = 3"""
    )
    await road.run(
        "INSERT INTO circuit.circuit_logs (at, level, message, execution, handler, tenant, record)"
        " SELECT now(), 'info', m, %s, 'score', 'acme', r FROM (VALUES ('mine', 'c1'), ('all', NULL), ('not', 'c2'))"
        " AS l (m, r)", letter.execution,
    )  # fmt: skip
    async with road.pool.connection() as connection:
        story = await story_of(connection, letter)
    assert story.attempts[-1].used == {"wall_time": (30.1, 30.0), "messages": (2, 30)}
    assert sorted(each.message for each in story.lines) == ["all", "mine"]


async def test_the_cause_of_a_long_reason_fits_an_index(road: Road) -> None:
    long = "x" * 100_000 + str(uuid7())
    await road.run(
        "INSERT INTO circuit.dead_letters (kind, tenant, attempts, reason) VALUES ('event', 'acme', 1, %s)", long
    )
    assert await road.rows("SELECT length(cause) FROM circuit.dead_letters") == [120]
