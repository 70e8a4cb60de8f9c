"""What live executions were given, read and did: recorded while somebody compares, and answered from afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.unit import UnitOfWork
from circuit_script.endpoints.client import Link
from circuit_script.endpoints.protocol import Answer, Call
from circuit_script.erasure import Person, forget
from circuit_script.errors import RecordingUnreadable, RequestRefused
from circuit_script.events.maintenance import once
from circuit_script.events.recorder import Recorder, Skipped
from circuit_script.events.recordings import Ended, Recording, load, packed, store, unpacked
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.outcome import Failed, HttpRequest, Outcome, Succeeded, Work
from circuit_script.settings_shadow import ShadowSettings
from circuit_script.wiring.recorded_answers import RecordedCRM, RecordedJournal, RecordedUnique
from tests.doors import Handler, answer, endpoint, insert, open_post
from tests.loopback import NOBODY
from tests.receiver import Got, receiving, response
from tests.road import LOOPBACK, SCORE, Road, contact, open_road, places, score, succeed

RECORDED = "SELECT execution FROM circuit.recordings ORDER BY execution"
TENANTS = ("acme", "other")
SETTLED = "SELECT count(*) FROM circuit.executions"


@pytest.fixture
async def road(database: str, pooler: bool) -> AsyncIterator[Road]:
    async with open_road(database, pooler) as made:
        await made.live(SCORE)
        yield made


@contextlib.asynccontextmanager
async def recording(road: Road, sample: float = 1.0, **settings: Any) -> AsyncIterator[Recorder]:
    """A recorder of which all is written at the end."""
    recorder = Recorder(road.pool, ShadowSettings(**settings))
    recorder.follow(sample)
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        recorder.stop()
        await asyncio.wait_for(task, 20)


async def the_only(road: Road) -> Recording:
    (execution,) = await road.rows(RECORDED)
    async with road.pool.connection() as connection:
        found = await load(connection, execution)
    assert found is not None
    return found


class Refused(httpx.AsyncBaseTransport):
    """The network of a run that may ask nobody."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was asked again")


def again(road: Road, found: Recording, asked: list[str]) -> ExecutionBroker:
    """The broker of another run of what was recorded."""
    parts = BrokerParts(
        crm=RecordedCRM(found, LocalCRM(road.pool), asked),
        client=httpx.AsyncClient(transport=Refused(), verify=NOBODY),
        knows=lambda connector, target: True,
        callouts=LOOPBACK,
        unique_jobs=RecordedUnique(found, asked),
    )
    work = Work(
        found.execution, found.handler, found.tenant, found.object, found.event, found.records, found.old, found.events,
        SCORE.limits,
    )  # fmt: skip
    unit = UnitOfWork(found.object, [str(each["id"]) for each in found.records], found.contacts)
    return ExecutionBroker(
        work, parts, held=unit, journal=RecordedJournal(found), log=lambda line: None, remaining=lambda: 10.0
    )


