"""Calls of endpoints against a real database: committed before they are answered, once for each key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from circuit_script.endpoints.client import Link
from circuit_script.endpoints.protocol import Answer, Call
from circuit_script.events.maintenance import once
from circuit_script.execution.outcome import Breached, Failed, HttpRequest, Outcome, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor import Limits
from tests.doors import Handler, Post, answer, begin_events, endpoint, insert, open_post

SAID = "SELECT data ->> 'word' FROM circuit.records WHERE object = 'Said' ORDER BY 1"
ENDS = """
SELECT x.status, o.status, x.reason FROM circuit.executions x
JOIN circuit.outcomes o ON o.execution = x.id JOIN circuit.deliveries d ON d.id = o.delivery ORDER BY x.id
"""

Open = Callable[..., Awaitable[tuple[Post, Link]]]


@pytest.fixture
async def post(database: str, app_folder: Path, pooler: bool) -> AsyncIterator[Open]:
    """Opens a door with ``handler`` and one endpoint, and a link to it."""
    async with AsyncExitStack() as stack:

        async def opened(handler: Handler, *, places: int = 4, **spec: Any) -> tuple[Post, Link]:
            made = await stack.enter_async_context(
                open_post(database, app_folder, handler, places=places, pooler=pooler)
            )
            await made.live(endpoint("chat", **spec), endpoint("other", **spec))
            link = await stack.enter_async_context(Link(app_folder / ".circuit" / "worker.sock"))
            assert await link.wait(5)
            return made, link

        yield opened


def call(
    body: bytes = b'{"word": "hello"}',
    key: str | None = None,
    tenant: str = "acme",
    cookie: str = "secret",
    token: str = "Basic x",
    method: str = "POST",
    **more: Any,
) -> Call:
    headers = (("content-type", "application/json"), ("authorization", token), ("cookie", cookie))
    request = HttpRequest(method, "/api/chat", "q=1", headers, body)
    return Call(more.pop("endpoint", "chat"), tenant, request, key=key, **more)


async def say(work: Work, broker: Any) -> Outcome | None:
    await insert(broker, word="hello")
    await broker.request("send", {"connector": "webhook", "operation": "post", "to": "hooks", "payload": {"a": 1}})
    answer(broker, 200, {"said": "hello"})
    return None


async def asked(link: Link, what: Call) -> Answer:
    found = await link.call(what)
    assert isinstance(found, Answer)
    return found


@pytest.mark.every_server
async def test_a_call_is_in_the_ledger_with_its_outcome_and_effects_before_it_is_answered(post: Open) -> None:
    door, link = await post(say)
    told = await asked(link, call())
    assert (told.status, told.body) == (200, b'{"said": "hello"}')
    execution = dict(told.headers)["execution-id"]
    (ledger,) = await door.rows("SELECT source, account, tenant, headers, body FROM circuit.deliveries")
    assert ledger[:3] == ("endpoint", "chat", "acme")
    assert ledger[3] == {
        ":method": "POST", ":path": "/api/chat", ":query": "q=1", "content-type": "application/json",
    }  # fmt: skip
    assert ledger[4] == b'{"word": "hello"}'
    assert await door.rows(ENDS) == [("succeeded", "succeeded", None)]
    assert await door.rows("SELECT id::text, event, records FROM circuit.executions") == [
        (execution, "POST /api/chat", 0)
    ]
    assert await door.rows(SAID) == ["hello"]
    effects = await door.rows("SELECT connector, status, lane, execution::text FROM circuit.effects ORDER BY connector")
    assert [(each[0], each[1]) for each in effects] == [("local", "delivered"), ("webhook", "pending")]
    assert {(each[2], each[3]) for each in effects} == {(effects[0][2], execution)}


@pytest.mark.every_server
async def test_the_same_request_with_the_same_key_is_executed_once(post: Open) -> None:
    door, link = await post(say)
    first = await asked(link, call(key="k1"))
    again = await asked(link, call(key="k1"))
    assert again.body == first.body
    assert again.headers == [*first.headers, ("idempotent-replayed", "true")]
    assert len(door.children.works) == 1
    assert await door.rows(SAID) == ["hello"]


@pytest.mark.parametrize(
    ("what", "status"),
    [
        (call(b'{"word": "other"}', key="k1"), 422),
        (call(key="k1", tenant="globex"), 200),
        (call(key="k1", endpoint="other"), 200),
        (call(b'{"word": "other"}', key="k1", cookie="of another"), 200),
        (call(b'{"word": "other"}', key="k1", token="Basic of another"), 200),
        (call(key="k1", cookie="of another"), 422),
        (call(key="k1", token="Bearer fresh"), 422),
        (call(key="x" * 256), 400),
        (call(key="é"), 400),
    ],
)
async def test_a_key_stands_for_one_request_of_one_caller_to_one_endpoint(post: Open, what: Call, status: int) -> None:
    door, link = await post(say)
    await asked(link, call(key="k1"))
    told = await asked(link, what)
    assert told.status == status
    assert ("idempotent-replayed", "true") not in told.headers
    assert len(door.children.works) == (2 if status == 200 else 1)


@pytest.mark.every_server
async def test_of_many_requests_with_one_key_at_once_one_is_executed(post: Open) -> None:
    go = asyncio.Event()

    async def slow(work: Work, broker: Any) -> Outcome | None:
        await go.wait()
        return await say(work, broker)

    door, link = await post(slow, places=20)
    calls = [asyncio.create_task(asked(link, call(key="k1"))) for _ in range(12)]
    done: set[asyncio.Task[Answer]] = set()
    while len(done) < 11:
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
    assert {each.result().status for each in done} == {409}
    assert all("retry-after" in dict(each.result().headers) for each in done)
    go.set()
    statuses = sorted([(await each).status for each in calls])
    assert statuses == [200] + [409] * 11
    assert len(door.children.works) == 1
    assert await door.rows(SAID) == ["hello"]


async def test_a_call_whose_worker_died_may_run_again_when_its_time_is_over(post: Open) -> None:
    door, link = await post(say, deadline=5.0)
    await asked(link, call(key="k1"))
    await door.rows("UPDATE circuit.idempotency SET status = NULL, until = now() + interval '1 minute' RETURNING 1")
    assert (await asked(link, call(key="k1"))).status == 409
    await door.rows("UPDATE circuit.idempotency SET until = now() - interval '1 second' RETURNING 1")
    assert (await asked(link, call(key="k1"))).status == 200


async def test_who_lost_its_key_to_another_does_not_count(post: Open) -> None:
    door: Post

    async def robbed(work: Work, broker: Any) -> Outcome | None:
        await door.rows("UPDATE circuit.idempotency SET execution = gen_random_uuid() RETURNING 1")
        return await say(work, broker)

    door, link = await post(robbed)
    assert (await asked(link, call(key="k1"))).status == 409
    assert await door.rows(SAID) == []
    assert await door.rows("SELECT 1 FROM circuit.deliveries") == []


async def test_a_cookie_that_was_set_is_not_given_again(post: Open) -> None:
    async def sign_in(work: Work, broker: Any) -> None:
        answer(broker, 200, {"you": "alice"}, ("set-cookie", "sid=1"), ("x-kept", "1"))

    door, link = await post(sign_in)
    first, again = await asked(link, call(key="k1")), await asked(link, call(key="k1"))
    assert ("set-cookie", "sid=1") in first.headers
    assert ("idempotent-replayed", "true") in again.headers
    assert dict(again.headers)["x-kept"] == "1"
    assert "set-cookie" not in dict(again.headers)
    assert await door.rows("SELECT 1 FROM circuit.idempotency WHERE headers::text LIKE '%%sid%%'") == []


async def test_the_keys_of_two_callers_are_answered_each_for_itself(post: Open) -> None:
    async def who(work: Work, broker: Any) -> None:
        assert work.request is not None
        answer(broker, 200, dict(work.request.headers)["cookie"])

    _, link = await post(who)
    alices, bobs = call(b"1", key="k1", cookie="alice"), call(b"2", key="k1", cookie="bob")
    for expected, what in ((b'"alice"', alices), (b'"bob"', bobs), (b'"alice"', alices), (b'"bob"', bobs)):
        assert (await asked(link, what)).body == expected
    assert (await asked(link, call(b"2", key="k1", cookie="alice"))).status == 422


async def test_of_one_request_with_other_credentials_at_once_one_is_executed(post: Open) -> None:
    door, link = await post(say, places=20)
    told = await asyncio.gather(*(asked(link, call(key="k1", token=f"Bearer {n}")) for n in range(12)))
    assert sorted(each.status for each in told) == [200] + [422] * 11
    assert await door.rows(SAID) == ["hello"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_key_has_no_effect_where_nothing_is_changed(post: Open, method: str) -> None:
    door, link = await post(say)
    await door.live(endpoint("chat", method))
    for key in ("k1", "k1", "x" * 256):
        told = await asked(link, call(key=key, method=method))
        assert told.status == 200
        assert "idempotent-replayed" not in dict(told.headers)
    assert await door.rows("SELECT 1 FROM circuit.idempotency") == []


async def test_what_cannot_be_stored_or_breaks_the_platform_gives_its_key_back(
    post: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(work: Work, broker: Any) -> None:
        answer(broker, 404, {})

    errors: list[Exception] = [psycopg.DataError("it cannot be stored"), RuntimeError("a bug")]
    door, link = await post(refuse)
    settler = door.answerer._parts.settler
    settle = settler.settle

    async def failing(settlement: Any) -> None:
        if errors:
            raise errors.pop(0)
        await settle(settlement)

    monkeypatch.setattr(settler, "settle", failing)
    assert b"unstorable" in (await asked(link, call(key="k1"))).body
    assert (await asked(link, call(key="k1"))).status == 500
    assert await door.rows("SELECT 1 FROM circuit.idempotency") == []
    assert (await asked(link, call(key="k1"))).status == 404


@pytest.mark.parametrize(
    ("status", "replayed"),
    [(404, True), *((status, False) for status in (401, 403, 408, 425, 429, 500, 503))],
)
async def test_a_refusal_commits_nothing_and_is_answered_again_while_a_failure_may_run_again(
    post: Open, status: int, replayed: bool
) -> None:
    async def refuse(work: Work, broker: Any) -> None:
        await insert(broker, word="never")
        answer(broker, status, {"no": 1})

    door, link = await post(refuse)
    first, again = await asked(link, call(key="k1")), await asked(link, call(key="k1"))
    assert (first.status, again.status) == (status, status)
    assert (("idempotent-replayed", "true") in again.headers) is replayed
    assert await door.rows(SAID) == []
    assert await door.rows("SELECT 1 FROM circuit.effects") == []


@pytest.mark.parametrize(
    ("outcome", "status", "reason", "execution"),
    [
        (lambda usage: Failed("ValueError: secret", usage, "Traceback"), 500, "failed", "failed"),
        (lambda usage: Breached("callouts", 51, 50, usage), 500, "callouts", "breached"),
        (lambda usage: Breached("wall_time", 9, 5, usage), 504, "deadline", "breached"),
        (lambda usage: Failed("its host ended", usage, blameless=True), 503, "lost", None),
    ],
)
async def test_each_end_has_its_answer_and_says_nothing_of_the_code(
    post: Open, outcome: Any, status: int, reason: str, execution: str | None
) -> None:
    async def end(work: Work, broker: Any) -> Outcome:
        await insert(broker, word="never")
        found: Outcome = outcome(broker.usage)
        return found

    door, link = await post(end, deadline=5.0)
    told = await asked(link, call())
    assert told.status == status
    assert f'"reason":"{reason}"'.encode() in told.body
    assert b"secret" not in told.body
    assert b"Traceback" not in told.body
    assert await door.rows(SAID) == []
    assert await door.rows("SELECT status FROM circuit.executions") == ([execution] if execution else [])


async def test_a_handler_that_answers_nothing_or_nonsense_has_failed(post: Open) -> None:
    async def nothing(work: Work, broker: Any) -> None:
        await insert(broker, word="never")
        if work.request is not None and work.request.body == b"nonsense":
            broker.on_head(Head(99, []))

    door, link = await post(nothing)
    assert (await asked(link, call())).status == 500
    assert (await asked(link, call(b"nonsense"))).status == 500
    assert await door.rows(SAID) == []


async def test_what_waits_counts_against_the_deadline(post: Open) -> None:
    async def sleep(work: Work, broker: Any) -> None:
        await asyncio.sleep(0.2)
        answer(broker)

    door, link = await post(sleep, places=1, deadline=10.0, limits=Limits(wall_time=8))
    await asyncio.gather(asked(link, call()), asked(link, call()))
    first, second = [work.limits.wall_time for work in door.children.works]
    assert first == 8
    assert second == 8
    await asyncio.gather(asked(link, call(seconds=2.0)), asked(link, call(seconds=2.0)))
    third, fourth = [work.limits.wall_time for work in door.children.works[2:]]
    assert third <= 2.0
    assert fourth <= 1.9


async def test_a_stream_leaves_at_once_and_ends_when_it_is_committed(post: Open) -> None:
    go = asyncio.Event()

    async def stream(work: Work, broker: Any) -> None:
        begin_events(broker)
        broker.on_chunk(b"data: 1\n\n")
        await insert(broker, word="streamed")
        await go.wait()
        broker.on_chunk(b"data: 2\n\n")

    door, link = await post(stream)
    found = await link.call(call())
    assert not isinstance(found, Answer)
    assert await found.next() == b"data: 1\n\n"
    assert await door.rows(SAID) == []
    go.set()
    assert await found.next() == b"data: 2\n\n"
    last = await found.next()
    assert last is not None
    assert last.startswith(b"event: done\n")
    assert await door.rows(SAID) == ["streamed"]
    assert await found.next() is None
    assert found.complete


async def test_a_stream_that_fails_says_so_in_its_last_event(post: Open) -> None:
    async def stream(work: Work, broker: Any) -> None:
        begin_events(broker)
        broker.on_chunk(b"data: 1\n\n")
        await insert(broker, word="never")
        raise ValueError("secret")

    door, link = await post(stream)
    found = await link.call(call())
    assert not isinstance(found, Answer)
    assert await found.next() == b"data: 1\n\n"
    last = await found.next()
    assert last is not None
    assert last.startswith(b'event: error\ndata: {"type":')
    assert b"secret" not in last
    assert await found.next() is None
    assert await door.rows(SAID) == []


async def test_a_caller_that_hangs_up_ends_a_stream_and_no_plain_call(post: Open) -> None:
    begun = asyncio.Event()
    go = asyncio.Event()

    async def both(work: Work, broker: Any) -> None:
        assert work.request is not None
        if work.request.body == b"stream":
            begin_events(broker)
            broker.on_chunk(b"data: 1\n\n")
        await insert(broker, word=work.request.body.decode())
        begun.set()
        await go.wait()
        answer(broker)

    door, link = await post(both)
    stream = await link.call(call(b"stream"))
    assert not isinstance(stream, Answer)
    await begun.wait()
    stream.close()
    await door.until("SELECT reason FROM circuit.executions", ["the caller hung up"])
    assert door.children.cancelled == 1
    begun.clear()
    plain = asyncio.create_task(link.call(call(b"plain")))
    await begun.wait()
    plain.cancel()
    await asyncio.wait({plain})
    go.set()
    await door.until(SAID, ["plain"])


async def test_a_streamed_answer_takes_no_key(post: Open) -> None:
    async def stream(work: Work, broker: Any) -> None:
        await insert(broker, word="never")
        begin_events(broker)
        broker.on_chunk(b"data: 1\n\n")
        await asyncio.Event().wait()

    door, link = await post(stream)
    told = await asked(link, call(key="k1"))
    assert told.status == 400
    assert b"idempotency-streamed" in told.body
    assert await door.rows(SAID) == []
    assert await door.rows("SELECT 1 FROM circuit.idempotency") == []


async def test_what_the_database_refuses_is_the_handlers_failure(post: Open) -> None:
    async def bad(work: Work, broker: Any) -> None:
        await broker.request(
            "send", {"connector": "webhook", "operation": "post", "to": "hooks", "payload": {"a": float("nan")}}
        )
        await broker.request("dml", {"op": "insert", "object": "x" * 255, "rows": [{"id": "\ud800"}], "record": None})
        answer(broker)

    door, link = await post(bad)
    assert (await asked(link, call())).status == 500
    assert await door.rows("SELECT status FROM circuit.executions") == ["failed"]


async def test_without_a_database_nothing_is_executed(post: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    door, link = await post(say)
    real = door.pool.connection

    def away(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(door.pool, "connection", away)
    keyed = await asked(link, call(key="k1"))
    assert keyed.status == 503
    assert dict(keyed.headers)["retry-after"]
    assert (await asked(link, call())).status == 503
    assert door.children.works == []
    monkeypatch.setattr(door.pool, "connection", real)
    assert (await asked(link, call())).status == 200


@pytest.mark.every_server
async def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(
    post: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, link = await post(say)
    settler: Any = door.answerer._parts.settler
    real, lost = settler._commit, 0

    async def committed_but_unheard(settlements: Any) -> None:
        nonlocal lost
        await real(settlements)
        if not lost:
            lost += 1
            raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(settler, "_commit", committed_but_unheard)
    assert (await asked(link, call(key="k1"))).status == 200
    assert lost == 1
    assert await door.rows(SAID) == ["hello"]
    assert await door.rows(ENDS) == [("succeeded", "succeeded", None)]


async def test_a_commit_that_stays_in_doubt_is_said_to_be(post: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    door, link = await post(say, deadline=1.0)
    settler: Any = door.answerer._parts.settler

    async def lost(settlements: Any) -> None:
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(settler, "_commit", lost)
    told = await asked(link, call())
    assert told.status == 503
    assert b"outcome-unknown" in told.body


@pytest.mark.every_server
async def test_keys_are_forgotten_after_a_day(post: Open) -> None:
    door, link = await post(say)
    await asked(link, call(key="old"))
    await door.rows("UPDATE circuit.idempotency SET at = now() - interval '25 hours' RETURNING 1")
    await asked(link, call(key="new"))
    assert (await asked(link, call(key="old"))).status == 200
    assert len(door.children.works) == 3
    await door.rows("UPDATE circuit.idempotency SET at = now() - interval '25 hours' WHERE key = 'old' RETURNING 1")
    await once(door.pool, 30)
    assert await door.rows("SELECT key FROM circuit.idempotency") == ["new"]
