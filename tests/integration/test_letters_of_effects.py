"""Dead letters of effects, and effects in doubt: what is known of them, and what a person decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.config import Address
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import (
    Decision,
    Letter,
    Wanted,
    discard,
    doubts,
    find_doubt,
    find_letter,
    known_of,
    letters,
    retry,
    send_edited,
    settle_doubt,
    story_of,
)
from tests.receiver import Got, receiving, response
from tests.road import PATIENCE, Road, Worker, open_road

EFFECT = "SELECT status, attempts FROM circuit.effects WHERE id = %s"
STATES = "SELECT status, by FROM circuit.dead_letters ORDER BY id"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as road:
        await road.live()
        yield road


async def effect(road: Road, *, status: str = "pending", target: str = "alerts", order: int = 7) -> UUID:
    """One that was asked for; in doubt as the courier leaves it."""
    id_ = uuid7()
    settled = None if status == "pending" else "now"
    await road.run(
        "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target,"
        " record, payload, status, attempts, settled_at, reason)"
        " VALUES (%s, 'acme', %s, %s, %s, %s, 'webhook', 'post', %s, 'c1', %s, %s, %s, %s::timestamptz, %s)",
        id_, uuid7(), road.release.id, order % 64, order, target, Jsonb({"id": "c1", "n": 1}), status,
        0 if status == "pending" else 3, settled, None if status == "pending" else "no answer",
    )  # fmt: skip
    return id_


async def in_doubt(road: Road) -> UUID:
    id_ = await effect(road, status="in_doubt")
    await road.run(
        "INSERT INTO circuit.dead_letters (kind, tenant, effect, record, attempts, reason)"
        " VALUES ('effect', 'acme', %s, 'c1', 3, 'no answer')", id_,
    )  # fmt: skip
    return id_


@asynccontextmanager
async def vendor(road: Road, *statuses: int) -> AsyncIterator[list[Got]]:
    """A receiver that answers so, the last for ever, and a worker that delivers to it."""
    left = list(statuses)

    def answer(got: Got) -> bytes:
        return response(left.pop(0) if len(left) > 1 else left[0], b"no such lead")

    async with receiving(answer) as receiver:
        worker: Worker = await road.start(addresses={"alerts": Address(url=receiver.url)})
        delivering = asyncio.create_task(worker.courier.run())
        try:
            yield receiver.got
        finally:
            worker.courier.stop()
            await asyncio.wait_for(delivering, PATIENCE)
            await worker.stop()


async def dead(road: Road) -> tuple[UUID, Letter]:
    id_ = await effect(road)
    async with vendor(road, 422):
        await road.until("SELECT count(*) FROM circuit.dead_letters WHERE status = 'open'", [1])
    async with road.pool.connection() as connection:
        (letter,) = await letters(connection, Wanted(kind="effect"), 10)
    return id_, letter


async def test_a_letter_of_an_effect_tells_what_was_to_leave_and_what_the_vendor_answered(road: Road) -> None:
    id_, letter = await dead(road)
    assert (letter.effect, letter.connector, letter.operation, letter.target) == (id_, "webhook", "post", "alerts")
    async with road.pool.connection() as connection:
        story = await story_of(connection, letter)
        assert (await story_of(connection, letter, "other")).answers == []
    assert story.payload.fields == {"id": "c1", "n": 1}
    assert [(each.attempt, each.status, each.said) for each in story.answers] == [(1, "dead", "HTTP 422: no such lead")]
    assert story.now == "the effect is dead"


async def test_a_retried_effect_leaves_again_with_its_key_and_in_its_order(road: Road) -> None:
    id_, letter = await dead(road)
    later = await effect(road)
    async with road.pool.connection() as connection:
        (fate,) = await retry(connection, [letter.id], "ada")
        (second,) = await retry(connection, [letter.id], "ben")
    assert (fate.done, second.done) == ("retried", "before")
    assert await road.rows(EFFECT, id_) == [("pending", 0)]
    async with vendor(road, 200) as got:
        await road.until("SELECT count(*) FROM circuit.effects WHERE status = 'delivered'", [2])
    assert [each.headers["idempotency-key"] for each in got] == [str(id_), str(later)]


async def test_an_edited_effect_keeps_its_key_and_its_letter_keeps_what_it_was(road: Road) -> None:
    id_, letter = await dead(road)
    async with road.pool.connection() as connection:
        edited = await send_edited(connection, letter.id, {"id": "c1", "n": 2}, "ada")
        assert edited.effect == id_
        with pytest.raises(LetterRefused, match="it was retried by ada"):
            await send_edited(connection, letter.id, {"id": "c1", "n": 3}, "ben")
    async with vendor(road, 200) as got:
        await road.until(EFFECT, [("delivered", 1)], id_)
    assert (got[0].headers["idempotency-key"], got[0].body) == (str(id_), b'{"n":2,"id":"c1"}')
    async with road.pool.connection() as connection:
        story = await story_of(connection, await find_letter(connection, letter.id))
    assert story.payload.fields == {"id": "c1", "n": 1}
    assert story.now == "the effect is delivered"


@pytest.mark.parametrize("value", [float("inf"), "a\0b", "\ud800"])
async def test_an_edit_that_no_json_can_hold_is_refused_and_the_letter_stays(road: Road, value: object) -> None:
    _, letter = await dead(road)
    async with road.pool.connection() as connection:
        with pytest.raises(LetterRefused):
            await send_edited(connection, letter.id, {"id": "c1", "n": value}, "ada")
        assert (await find_letter(connection, letter.id)).status == "open"


async def test_a_discarded_effect_is_not_sent_again(road: Road) -> None:
    id_, letter = await dead(road)
    async with road.pool.connection() as connection:
        await discard(connection, [letter.id], "ada", "the lead is gone")
        (fate,) = await retry(connection, [letter.id], "ben")
    assert fate.said.startswith("it was discarded by ada at ")
    assert await road.rows("SELECT status, settled_by, note FROM circuit.effects WHERE id = %s", id_) == [
        ("discarded", "ada", "the lead is gone")
    ]


async def test_an_effect_in_doubt_is_shown_as_such_and_is_no_dead_letter(road: Road) -> None:
    id_ = await in_doubt(road)
    (number,) = await road.rows("SELECT id FROM circuit.dead_letters")
    async with road.pool.connection() as connection:
        assert await letters(connection, Wanted(), 10) == []
        with pytest.raises(LetterRefused, match=f"Its effect {id_} is in doubt"):
            await find_letter(connection, number)
        (refused,) = await retry(connection, [number], "ada")
        (left,) = await discard(connection, [number], "ada", "why")
        assert refused.done == left.done == "refused"
        assert f"doubt settle {id_}" in refused.said

        (found,) = await doubts(connection, 10)
        assert (found.id, found.reason, found.attempts, found.payload) == (id_, "no answer", 3, {"id": "c1", "n": 1})
        assert await doubts(connection, 10, tenant="other") == []
        for which in (str(id_), str(id_)[:13], str(number)):
            assert (await find_doubt(connection, which)).id == id_
        assert (await known_of(connection, found)).doubt == found
        for which in ("ffff", "", "999"):
            with pytest.raises(LetterRefused, match="is in doubt"):
                await find_doubt(connection, which)
    assert await road.rows(STATES) == [("open", None)]


@pytest.mark.parametrize(
    ("decision", "becomes", "closed"),
    [
        (Decision.done, ("delivered", 3), "discarded"),
        (Decision.repeat, ("pending", 0), "retried"),
        (Decision.discard, ("discarded", 3), "discarded"),
    ],
)
async def test_a_person_settles_a_doubt_once(
    road: Road, decision: Decision, becomes: tuple[str, int], closed: str
) -> None:
    id_ = await in_doubt(road)
    async with road.pool.connection() as connection:
        found = await find_doubt(connection, str(id_))
        await settle_doubt(connection, found, decision, "ada", "it is in their list")
        with pytest.raises(LetterRefused, match=r"settled by ada at .*: it is in their list"):
            await settle_doubt(connection, found, Decision.done, "ben")
        with pytest.raises(LetterRefused, match="settled by ada at "):
            await find_doubt(connection, str(id_))
    assert await road.rows(EFFECT, id_) == [becomes]
    assert await road.rows(STATES) == [(closed, "ada")]


async def test_who_settled_a_doubt_is_kept_where_there_was_no_letter(road: Road) -> None:
    id_ = await effect(road, status="in_doubt")

    async def one(who: str) -> bool:
        async with road.pool.connection() as connection:
            found = await find_doubt(connection, str(id_))
            try:
                await settle_doubt(connection, found, Decision.repeat, who)
            except LetterRefused:
                return False
            return True

    done = await asyncio.gather(one("ada"), one("ben"), return_exceptions=True)
    assert done.count(True) == 1
    assert await road.rows("SELECT status, kind, effect FROM circuit.dead_letters") == [("retried", "effect", id_)]


@pytest.mark.parametrize("letter", [0, -5, 2**63, 10**40])
async def test_a_number_that_no_letter_can_have_is_refused_and_not_asked_for(road: Road, letter: int) -> None:
    async with road.pool.connection() as connection:
        for doing in (
            find_letter(connection, letter), retry(connection, [letter], "ann"),
            discard(connection, [letter], "ann", "why"),
        ):  # fmt: skip
            with pytest.raises(LetterRefused, match=f"no dead letter {letter}"):
                await doing


async def test_what_is_no_id_of_an_effect_is_told_what_one_looks_like(road: Road) -> None:
    async with road.pool.connection() as connection:
        for which in ("zebra", "-x", "1" * 40, "\u0663"):
            with pytest.raises(LetterRefused, match="looks like 01a1fda6"):
                await find_doubt(connection, which)
        with pytest.raises(LetterRefused) as refused:
            await find_doubt(connection, "12")
    assert "looks like" not in str(refused.value)


async def test_a_long_number_is_not_taken_for_the_letter_that_it_begins_with(road: Road) -> None:
    id_ = await in_doubt(road)
    await road.run(
        "INSERT INTO circuit.dead_letters (id, kind, tenant, effect, attempts, reason) OVERRIDING SYSTEM VALUE "
        "VALUES (123456789012345678, 'effect', 'acme', %s, 1, 'no answer')", id_,
    )  # fmt: skip
    async with road.pool.connection() as connection:
        assert (await find_doubt(connection, "123456789012345678")).id == id_
        with pytest.raises(LetterRefused):
            await find_doubt(connection, "1234567890123456789")