async def test_who_asks_the_same_again_is_answered_as_the_live_execution_was(road: Road) -> None:
    def answered(got: Got) -> bytes:
        return response(404, b"nobody") if "missing" in got.line else response(200, b"found")

    async with receiving(answered) as vendor, recording(road) as recorder:

        async def ask(broker: ExecutionBroker) -> list[Any]:
            where = {"city": "Oslo", "score": 5}
            seen: list[Any] = [
                await broker.request("query", {"object": "Lead", "where": where, "order_by": "-score", "limit": 10}),
                await broker.request("page", {"object": "Lead", "fields": ["city"]}),
                await broker.request("count", {"object": "Lead", "where": {"city": "Oslo"}}),
                await broker.request("get", {"object": "Lead", "ids": ["l1", "nobody"], "versions": True}),
            ]
            for path in ("lead", "missing", "lead"):
                told = await broker.request("http", {"method": "GET", "url": f"{vendor.url}/{path}"})
                seen.append((told["status"], told["body"]))
            return seen

        live: list[Any] = []

        async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
            live.extend(await ask(broker))
            await broker.request("dml", {"op": "update", "object": "Lead", "rows": [{"id": "l1", "city": "Rome"}]})
            live.extend(await broker.request("get", {"object": "Lead", "ids": ["l1"]}))
            job = {"job": "remind", "arguments": {}, "unique": "once", "due": None}
            await broker.request("enqueue", job)
            await broker.request("dml", {"op": "insert", "object": "Lead", "rows": [{"city": "Kyiv"}]})
            return Succeeded(replace(broker.usage, wall_time=0.25))

        leads = [{"id": f"l{n}", "city": "Oslo", "score": 5} for n in range(3)]

        async def seed(work: Work, broker: ExecutionBroker) -> Outcome:
            await broker.request("dml", {"op": "insert", "object": "Lead", "rows": leads})
            return Succeeded(broker.usage)

        first = await road.start(seed)
        await road.take_in(contact("c0"))
        await road.done()
        await first.stop()
        await road.start(handle, recordings=recorder)
        await road.take_in(contact("c1", email="a@b.example"))
        await road.done()
        await road.until("SELECT count(*) FROM circuit.recordings", [1])
        # What stands there by now is the work of this very execution, and what came since.
        await road.run('UPDATE circuit.records SET data = data || \'{"city": "Bergen"}\'::jsonb')

        found = await the_only(road)
        assert (found.handler, found.object, found.event, found.tenant) == ("score", "Contact", "afterInsert", "acme")
        assert [each["email"] for each in found.records] == ["a@b.example"]
        assert found.release == road.release.id
        asked: list[str] = []
        broker = again(road, found, asked)
        requests = len(vendor.got)
        assert await ask(broker) == live[:7]
        assert live[0][0] == {"id": "l0", "city": "Oslo", "score": 5}
        assert [each[0] for each in live[4:7]] == [200, 404, 200]
        # Below what it has written itself: then the same read is of what is pending, too.
        await broker.request("dml", {"op": "update", "object": "Lead", "rows": [{"id": "l1", "city": "Rome"}]})
        assert (await broker.request("get", {"object": "Lead", "ids": ["l1"]}))[0] == live[7]
        assert live[7]["city"] == "Rome"
        await broker.request("enqueue", {"job": "remind", "arguments": {}, "unique": "once", "due": None})
        assert (asked, len(vendor.got)) == ([], requests)

        ended = found.ended
        assert (ended.status, ended.reason, ended.errors) == ("succeeded", "", {})
        assert [(each.op, each.id, each.fields, each.fresh) for each in ended.writes[:1]] == [
            ("update", "l1", {"city": "Rome"}, False)
        ]
        assert (ended.writes[1].op, ended.writes[1].fresh) == ("insert", True)
        assert [(each.connector, each.target, each.owner) for each in ended.sends] == [("jobs", "remind", 0)]
        assert (ended.usage["callouts"], ended.ms) == (3, 250.0)


async def test_what_the_live_execution_did_not_read_is_refused_and_named(road: Road) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("query", {"object": "Lead", "where": {"city": "Oslo"}, "fields": ["city"], "limit": 5})
        return Succeeded(broker.usage)

    async with recording(road) as recorder:
        await road.start(handle, recordings=recorder)
        await road.take_in(contact("c1"))
        await road.done()
    asked: list[str] = []
    broker = again(road, await the_only(road), asked)

    same = {"object": "Lead", "where": {"city": "Oslo"}, "fields": ["city"], "limit": 50}
    assert await broker.request("query", same) == []  # all of it was read, so nothing is missing
    for verb, said in (
        ("query", {"object": "Lead", "where": {"city": "Rome"}}),
        ("query", {"object": "Lead", "where": {"city": "Oslo"}}),  # every field: only one was read
        ("get", {"object": "Lead", "ids": ["l9"]}),
        ("enqueue", {"job": "remind", "arguments": {}, "unique": "once", "due": None}),
    ):
        try:
            told = await broker.request(verb, said)
        except RequestRefused as refused:
            told = {"refused": [refused.detail]}
        assert "was not read when this ran live" in told["refused"][0]
    assert asked == [
        "the query Lead where city = 'Rome'",
        "the query Lead where city = 'Oslo'",
        "the Lead l9",
        "whether a job remind with the key 'once' waits",
    ]


async def test_writes_of_checkpoints_are_told_with_those_of_the_end_and_failures_by_their_place(road: Road) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        await score(work, broker)
        for place in range(4):
            payload = {"arguments": {"n": place}, "job": f"j{place}", "unique": None, "due": None, "record": place}
            await broker.request("enqueue", payload)
        await broker.request("checkpoint", {"upto": 1, "errors": [[0, "bad lead"]], "decided": [[0, None]]})
        return Succeeded(broker.usage, errors={2: "no e-mail"}, decided={2: 30.0})

    async with recording(road) as recorder:
        await road.start(handle, recordings=recorder)
        await road.take_in(*(contact(f"c{n}") for n in range(4)))
        await road.until("SELECT count(*) FROM circuit.executions WHERE ended_at IS NOT NULL", [1])
        await road.until("SELECT count(*) FROM circuit.recordings", [1])
        await road.close_workers()
    ended = (await the_only(road)).ended

    assert ended.status == "partial"
    assert ended.errors == {0: "bad lead", 2: "no e-mail"}
    assert ended.decided == {0: None, 2: 30.0}
    assert [(each.id, each.owner) for each in ended.writes] == [("c1", 1), ("c3", 3)]
    assert [(each.target, each.owner) for each in ended.sends] == [("j1", 1), ("j3", 3)]


async def test_only_what_concluded_is_recorded(road: Road) -> None:
    """A batch that is taken apart is not: its parts are."""

    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        if bad := places(work, ["c2"]):
            return Failed("it broke", broker.usage, suspect=bad[0])
        return Succeeded(broker.usage)

    async with recording(road) as recorder:
        await road.start(handle, recordings=recorder, attempts=1)
        await road.take_in(*(contact(f"c{n}") for n in range(3)))
        await road.done()
    assert await road.rows("SELECT count(*) FROM circuit.executions") == [3]
    assert await road.rows("SELECT records FROM circuit.recordings ORDER BY records") == [1, 2]


async def test_nothing_is_recorded_of_what_the_database_made_of_an_execution(road: Road) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        stale = {"object": "Contact", "op": "update", "rows": [{"id": "c1", "n": 1}], "versions": {"c1": 99}}
        await broker.request("dml", stale)
        return Succeeded(broker.usage)

    async with recording(road) as recorder:
        await road.start(handle, recordings=recorder, attempts=1)
        await road.take_in(contact("c1"))
        await road.done()
    assert await road.rows("SELECT status FROM circuit.executions") == ["failed"]
    assert await road.rows(RECORDED) == []


@pytest.mark.parametrize(
    ("sample", "settings", "skipped"),
    [
        (0.0, {}, Skipped()),
        (1e-9, {}, Skipped(sample=3)),
        (1.0, {"most_per_second": 1}, None),
        (1.0, {"largest": 1024}, Skipped(size=3)),
    ],
)
async def test_what_is_not_kept_is_counted_and_runs_as_ever(
    road: Road, sample: float, settings: dict[str, Any], skipped: Skipped | None
) -> None:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        noise = Random(7).randbytes(4_000).hex()
        rows = [{"id": record["id"], "text": noise} for record in work.records]
        await broker.request("dml", {"op": "update", "object": "Contact", "rows": rows})
        return Succeeded(broker.usage)

    async with recording(road, sample, **settings) as recorder:
        await road.start(handle, recordings=recorder)
        for n in range(3):
            await road.take_in(contact(f"c{n}"))
            await road.until(SETTLED, [n + 1])
    kept = await road.rows(RECORDED)
    told = recorder.skipped()
    if skipped is None:  # the second may turn meanwhile
        assert len(kept) + told.rate == 3
        assert 1 <= len(kept) < 3
    else:
        assert (told, len(kept)) == (skipped, 0)
    assert recorder.skipped() == Skipped()
    assert await road.rows("SELECT count(*) FROM circuit.records WHERE data ? 'text'") == [3]


async def test_a_recording_that_cannot_be_stored_holds_nothing_up(road: Road) -> None:
    await road.run("ALTER TABLE circuit.recordings RENAME TO gone")
    async with recording(road) as recorder:
        await road.start(score, recordings=recorder)
        await road.take_in(contact("c1"))
        await road.done()
    assert (await road.record("c1") or {})["score"] == 1
    assert recorder.skipped() == Skipped(size=1)


async def test_one_person_forgotten_takes_all_recordings_of_the_tenant_along(road: Road) -> None:
    """Nobody can look who is in them: another's execution may have read the person."""
    async with recording(road) as recorder:
        await road.start(succeed, recordings=recorder)
        await road.take_in(contact("anna", email="anna@example.com"), replace(contact("ben"), tenant="other"))
        await road.done()
        await road.until("SELECT count(*) FROM circuit.recordings", [2])
    await road.run("INSERT INTO circuit.shadows (release, against, by_whom) VALUES (%s, %s, 'eva')",
                   road.release.id, road.release.id)  # fmt: skip
    await road.run(
        "INSERT INTO circuit.comparisons (shadow, execution, worker, state, tenant, differences) "
        "SELECT s.id, r.execution, r.execution, 'different', r.tenant, "
        "jsonb_build_array(r.tenant || ' anna@example.com') FROM circuit.recordings r, circuit.shadows s"
    )
    async with road.pool.connection() as connection:
        gone = (await forget(connection, Person("anna", "acme"), "eva")).blanked
    assert (gone["recordings"], gone["comparisons"]) == (1, 1)
    assert await road.rows("SELECT tenant FROM circuit.recordings") == ["other"]
    told = await road.rows("SELECT tenant, differences FROM circuit.comparisons ORDER BY tenant")
    assert told == [("acme", []), ("other", ["other anna@example.com"])]

    # What a worker held in memory meanwhile comes too late.
    late = [Recording(uuid7(), 1, tenant, "score", "Contact", "afterInsert", Ended("succeeded")) for tenant in TENANTS]
    async with road.pool.connection() as connection:
        await store(connection, [(each, packed(each) or b"") for each in late])
    assert await road.rows("SELECT tenant FROM circuit.recordings ORDER BY 1") == ["other", "other"]


async def test_recordings_go_after_their_days_and_comparisons_after_the_ledgers(road: Road) -> None:
    async with recording(road) as recorder:
        await road.start(succeed, recordings=recorder)
        await road.take_in(contact("c1"))
        await road.done()
    await road.run(
        "INSERT INTO circuit.recordings SELECT circuit.uuid_floor(now() - interval '8 days'), release, tenant, "
        "handler, object, event, records, bytes, body FROM circuit.recordings"
    )
    for days in (40, 8):
        await road.run(
            "INSERT INTO circuit.shadows (release, against, by_whom, closed_at) "
            "VALUES (%s, %s, 'eva', now() - make_interval(days => %s))",
            road.release.id, road.release.id, days,
        )  # fmt: skip
    await road.run(
        "INSERT INTO circuit.comparisons (shadow, execution, worker) "
        "SELECT s.id, r.execution, r.execution FROM circuit.shadows s, circuit.recordings r"
    )
    await once(road.pool, 30, recording_days=10)
    assert (len(await road.rows(RECORDED)), await road.rows("SELECT count(*) FROM circuit.comparisons")) == (2, [2])
    await once(road.pool, 30, recording_days=7)
    assert len(await road.rows(RECORDED)) == 1


def test_a_recording_of_another_version_or_a_broken_one_says_so() -> None:
    made = Recording(UUID(int=7), 1, "acme", "score", "Contact", "afterInsert", Ended("succeeded"))
    body = packed(made)
    assert body is not None
    again = unpacked(body)
    assert (again.execution, again.release, again.ended) == (made.execution, made.release, made.ended)
    for broken in (b"\x02" + body[1:], body[:-6], b"\x01nonsense", b""):
        with pytest.raises(RecordingUnreadable):
            unpacked(broken)


async def test_a_call_is_recorded_with_its_answer_and_without_what_proves_who_asks(
    database: str, app_folder: Path, pooler: bool
) -> None:
    attempts: list[Callable[[], None]] = []

    async def say(work: Work, broker: Any) -> Outcome | None:
        await broker.request("get", {"object": "Said", "ids": ["s1"]})
        await insert(broker, word="hello")
        answer(broker, 201, {"said": "hello"}, ("x-app", "yes"), ("set-cookie", "session=abc"))
        attempts.append(lambda: None)
        return Failed("its neighbour fell", broker.usage, disturbed=True) if len(attempts) == 1 else None

    handler: Handler = say
    async with open_road(database, pooler) as road, recording(road) as recorder:
        async with open_post(database, app_folder, handler, pooler=pooler, recordings=recorder) as post:
            await post.live(
                endpoint(
                    "chat",
                )
            )
            async with Link(app_folder / ".circuit" / "worker.sock") as link:
                assert await link.wait(5)
                headers = (("authorization", "Bearer abc"), ("x-api-key", "k"), ("accept", "text/html"))
                asked = Call("chat", "acme", HttpRequest("POST", "/api/chat", "q=1", headers, b'{"w": 1}'))
                told = await link.call(asked)
            assert isinstance(told, Answer)
            assert told.status == 201
        await road.until("SELECT count(*) FROM circuit.recordings", [1])
        found = await the_only(road)
    assert len(attempts) == 2
    assert len(found.reads) == 1  # of the run that counts, not of the one before it
    assert found.request is not None
    assert (found.request.method, found.request.query, found.request.body) == ("POST", "q=1", b'{"w": 1}')
    assert dict(found.request.headers) == {
        "authorization": "[not kept]",
        "x-api-key": "[not kept]",
        "accept": "text/html",
    }
    assert found.ended.answer is not None
    assert (found.ended.answer.status, found.ended.answer.body) == (201, b'{"said": "hello"}')
    answered = dict(found.ended.answer.headers)
    assert (answered["x-app"], answered["set-cookie"]) == ("yes", "[not kept]")
    assert [each.fields for each in found.ended.writes] == [{"word": "hello"}]
